//! Tokens and streams between organizations: whatever goes on by a token goes on under keys of its own organization alone,
//! and followers of several who ask at once are each told of their own people.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::{
    harness::{Client, Messages, SCOPES, Service, client, wire::Wire},
    tenancy::ask,
    walk::{is_stream, rpcs_with},
    whom::{Whom, text},
};

const WATCH: &str = "ProfileQueryService/WatchProfiles";

/// How many people an organization has, and how often each is changed.
const PEOPLE: usize = 3;

/// How often each person is changed while there are followers.
const CHANGES: usize = 10;

/// Followers of each organization at once.
const FOLLOWERS: usize = 3;

/// Every RPC that takes a token, and the field that it is in.
fn taking_tokens() -> Vec<(String, &'static str)> {
    let by = |field: &str, name| rpcs_with(field).into_iter().map(move |rpc| (rpc, name)).collect::<Vec<_>>();
    [by("page_token", "pageToken"), by("resume_token", "resumeToken")].concat()
}

/// The requests of an RPC whose answers have a token, of an organization that has this person.
fn begin(rpc: &str, person: &Json) -> Vec<Json> {
    match rpc {
        "ProfileQueryService/ListProfiles" => {
            vec![json!({ "pageSize": 1 }), json!({ "pageSize": 1, "namePrefix": "by", "dob": "1985-12-10" })]
        }
        "SupportService/ListProfileChanges" | "SupportService/ListProfileCases" => {
            vec![json!({ "pageSize": 1, "id": person["id"] })]
        }
        WATCH => vec![json!({})],
        other => panic!("{other} is new: say here how it begins, and whose tokens it takes"),
    }
}

/// A token, and what it goes on with.
struct Given {
    rpc: String,
    request: Json,
    token: String,
}

/// An organization with people, each of whom was changed and has cases.
async fn populated(service: &Service, client: &Client) -> Vec<Json> {
    let people = join_all((0..PEOPLE).map(async |number| {
        let person = client.person(json!({ "dob": "1985-12-10" })).await;
        client.patch(&person, json!({ "city": "London" })).await.expect("patched");
        for case in 0..2 {
            client
                .report(&format!("{number}.{case}"), &person, "OPEN", "2026-01-05T10:00:00Z")
                .await
                .expect("reported");
        }
        person
    }));
    let people = people.await;
    service.database.sequenced().await;
    people
}

async fn next(messages: &mut Messages) -> Json {
    let message = timeout(Duration::from_secs(20), messages.next()).await.expect("a message in time");
    message.expect("a message").expect("a stream that goes on")
}

/// The messages of a follower's snapshot, to its end.
async fn snapshot(messages: &mut Messages) -> Vec<Json> {
    let mut shown = Vec::new();
    while shown.last().is_none_or(|last: &Json| last["kind"] != "KIND_SNAPSHOT_END") {
        shown.push(next(messages).await);
    }
    shown
}

