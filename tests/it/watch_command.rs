//! `profile-service watch`: the feed as lines, for scripts and pipes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value as Json, json};

use crate::harness::{Service, client, program};

/// A `watch` that runs.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(service: &Service, arguments: &[&str]) -> Self {
        let mut child = command(service, arguments).stdout(Stdio::piped()).spawn().expect("a program");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    /// The next line that is no heartbeat.
    fn next(&mut self) -> Json {
        loop {
            let line = self.lines.next().expect("a line").expect("text");
            let line: Json = serde_json::from_str(&line).expect("JSON");
            if line["kind"] != "KIND_HEARTBEAT" {
                return line;
            }
        }
    }

    /// Ends it by this signal, and answers its exit code.
    fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().expect("kill").success());
        self.child.wait().expect("its end").code()
    }
}

fn command(service: &Service, arguments: &[&str]) -> Command {
    let mut command = program(["watch", "--organization", "north"]);
    command.args(arguments).env("PROFILE_DATABASE_URL", service.database.url()).stdin(Stdio::null());
    command
}

/// Waits until the file has the token of this line, which comes once the line is out.
fn kept(file: &Path, line: &Json) {
    let token = format!("{}\n", line["resumeToken"].as_str().expect("a token"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fs::read_to_string(file).unwrap_or_default() != token {
        assert!(std::time::Instant::now() < deadline, "the token is not kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_a_line_and_a_token_file_goes_on_after_the_last_one() {
    let (service, north) = client().await;
    let ada = north.person(json!({ "email": "ada@example.com" })).await;
    service.database.sequenced().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    let arguments = ["--token-file", file.to_str().expect("a path")];

    let mut watching = Watching::start(&service, &arguments);
    let line = watching.next();
    assert_eq!((&line["kind"], &line["profile"]), (&json!("KIND_CREATED"), &ada));
    assert_eq!(watching.next()["kind"], "KIND_SNAPSHOT_END");
    let paris = north.patch(&ada, json!({ "city": "Paris" })).await.expect("patched");
    let line = watching.next();
    assert_eq!((&line["fields"], &line["profile"]), (&json!(["city"]), &paris));
    let eve = north.person(json!({})).await;
    watching.next();
    let erase = json!({ "id": eve["id"], "reasonCode": "REASON_CODE_RETENTION" });
    north.call("SupportService/EraseProfile", erase).await.expect("erased");
    let line = watching.next();
    assert_eq!((&line["kind"], &line["profileId"]), (&json!("KIND_ERASED"), &eve["id"]));
    kept(&file, &line);
    assert_eq!(watching.end("TERM"), Some(0));

    let london = north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    let mut watching = Watching::start(&service, &[&arguments[..], &["--skip-existing"]].concat());
    let line = watching.next();
    assert_eq!((&line["revision"], &line["profile"]), (&json!("3"), &london));
    assert_eq!(watching.end("INT"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_where_nobody_reads_it_any_more() {
    let (service, north) = client().await;
    let ada = north.person(json!({})).await;
    service.database.sequenced().await;
    let mut watching = Watching::start(&service, &["--skip-existing"]);
    watching.lines.next().expect("a heartbeat").expect("text");
    drop(watching.lines);
    north.patch(&ada, json!({ "city": "Paris" })).await.expect("patched");
    assert_eq!(watching.child.wait().expect("its end").code(), Some(0));
}

#[tokio::test]
async fn a_token_that_cannot_go_on_ends_it_with_1_and_says_what_to_do() {
    let (service, north) = client().await;
    north.person(json!({})).await;
    service.database.sequenced().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    let path = file.to_str().expect("a path");
    let mut watching = Watching::start(&service, &["--skip-existing"]);
    let line = watching.lines.next().expect("a heartbeat").expect("text");
    let token = serde_json::from_str::<Json>(&line).expect("JSON")["resumeToken"].as_str().expect("a token").to_owned();
    watching.end("TERM");
    let expired = format!("{}{}", &token[..24], "0".repeat(16));
    for (token, words) in [
        (expired.as_str(), "begin without the file"),
        ("nonsense", "has no token of this organization"),
        ("\u{fffd}", "has no token of this organization"),
    ] {
        fs::write(&file, token).expect("a file");
        let output = command(&service, &["--token-file", path]).output().expect("a program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let mut elsewhere = program(["watch", "--organization", "south"]);
    let output = elsewhere.env("PROFILE_DATABASE_URL", service.database.url()).output().expect("a program");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no organization \"south\""));
}
