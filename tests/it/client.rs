//! The client of this crate, against the real program: what it repeats, what it tells, and what it never does twice.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use profile_service::{
    client::{BuildError, Builder, Client, Code, Error, Messages, Reason},
    pb,
};
use tokio::{net::TcpStream, time::timeout};

use crate::harness::{
    Act, Database, Peer, Proxy, SCOPES, Service, Way,
    tls::{Authority, SERVER, TlsFiles},
    until,
};

/// How long something may take that takes seconds, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(30);

/// A client of what listens here.
fn builder(address: impl std::fmt::Display, key: &str) -> Builder {
    Client::builder(format!("http://{address}")).key(key)
}

/// A client with a key for everything, on a service of its own.
fn north() -> (Service, Client) {
    let service = Service::start();
    service.run(["organization", "create", "north"]);
    let north = builder(&service.address, &service.key("north", &SCOPES)).build().expect("a client");
    (service, north)
}

fn create(fields: pb::Profile) -> pb::CreateProfileRequest {
    let (first_name, last_name) = (Some("Ada".to_owned()), Some("Byron".to_owned()));
    let profile = Some(pb::Profile { first_name, last_name, ..fields });
    pb::CreateProfileRequest { profile, ..Default::default() }
}

fn patch(id: &str, fields: pb::Profile) -> pb::PatchProfileRequest {
    pb::PatchProfileRequest { profile: Some(pb::Profile { id: id.to_owned(), ..fields }), ..Default::default() }
}

fn city(name: &str) -> pb::Profile {
    pb::Profile { city: Some(name.to_owned()), ..Default::default() }
}

fn get(id: &str) -> pb::GetProfileRequest {
    pb::GetProfileRequest { id: id.to_owned() }
}

/// The answer: messages have no `Debug`.
fn answered<T>(answer: Result<T, Error>) -> T {
    answer.unwrap_or_else(|error| panic!("{error}"))
}

fn refused<T>(answer: Result<T, Error>) -> Error {
    answer.err().expect("a refusal")
}

async fn next<T>(messages: &mut Messages<T>) -> T {
    let message = timeout(SOON, messages.next()).await.expect("a message in time");
    answered(message.expect("a stream that goes on"))
}

#[tokio::test]
async fn an_error_has_its_reason_its_fields_and_what_the_reason_says_besides() {
    let (service, north) = north();
    let nameless = refused(north.call(pb::CreateProfileRequest::default()).await);
    assert_eq!((nameless.code(), nameless.reason()), (Code::InvalidArgument, Some(&Reason::InvalidFields)));
    let told: Vec<_> =
        nameless.violations().iter().map(|wrong| (wrong.field.as_str(), wrong.reason.as_str())).collect();
    assert_eq!(told, [("profile.first_name", "REQUIRED"), ("profile.last_name", "REQUIRED")]);

    let ada = answered(north.call(create(pb::Profile::default())).await);
    let report = pb::ReportCaseStatusRequest {
        case_id: "c-1".to_owned(),
        profile_id: ada.id.clone(),
        status: pb::case::Status::Assigned.into(),
        status_time: Some(ada.created_date.expect("a time")),
    };
    answered(north.call(report).await);
    let renamed = pb::Profile { last_name: Some("King".to_owned()), ..Default::default() };
    let locked = refused(north.call(patch(&ada.id, renamed)).await);
    assert!(locked.is(&Reason::DemographicsLocked));
    assert_eq!(locked.violations()[0].field, "last_name");
    assert_eq!(locked.violations()[0].description, "locked by a case about the person");

    let reader = builder(&service.address, &service.key("north", &["profiles.read"])).build().expect("a client");
    let forbidden = refused(reader.call(create(pb::Profile::default())).await);
    assert_eq!(
        (forbidden.reason(), forbidden.metadata("scope")),
        (Some(&Reason::ScopeMissing), Some("profiles.write"))
    );

    let nobody = pb::Profile { email: Some("ada@example.com".to_owned()), ..city("London") };
    let unknown = refused(north.call(pb::UpdateProfileRequest { data: Some(nobody), ..Default::default() }).await);
    assert_eq!(unknown.message(), "User ada@example.com does not exist");
    assert_eq!(
        (format!("{unknown}"), format!("{unknown:?}")),
        ("USER_NOT_FOUND".to_owned(), "USER_NOT_FOUND".to_owned())
    );
}

#[test]
fn every_reason_of_the_documents_is_known() {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md")).expect("a document");
    let (_, table) = document.split_once("## Every reason").expect("a heading");
    let (table, _) = table.split_once("\n## ").unwrap_or((table, ""));
    let rows = table.lines().filter_map(|line| line.split('|').nth(2));
    let reasons: Vec<_> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(reasons.len(), 31);
    for reason in reasons {
        assert!(!matches!(Reason::from(reason), Reason::Other(_)), "{reason}");
        assert_eq!(Reason::from(reason).to_string(), reason);
    }
    assert_eq!(Reason::from("NEW"), Reason::Other("NEW".to_owned()));
    assert_eq!(Reason::from("NEW").to_string(), "NEW");
}

