//! Whose a profile is: to a key of another organization a person is nobody, byte for byte. Everything is asked at once, so
//! that reads of several organizations share queries, and writes share groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
    stream,
};
use prost::Message as _;
use serde_json::{Value as Json, json};
use tonic::Status;

use crate::{
    crowd::{BUSY, Person, a_stranger, own_edits, own_reads, own_writes, people, twin},
    harness::{
        Client, Database, Failure, SCOPES, Scrape, Service, message, rounds,
        wire::{Wire, frame},
    },
    walk::{rpcs, writing_rpcs},
    whom::{Whom, ways},
};

/// Calls under way at once: few enough for a busy machine to find each a connection in time.
const AT_ONCE: usize = 32;

/// What somebody was answered: the reason, and all that was on the wire but the time of day and what the caller had said.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    pub reason: String,
    sent: String,
}

/// Asks as the holder of this key does.
pub async fn ask(wire: &Wire, key: &str, rpc: &str, request: Json, whom: &Whom) -> Answer {
    let body = frame(&message(rpc, request).encode_to_vec());
    let headers = [("cv-api-key", key), ("x-request-id", "asked"), ("grpc-timeout", "10S")];
    let (head, mut sent, trailers) = wire.begin(rpc, &headers, body, true).await.whole().await;
    let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head)).expect("a status");
    for (name, value) in head.iter().chain(trailers.iter().flatten()) {
        // The details are compared in clear, as below.
        if name != "date" && name != "grpc-status-details-bin" {
            sent.extend([name.as_str().as_bytes(), value.as_bytes()].concat());
        }
    }
    sent.extend([status.message().as_bytes(), status.details()].concat());
    for said in whom.said() {
        while let Some(at) = sent.windows(said.len()).position(|bytes| bytes == said.as_bytes()) {
            sent[at..at + said.len()].fill(b'?');
        }
    }
    let reason = if status.code() == tonic::Code::Ok { "OK".to_owned() } else { Failure::from(status).reason };
    Answer { reason, sent: sent.escape_ascii().to_string() }
}

/// A question of a foreign key: the RPC, the way, and the scope of the key, empty where it has all.
type Question = (String, &'static str, &'static str);

/// A question that was asked about a person, or about nobody, and its answer.
struct Asked<'a> {
    person: Option<&'a Person>,
    question: Question,
    answer: Answer,
}

/// What was answered about people, and about nobody: each different answer once.
#[derive(Default)]
struct Answers {
    people: BTreeSet<Answer>,
    nobody: BTreeSet<Answer>,
}

impl Answers {
    /// The one answer about people and the one about nobody.
    fn only(&self, question: &Question) -> [&Answer; 2] {
        [&self.people, &self.nobody].map(|answers| {
            assert_eq!(answers.len(), 1, "{question:?} tells people apart: {answers:#?}");
            answers.first().expect("an answer")
        })
    }
}

/// A call of an organization of its own people, or of another's.
type Call<'a> = BoxFuture<'a, Option<Asked<'a>>>;

