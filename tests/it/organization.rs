//! Organizations and their keys as operators see and change them.

use std::{
    io::Write as _,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tonic::Code;

use crate::harness::{Service, client, program};

/// A command on the database of a service, whether it succeeds or not.
fn run<const N: usize>(service: &Service, arguments: [&str; N]) -> Output {
    program(arguments).env("PROFILE_DATABASE_URL", service.database.url()).output().expect("a program")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn list<const N: usize>(service: &Service, arguments: [&str; N]) -> Vec<Json> {
    serde_json::from_str(&service.run(arguments)).expect("a JSON array")
}

#[tokio::test]
async fn lists_are_json_for_programs_without_a_secret() {
    let service = Service::start();
    assert_eq!(list(&service, ["organization", "list", "--output", "json"]), Vec::<Json>::new());
    service.run(["organization", "create", "north"]);
    let create = ["key", "create", "--organization", "north", "--name", "billing", "--scope", "support,profiles.read"];
    let key = service.run(create);
    let mut north = list(&service, ["organization", "list", "--output", "json"]).remove(0);
    let created = north["createTime"].take();
    assert!(created.as_str().is_some_and(|time| time.parse::<chrono::DateTime<chrono::Utc>>().is_ok()), "{created}");
    assert!(north["organizationId"].take().is_string());
    assert_eq!(
        north,
        json!({ "organizationId": null, "organizationName": "north", "createTime": null, "disableTime": null })
    );

    let keys = || list(&service, ["key", "list", "--organization", "north", "--output", "json"]);
    let listed = keys();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        listed[0],
        json!({
            "keyId": lookup(&key), "keyName": "billing", "scopes": ["profiles.read", "support"],
            "createTime": listed[0]["createTime"], "expireTime": null, "revokeTime": null, "lastUseTime": null,
            "rate": null,
        })
    );
    service.run(["key", "rate", &key, "5/s"]);
    service.run(["key", "revoke", &key]);
    let listed = keys();
    assert_eq!((&listed[0]["rate"], listed[0]["revokeTime"].is_string()), (&json!("5/s"), true));
}

#[tokio::test]
async fn a_renamed_organization_keeps_its_keys_and_its_people() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    service.run(["organization", "create", "south"]);
    service.run(["organization", "rename", " north ", "north star"]);
    north.get(&ada).await.expect("its key and its person");
    let current = north.call("KeyService/GetCurrentKey", json!({})).await.expect("a key");
    assert_eq!(current["organizationName"], "north star");
    for (arguments, sentence) in [
        (["organization", "rename", "north", "west"], "there is no organization \"north\""),
        (["organization", "rename", "north star", "south"], "there is an organization \"south\" already"),
    ] {
        let refused = run(&service, arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(words(&refused).contains(sentence), "{}", words(&refused));
    }
    service.run(["organization", "rename", "south", "south"]);
    service.run(["organization", "create", "north"]);
}

#[tokio::test]
async fn the_keys_of_a_disabled_organization_stop_within_5_seconds_and_work_again_once_it_is_enabled() {
    let (mut service, north) = client().await;
    let south = service.organization("south").await;
    let (ada, eve) = (north.person(json!({})).await, south.person(json!({})).await);
    let key = service.key("north", &["profiles.read"]);
    let mut stream = north.stream("ProfileQueryService/WatchProfiles", json!({})).await.expect("a stream");
    service.run(["organization", "disable", "north"]);
    let disabled = Instant::now();
    while north.get(&ada).await.is_ok() {
        assert!(disabled.elapsed() < Duration::from_secs(5), "its keys still work");
    }
    let refused = north.get(&ada).await.expect_err("a disabled organization");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "API_KEY_INVALID"));
    let ended = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            other => break other.expect_err("a stream that is ended"),
        }
    };
    assert_eq!(ended.reason, "API_KEY_INVALID");
    assert!(disabled.elapsed() < Duration::from_secs(8), "its stream lasts");
    south.get(&eve).await.expect("another organization's key");

    let since =
        |service: &Service| list(service, ["organization", "list", "--output", "json"])[0]["disableTime"].clone();
    let first = since(&service);
    assert!(first.is_string());
    service.run(["organization", "disable", "north"]);
    assert_eq!(since(&service), first, "it keeps its date");
    for arguments in [
        &["key", "create", "--organization", "north", "--name", "late", "--scope", "support"][..],
        &["key", "rotate", &key],
    ] {
        let mut refused = program([]);
        let refused = refused.args(arguments).env("PROFILE_DATABASE_URL", service.database.url()).output();
        let refused = refused.expect("a program");
        assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(1), &b""[..]));
        assert!(words(&refused).contains("the organization \"north\" is disabled"), "{}", words(&refused));
    }

    service.run(["organization", "enable", "north"]);
    let enabled = Instant::now();
    while north.get(&ada).await.is_err() {
        assert!(enabled.elapsed() < Duration::from_secs(5), "its keys do not work");
    }
    assert_eq!(since(&service), Json::Null);
    service.signal("TERM");
    let (_, log) = service.end().await;
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    assert!(lines.map(|line| line["span"]["key_state"].clone()).any(|state| state == "disabled"));
}

#[test]
fn completions_are_a_script_that_the_shell_takes_and_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = program(["completions", shell]).output().expect("a program").stdout;
        let script = String::from_utf8(script).expect("text");
        for command in ["serve", "organization", "rotate", "erasures", "completions"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        if shell == "bash" {
            assert!(script.contains(" profile-service\n"), "it is the program's");
            let words = "COMP_WORDS=(profile-service organization d) COMP_CWORD=2\n\
                         _profile_service profile-service d organization\necho \"${COMPREPLY[@]}\"\n";
            let mut bash = std::process::Command::new("bash");
            let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
            bash.stdin.take().expect("its input").write_all((script + words).as_bytes()).expect("bash reads");
            let output = bash.wait_with_output().expect("its end");
            assert!(output.status.success());
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "disable");
        }
    }
}

/// What stands between `ps_` and the secret.
fn lookup(key: &str) -> &str {
    key.split('_').nth(1).expect("a key")
}