#[tokio::test]
async fn a_call_outlasts_that_nobody_listens() {
    let (service, _north) = north();
    let proxy = Proxy::start(service.address.clone(), Duration::ZERO).await;
    let key = service.key("north", &SCOPES);
    let north = builder(proxy.address, &key).deadline(SOON).build().expect("a client");
    proxy.set(Way::Closed);
    let once = builder(proxy.address, &key).attempts(1).build().expect("a client");
    let refusal = async || refused(once.call(pb::GetCurrentKeyRequest {}).await);
    until("connections are refused", async || refusal().await.message().contains("refused")).await;
    assert_eq!((refusal().await.code(), refusal().await.reason()), (Code::Unavailable, None));
    let calling = tokio::spawn(async move { north.call(create(pb::Profile::default())).await });
    tokio::time::sleep(Duration::from_millis(300)).await; // its first attempt takes less
    proxy.set(Way::Open);
    answered(calling.await.expect("a call"));
}

/// The proxy has the answer for a second when its connections end.
#[tokio::test]
async fn a_write_whose_answer_is_lost_is_made_once_and_answered() {
    let (service, direct) = north();
    let proxy = Proxy::start(service.address.clone(), Duration::from_secs(1)).await;
    let north = builder(proxy.address, &service.key("north", &SCOPES)).deadline(SOON).build().expect("a client");
    let email = Some("ada@example.com".to_owned());
    let writing = tokio::spawn(async move { north.call(create(pb::Profile { email, ..Default::default() })).await });
    let by = pb::look_up_profile_request::By::Email("ada@example.com".to_owned());
    let stored = async || direct.call(pb::LookUpProfileRequest { by: Some(by.clone()) }).await;
    until("it is stored", async || stored().await.is_ok()).await;
    proxy.set(Way::Closed);
    until("connections end", async || TcpStream::connect(proxy.address).await.is_err()).await;
    assert!(!writing.is_finished());
    proxy.set(Way::Open);
    let written = answered(writing.await.expect("a call"));
    assert_eq!((written.id, written.etag), (answered(stored().await).id, r#""1""#.to_owned()));
    assert_eq!(service.database.number("SELECT COUNT(*) AS number FROM profile").await, 1);
}

#[tokio::test]
async fn a_call_whose_connection_reaches_its_age_does_not_fail() {
    let service = Service::on(Arc::new(Database::create()), ["--max-connection-age", "1s"]);
    service.run(["organization", "create", "north"]);
    let north = builder(&service.address, &service.key("north", &SCOPES)).build().expect("a client");
    let ada = answered(north.call(create(pb::Profile::default())).await);
    let (over, ada) = (Arc::new(AtomicBool::new(false)), Arc::new(ada.id));
    let callers = (0..8).map(|_| {
        let (north, over, ada) = (north.clone(), Arc::clone(&over), Arc::clone(&ada));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                answered(north.call(get(&ada)).await);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    tokio::time::sleep(Duration::from_secs(4)).await; // some three connections
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call that failed");
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_or_cancelled_is_begun_again_at_once_and_unseen() {
    for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let peer = Peer::start([Act::Reset(reason), Act::Answer]).await;
        let began = Instant::now();
        answered(builder(peer.address, "ps_0_0").build().expect("a client").call(create(pb::Profile::default())).await);
        assert_eq!(peer.heads().len(), 2, "{reason}");
        assert!(began.elapsed() < Duration::from_secs(1), "{reason}");
    }
}

#[tokio::test]
async fn attempts_are_bounded_and_what_is_answered_for_good_is_asked_once() {
    let attempts = async |act| {
        let peer = Peer::start([act]).await;
        let north = builder(peer.address, "ps_0_0").attempts(2).build().expect("a client");
        let error = refused(north.call(pb::GetCurrentKeyRequest {}).await);
        (peer.heads().len(), error.code())
    };
    assert_eq!(attempts(Act::Reset(h2::Reason::REFUSED_STREAM)).await, (2, Code::Unavailable));
    assert_eq!(attempts(Act::Code(14)).await, (2, Code::Unavailable));
    assert_eq!(attempts(Act::Code(16)).await, (1, Code::Unauthenticated));
}

#[tokio::test]
async fn each_attempt_tells_how_much_time_is_left() {
    let peer = Peer::start([Act::Code(14), Act::Silence]).await;
    let north = builder(peer.address, "ps_0_0").deadline(Duration::from_secs(4)).build().expect("a client");
    let began = Instant::now();
    let late = refused(north.call(pb::GetCurrentKeyRequest {}).await);
    assert_eq!((late.code(), late.reason()), (Code::DeadlineExceeded, Some(&Reason::DeadlineExceeded)));
    assert!((4..8).contains(&began.elapsed().as_secs()));
    let told = peer.heads().into_iter().map(|head| {
        let text = head["grpc-timeout"].to_str().expect("text").to_owned();
        text.strip_suffix('u').expect("microseconds").parse::<u64>().expect("a number")
    });
    let told: Vec<_> = told.collect();
    assert!(told[0] <= 4_000_000 && told[1] + 1_000_000 <= told[0], "{told:?}");
}

#[tokio::test]
async fn a_call_that_is_past_the_rate_of_its_key_comes_again_when_it_is_told_to() {
    let (service, _north) = north();
    let create =
        ["key", "create", "--organization", "north", "--name", "slow", "--scope", "profiles.read", "--rate", "2/s"];
    let north = builder(&service.address, &service.run(create)).build().expect("a client");
    let began = Instant::now();
    for _ in 0..6 {
        answered(north.call(pb::GetCurrentKeyRequest {}).await);
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "2 at once and 2 a second");
}

#[tokio::test]
async fn a_connection_that_is_lost_without_a_word_costs_a_call_some_seconds() {
    let (service, _north) = north();
    let proxy = Proxy::start(service.address.clone(), Duration::ZERO).await;
    let north = builder(proxy.address, &service.key("north", &SCOPES)).deadline(SOON).build().expect("a client");
    answered(north.call(pb::GetCurrentKeyRequest {}).await);
    proxy.set(Way::Lost);
    let began = Instant::now();
    answered(north.call(pb::GetCurrentKeyRequest {}).await);
    assert!(began.elapsed() > Duration::from_secs(1), "the connection was lost");
}

#[tokio::test]
async fn a_list_comes_in_its_pages_and_an_export_as_its_messages() {
    let (_service, north) = north();
    let mut people = Vec::new();
    for _ in 0..5 {
        people.push(answered(north.call(create(pb::Profile::default())).await).id);
    }
    let list = pb::ListProfilesRequest { page_size: 2, ..Default::default() };
    let pages: Vec<_> = answered(north.pages(list).try_collect().await);
    let sizes: Vec<_> = pages.iter().map(|page| page.profiles.len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    people.sort();
    let listed = pages.iter().flat_map(|page| &page.profiles).map(|profile| &profile.id);
    assert!(listed.eq(&people));

    let export = answered(north.stream(pb::ExportProfileRequest { id: people[0].clone() }).await);
    let records: Vec<_> = answered(export.try_collect().await);
    assert_eq!(records.len(), 2, "the profile and a change");
    let nobody = pb::ExportProfileRequest { id: "01a1fe3c-5c7d-7a31-9d8e-3f2a1b0c4d5e".to_owned() };
    assert!(refused(north.stream(nobody).await).is(&Reason::ProfileNotFound));
}

#[tokio::test]
async fn a_header_such_as_who_acts_goes_with_every_call() {
    let (_service, north) = north();
    let clerk = north.with_metadata("x-actor", "clerk-7").expect("a header");
    let ada = answered(clerk.call(create(pb::Profile::default())).await);
    let changes = pb::ListProfileChangesRequest { id: ada.id, ..Default::default() };
    assert_eq!(answered(north.call(changes).await).changes[0].actor, "clerk-7");
    assert_eq!(north.with_metadata("x-actor", "line\nbreak").err(), Some(BuildError::Header("x-actor")));
}

/// Stopped in good order, then killed: each time the service comes back with changes that were made meanwhile.
#[tokio::test]
async fn a_watch_goes_on_over_restarts_of_the_service_and_skips_nothing() {
    let database = Arc::new(Database::create());
    let mut service = Service::on(Arc::clone(&database), []);
    service.run(["organization", "create", "north"]);
    let key = service.key("north", &SCOPES);
    let mut proxy = Proxy::start(service.address.clone(), Duration::ZERO).await;
    let address = proxy.address;
    let north = builder(address, &key).build().expect("a client");
    let ada = answered(north.call(create(pb::Profile::default())).await);
    database.sequenced().await;
    let mut messages = north.watch(pb::WatchProfilesRequest { skip_existing: true, ..Default::default() });
    next(&mut messages).await;
    let mut revision = 1;
    for signal in ["TERM", "KILL"] {
        answered(north.call(patch(&ada.id, city(&format!("{signal} before")))).await);
        drop(proxy); // nobody listens meanwhile; what is connected stays so
        service.signal(signal);
        service.end().await;
        service = Service::on(Arc::clone(&database), []);
        let direct = builder(&service.address, &key).build().expect("a client");
        answered(direct.call(patch(&ada.id, city(&format!("{signal} meanwhile")))).await);
        proxy = Proxy::at(address, service.address.clone(), Duration::ZERO).await;
        answered(direct.call(patch(&ada.id, city(&format!("{signal} after")))).await);
        let last = revision + 3;
        while revision < last {
            let message = next(&mut messages).await;
            if message.revision > revision {
                assert_eq!(message.revision, revision + 1, "{signal}");
                revision = message.revision;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_ends_where_its_token_has_expired_or_its_key_and_says_so() {
    let (service, north) = north();
    let ada = answered(north.call(create(pb::Profile::default())).await);
    service.database.sequenced().await;
    let skip = || pb::WatchProfilesRequest { skip_existing: true, ..Default::default() };
    let token = next(&mut north.watch(skip())).await.resume_token;
    for number in 0..3 {
        answered(north.call(patch(&ada.id, city(&number.to_string()))).await);
    }
    service.database.sequenced().await;
    let later = next(&mut north.watch(skip())).await.resume_token;
    service.database.execute("DELETE FROM feed WHERE position > 2").await;
    let mut messages = north.watch(pb::WatchProfilesRequest { resume_token: later, ..Default::default() });
    let expired = timeout(SOON, messages.next()).await.expect("in time").expect("an error");
    assert!(refused(expired).is(&Reason::ResumeTokenExpired));
    assert!(messages.next().await.is_none());
    next(&mut north.watch(pb::WatchProfilesRequest { resume_token: token, ..Default::default() })).await;

    let key = service.key("north", &["profiles.list"]);
    let mut messages = builder(&service.address, &key).build().expect("a client").watch(skip());
    next(&mut messages).await;
    service.run(["key", "revoke", &key]);
    let ended = async { while messages.next().await.expect("an error before the end").is_ok() {} };
    timeout(SOON, ended).await.expect("an end in time");
}

#[tokio::test]
async fn a_stream_has_to_end_by_a_deadline_that_it_is_given() {
    let (_service, north) = north();
    let hurried = north.with_deadline(Duration::from_millis(500));
    let mut messages = hurried.watch(pb::WatchProfilesRequest { skip_existing: true, ..Default::default() });
    let error = loop {
        match timeout(SOON, messages.next()).await.expect("an end in time").expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is(&Reason::DeadlineExceeded), "{error}");
}

#[tokio::test]
async fn calls_go_over_tls_to_a_service_whose_authority_is_trusted_and_to_no_other() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = TlsFiles::of(&authority.issue(SERVER));
    files.write("ca", &clients.pem());
    let ca = files.path("ca").display().to_string();
    let asks = ["--tls-client-ca", &ca, "--tls-client-auth", "required"].map(str::to_owned);
    let service = Service::with(&files.flags().into_iter().chain(asks).collect::<Vec<_>>(), &[]);
    service.run(["organization", "create", "north"]);
    let identity = clients.issue("spiffe://north/billing");
    let builder = || {
        let builder = Client::builder(format!("https://{}", service.address)).key(service.key("north", &SCOPES));
        builder.server_name(SERVER).attempts(1)
    };
    let trusting = |authority: &Authority| builder().ca_certificate(authority.pem());
    let call = async |builder: Builder| builder.build().expect("a client").call(pb::GetCurrentKeyRequest {}).await;
    let presented = |builder: Builder| builder.client_certificate(&identity.certificate, &identity.key);

    assert_eq!(answered(call(presented(trusting(&authority))).await).organization_name, "north");
    refused(call(trusting(&authority)).await);
    let unknown = refused(call(presented(trusting(&Authority::new("others")))).await);
    assert_eq!((unknown.code(), unknown.reason()), (Code::Unavailable, None));
    assert!(unknown.message().contains("UnknownIssuer"), "{unknown}");
    refused(call(presented(builder())).await);
    refused(call(presented(trusting(&authority)).server_name("others.test")).await);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_before_it_is_and_no_key_is_shown() {
    let refusal = |builder: Builder| builder.build().expect_err("a refusal");
    for address in ["", "127.0.0.1:50051", "localhost", "ftp://127.0.0.1:1", "http://"] {
        assert_eq!(refusal(Client::builder(address)), BuildError::Address, "{address}");
    }
    let plain = || Client::builder("http://127.0.0.1:1");
    assert_eq!(refusal(plain().ca_certificate("")), BuildError::PlainText);
    assert_eq!(refusal(plain().key("ps_secret\n")), BuildError::Header("the key"));
    let encrypted = || Client::builder("https://127.0.0.1:1");
    assert!(matches!(refusal(encrypted().client_certificate("none", "none")), BuildError::Tls(_)));
    let builder = plain().key("ps_secret");
    assert!(!format!("{builder:?}{:?}", builder.clone().build().expect("a client")).contains("ps_secret"));
}