/// The calls of all organizations, reads by their RPC.
#[derive(Default)]
struct Crowd<'a> {
    reads: Vec<(String, Call<'a>)>,
    writes: Vec<(String, Call<'a>)>,
}

impl<'a> Crowd<'a> {
    /// Adds what an organization reads and writes of its own people.
    fn own(&mut self, client: &Client, people: &[Person], busy: &Json) {
        let none = |call: BoxFuture<'static, ()>| call.map(|()| None).boxed();
        for person in people.iter().filter(|person| !person.profile.is_null()) {
            self.reads.extend(own_reads(client, person).into_iter().map(|(rpc, call)| (rpc.to_owned(), none(call))));
            self.writes.extend(own_edits(client, person).into_iter().map(|call| (String::new(), none(call))));
        }
        self.writes.extend(own_writes(client, busy).into_iter().map(|call| (String::new(), none(call))));
    }

    /// Adds everything that this organization can ask about a person, or about nobody.
    fn ask(&mut self, asking: &'a Asking, whom: &'a Whom, person: Option<&'a Person>) {
        // Each role and each status is asked about in all ways, every pair of them in the first way of each RPC.
        let all_ways =
            person.is_none_or(|person| !person.is_known || whom.number / 8 == whom.number % 8 / 2) || rounds(1) > 1;
        let by_scopes =
            person.is_none_or(|person| person.is_known && (&*person.role, &*person.status) == ("ADMIN", "APPROVED"));
        for (scope, key) in asking.keys.iter().filter(|(scope, _)| by_scopes || scope.is_empty()) {
            for rpc in rpcs() {
                let mut ways = ways(&rpc, whom, &asking.own);
                ways.truncate(if scope.is_empty() && all_ways { ways.len() } else { 1 });
                let writes = writing_rpcs().contains(&rpc);
                let (calls, of) =
                    if writes { (&mut self.writes, String::new()) } else { (&mut self.reads, rpc.clone()) };
                for (way, request) in ways {
                    let question = (rpc.clone(), way, *scope);
                    let asked = async move {
                        let answer = ask(&asking.wire, key, &question.0, request, whom).await;
                        Some(Asked { person, question, answer })
                    };
                    calls.push((of.clone(), asked.boxed()));
                }
            }
        }
    }

    /// Makes all calls, the reads of each RPC and then the writes, so that every organization comes beside every other.
    async fn all_at_once(self) -> BTreeMap<Question, Answers> {
        let mixed = |calls: Vec<(String, Call<'a>)>| {
            let places = calls.into_iter().enumerate();
            let mut calls: Vec<_> = places.map(|(n, (rpc, call))| ((rpc, n * 7919 % 10_007), call)).collect();
            calls.sort_by(|(place, _), (other, _)| place.cmp(other));
            calls
        };
        let calls = mixed(self.reads).into_iter().chain(mixed(self.writes)).map(|(_, call)| call);
        let mut asked = stream::iter(calls).buffer_unordered(AT_ONCE).filter_map(async |asked| asked).boxed();
        let mut answers = BTreeMap::<_, Answers>::new();
        while let Some(Asked { person, question, answer }) = asked.next().await {
            // Of somebody of whom nothing is known, or any more, there is no more than an id to ask for.
            let of_somebody = person.is_some_and(|person| person.is_known || question.1.starts_with("id"));
            let answers = answers.entry(question).or_default();
            let of = if of_somebody { &mut answers.people } else { &mut answers.nobody };
            of.insert(answer);
        }
        answers
    }
}

/// An organization that asks.
struct Asking {
    wire: Wire,
    /// Its keys: the scope of each, and one for everything.
    keys: Vec<(&'static str, String)>,
    own: Whom,
}

impl Asking {
    async fn begin(service: &Service, organization: &str) -> Self {
        let client = service.organization(organization).await;
        let own = a_stranger(&client, 8888).await;
        client.patch(&own.profile, json!({ "email": own.whom.email })).await.expect("patched");
        let each = SCOPES.map(|scope| (scope, service.key(organization, &[scope])));
        let keys = each.into_iter().chain([("", service.key(organization, &SCOPES))]).collect();
        Self { wire: Wire::connect(&service.address).await, keys, own: own.whom }
    }
}

/// How many reads or writes were carried out together, on average, between two moments.
fn together(queue: &str, before: &Scrape, after: &Scrape) -> f64 {
    let label = format!("queue=\"{queue}\"");
    let more = |name: &str| {
        let name = format!("profile_service_queue_batch_size_{name}");
        after.sum(&name, &[&label]) - before.sum(&name, &[&label])
    };
    more("sum") / more("count")
}

/// What a foreign key learns: what it is answered about a person, and about nobody where that is something else. A key with one
/// scope is answered as one with all, or that it lacks the scope.
fn table(answers: &BTreeMap<Question, Answers>) -> String {
    let mut table = String::new();
    for (question, told) in answers {
        let (rpc, way, scope) = question;
        let [people, nobody] = told.only(question);
        if scope.is_empty() {
            let differs = if people == nobody { "" } else { nobody.reason.as_str() };
            let line = format!("{rpc:<42}{way:<26}{:<26}{differs}", people.reason);
            writeln!(table, "{}", line.trim_end()).expect("text");
        } else if people.reason == "SCOPE_MISSING" {
            assert_eq!(people, nobody, "{question:?}");
        } else {
            assert_eq!([people, nobody], answers[&(rpc.clone(), *way, "")].only(question));
        }
    }
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_foreign_key_a_person_is_nobody_whatever_else_is_asked_and_written_together() {
    let service = Service::observed(Arc::new(Database::create()), []);
    let [north, south] = [service.organization("north").await, service.organization("south").await];
    let people = people(&north).await;
    let twins = join_all(people.iter().take(8).map(|person| twin(&south, person))).await;
    let busy = [north.person(json!({ "lastName": "Busy" })).await, south.person(json!({ "lastName": "Busy" })).await];
    let (west, nobody) = (Asking::begin(&service, "west").await, Whom::new(9999));

    let mut crowd = Crowd::default();
    crowd.own(&north, &people, &busy[0]);
    crowd.own(&south, &twins, &busy[1]);
    for person in &people {
        crowd.ask(&west, &person.whom, Some(person));
    }
    crowd.ask(&west, &nobody, None);
    let before = service.scrape().await;
    let answers = crowd.all_at_once().await;
    let after = service.scrape().await;
    for (queue, least) in [("reads", 1.5), ("writes", 2.0)] {
        let together = together(queue, &before, &after);
        assert!(together > least, "{queue} hardly came together: {together}");
    }

    for person in &people {
        match north.get(&json!({ "id": person.whom.id })).await {
            Ok(profile) => assert_eq!(profile, person.profile, "nothing was changed"),
            Err(refused) => assert!(person.profile.is_null() && refused.reason == "PROFILE_NOT_FOUND", "{refused:?}"),
        }
    }
    for (client, busy) in [&north, &south].into_iter().zip(&busy) {
        let changes = client.changes(busy).await;
        assert_eq!(changes.len(), 1 + BUSY);
        assert!(changes.iter().all(|change| change["keyId"] == changes[0]["keyId"]), "a change has another's author");
    }
    insta::assert_snapshot!(table(&answers), @r"
    CaseService/ReportCaseStatus              case, for oneself         OK
    CaseService/ReportCaseStatus              id                        PROFILE_NOT_FOUND
    ProfileIdentifierService/AddIdentifier    id                        PROFILE_NOT_FOUND
    ProfileIdentifierService/AddIdentifier    id, etag, request id      PROFILE_NOT_FOUND
    ProfileIdentifierService/AddIdentifier    identifier, for oneself   OK
    ProfileIdentifierService/RemoveIdentifier id                        PROFILE_NOT_FOUND
    ProfileIdentifierService/RemoveIdentifier id, etag, request id      PROFILE_NOT_FOUND
    ProfileIdentifierService/RemoveIdentifier identifier, for oneself   OK
    ProfileQueryService/BatchGetProfiles      id                        OK
    ProfileQueryService/BatchGetProfiles      id, beside one's own      OK
    ProfileQueryService/CountProfiles         name                      OK
    ProfileQueryService/ListProfiles          name                      OK
    ProfileQueryService/LookUpProfile         e-mail                    PROFILE_NOT_FOUND
    ProfileQueryService/LookUpProfile         identifier                PROFILE_NOT_FOUND
    ProfileQueryService/LookUpProfile         phone number              PROFILE_NOT_FOUND
    ProfileService/CreateProfile              e-mail                    EMAIL_IN_USE              OK
    ProfileService/CreateProfile              identifier                OK
    ProfileService/CreateProfile              phone number              PHONE_NUMBER_IN_USE       OK
    ProfileService/GetProfile                 id                        PROFILE_NOT_FOUND
    ProfileService/PatchProfile               e-mail, for oneself       EMAIL_IN_USE              OK
    ProfileService/PatchProfile               id                        PROFILE_NOT_FOUND
    ProfileService/PatchProfile               id, etag, request id      PROFILE_NOT_FOUND
    ProfileService/PatchProfile               phone number, for oneself PHONE_NUMBER_IN_USE       OK
    ProfileService/ReplaceProfile             e-mail, for oneself       EMAIL_IN_USE              OK
    ProfileService/ReplaceProfile             id                        PROFILE_NOT_FOUND
    ProfileService/ReplaceProfile             id, etag, request id      PROFILE_NOT_FOUND
    ProfileService/ReplaceProfile             phone number, for oneself PHONE_NUMBER_IN_USE       OK
    ProfileService/UpdateProfile              e-mail                    USER_NOT_IN_ORGANIZATION  USER_NOT_FOUND
    ProfileService/UpdateProfile              e-mail, etag, request id  USER_NOT_IN_ORGANIZATION  USER_NOT_FOUND
    ProfileService/UpdateProfile              phone number, for oneself PHONE_NUMBER_IN_USE       OK
    SupportService/CorrectProfile             e-mail, for oneself       EMAIL_IN_USE              OK
    SupportService/CorrectProfile             id                        PROFILE_NOT_FOUND
    SupportService/CorrectProfile             id, etag, request id      PROFILE_NOT_FOUND
    SupportService/CorrectProfile             phone number, for oneself PHONE_NUMBER_IN_USE       OK
    SupportService/EraseProfile               id                        PROFILE_NOT_FOUND
    SupportService/EraseProfile               id, etag, request id      PROFILE_NOT_FOUND
    SupportService/ExportProfile              id                        PROFILE_NOT_FOUND
    SupportService/FindProfile                e-mail                    PROFILE_NOT_FOUND
    SupportService/FindProfile                identifier                PROFILE_NOT_FOUND
    SupportService/FindProfile                phone number              PROFILE_NOT_FOUND
    SupportService/ListProfileCases           id                        PROFILE_NOT_FOUND
    SupportService/ListProfileChanges         id                        PROFILE_NOT_FOUND
    SupportService/ListProfileChanges         id, token                 PROFILE_NOT_FOUND
    SupportService/SetProfileRole             id                        PROFILE_NOT_FOUND
    SupportService/SetProfileRole             id, etag, request id      PROFILE_NOT_FOUND
    ");
}