/// A token of every list and stream, and of a stream each that there is.
async fn tokens(client: &Client, people: &[Json]) -> Vec<Given> {
    let mut tokens = Vec::new();
    for (rpc, _) in taking_tokens() {
        let mut requests: Vec<_> = people.iter().flat_map(|person| begin(&rpc, person)).collect();
        requests.dedup();
        for request in requests {
            if is_stream(&rpc) {
                let mut messages = client.stream(&rpc, request.clone()).await.expect("a stream");
                let mut shown = snapshot(&mut messages).await;
                let mut messages = client.stream(&rpc, json!({ "skipExisting": true })).await.expect("a stream");
                shown.push(next(&mut messages).await);
                tokens
                    .extend(shown.iter().map(|message| (rpc.clone(), request.clone(), message["resumeToken"].clone())));
            } else {
                let page = client.call(&rpc, request.clone()).await.expect("a page");
                tokens.push((rpc.clone(), request, page["nextPageToken"].clone()));
            }
        }
    }
    let mut known = BTreeSet::new();
    let token = |(rpc, request, token): (String, Json, Json)| Given { rpc, request, token: text(&token).to_owned() };
    tokens.into_iter().map(token).filter(|token| known.insert(token.token.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_and_resume_token_is_none_under_every_other_organizations_key() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let people = [populated(&service, &north).await, populated(&service, &south).await];
    let tokens = [tokens(&north, &people[0]).await, tokens(&south, &people[1]).await];
    let wire = Wire::connect(&service.address).await;
    for (owner, other) in [(0, 1), (1, 0)] {
        let organizations = ["north", "south"];
        let colleague = service.client(&service.key(organizations[owner], &SCOPES)).await;
        let foreigner = service.key(organizations[other], &SCOPES);
        let said = Whom::new(0);
        for Given { rpc, request, token } in &tokens[owner] {
            for (to, field) in taking_tokens() {
                let of_either =
                    [&people[other][0], &people[owner][0]].into_iter().flat_map(|person| begin(&to, person));
                for mut tried in of_either.chain((to == *rpc).then(|| request.clone())) {
                    let its_own = tried["id"] == request["id"] && to == *rpc && !is_stream(rpc);
                    tried[field] = json!(token);
                    let told = ask(&wire, &foreigner, &to, tried.clone(), &said).await;
                    if its_own && to == "SupportService/ListProfileChanges" {
                        assert_eq!(told.reason, "PROFILE_NOT_FOUND", "it is the profile's, which is not there");
                        continue;
                    }
                    let invalid = if is_stream(&to) { "INVALID_RESUME_TOKEN" } else { "INVALID_PAGE_TOKEN" };
                    assert_eq!(told.reason, invalid, "{to} with a token of {rpc}");
                    tried[field] = json!("0".repeat(token.len()));
                    assert_eq!(
                        ask(&wire, &foreigner, &to, tried, &said).await,
                        told,
                        "it tells that there is such a token"
                    );
                }
            }
            let mut on = request.clone();
            on[if is_stream(rpc) { "resumeToken" } else { "pageToken" }] = json!(token);
            let goes_on = if is_stream(rpc) {
                colleague.stream(rpc, on).await.map(drop)
            } else {
                colleague.call(rpc, on).await.map(drop)
            };
            assert_eq!(goes_on, Ok(()), "{rpc} under another key of the same organization");
        }
    }
}

/// Positions count within an organization, so that followers of both ask for the same pages at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_who_ask_at_once_are_each_told_of_their_own_people() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let people = [populated(&service, &north).await, populated(&service, &south).await];
    let begun = |(client, people)| async move {
        let mut messages = Client::stream(client, WATCH, json!({})).await.expect("a stream");
        let shown = snapshot(&mut messages).await;
        let shown: BTreeSet<_> =
            shown.iter().filter_map(|message| message["profileId"].as_str().map(str::to_owned)).collect();
        let people: &Vec<Json> = people;
        assert_eq!(shown, people.iter().map(|person| text(&person["id"]).to_owned()).collect());
        (messages, shown)
    };
    let sides = [(&north, &people[0]), (&south, &people[1])];
    let followers = join_all((0..FOLLOWERS).flat_map(|_| sides).map(begun)).await;
    let following = join_all(followers.into_iter().map(async |(mut messages, ids)| {
        let mut changed = BTreeSet::new();
        while changed.len() < PEOPLE * CHANGES {
            let message = next(&mut messages).await;
            if message["kind"] == "KIND_CHANGED" {
                let (id, profile) = (text(&message["profileId"]), &message["profile"]);
                assert!(ids.contains(id) && profile["id"] == id, "somebody else's change: {message}");
                changed.insert((id.to_owned(), text(&message["revision"]).to_owned()));
            }
        }
    }));
    let writing = join_all(sides.map(async |(client, people)| {
        for number in 0..CHANGES {
            let city = json!({ "city": format!("City {number}") });
            join_all(people.iter().map(async |person| client.patch(person, city.clone()).await.expect("patched")))
                .await;
        }
    }));
    tokio::join!(following, writing);
}
