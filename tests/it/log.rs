//! The log: nobody who reads it, or does not, takes the service from anybody.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    mem,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use rustix::pty::{self, OpenptFlags};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{Database, Service, program};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// What libraries say, too, so that few calls make many lines.
const CHATTY: &str = "profile_service=debug,h2=trace";

/// Calls that leave more lines than a pipe and the program's queue hold.
const FLOOD: usize = 200;

/// A service with a log that is read no further than to where it listens.
struct Unread {
    child: Child,
    log: BufReader<File>,
    address: String,
    _database: Database,
}

impl Unread {
    /// Its log goes into a pipe.
    fn start() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Self::spawn(OwnedFd::from(reader), OwnedFd::from(writer), |line| {
            let line: Json = serde_json::from_str(line).expect("JSON");
            (line["message"] == "listening").then(|| line["address"].as_str().expect("an address").to_owned())
        })
    }

    /// Its log goes to a terminal.
    fn on_a_terminal() -> Self {
        let ours = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        pty::grantpt(&ours).expect("a terminal");
        pty::unlockpt(&ours).expect("a terminal");
        let name = pty::ptsname(&ours, Vec::new()).expect("its name").into_string().expect("text");
        let its = File::options().read(true).write(true).open(name).expect("a terminal");
        Self::spawn(ours, OwnedFd::from(its), |line| {
            let fields = line.split_once(" listening address=")?.1;
            fields.split_whitespace().next().map(str::to_owned)
        })
    }

    fn spawn(ours: OwnedFd, its: OwnedFd, address: fn(&str) -> Option<String>) -> Self {
        let database = Database::create();
        let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
        // Standard output goes the same way, as by `2>&1`.
        command.env("PROFILE_DATABASE_URL", database.url()).env("RUST_LOG", CHATTY).stdin(Stdio::null());
        command.stdout(its.try_clone().expect("another end")).stderr(its);
        let child = command.spawn().expect("a program");
        drop(command); // and with it this process's copies of its end
        let mut log = BufReader::new(File::from(ours));
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("a line") > 0, "the service does not listen");
            if let Some(address) = address(&line) {
                break address;
            }
        };
        Self { child, log, address, _database: database }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("a connection")
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    async fn end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a program") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes calls, each of which leaves a line.
async fn calls(channel: &Channel, number: usize) {
    let call = |_| async { HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await };
    let answers = stream::iter(0..number).map(call).buffer_unordered(50).collect::<Vec<_>>();
    for answer in timeout(PATIENCE, answers).await.expect("answers") {
        answer.expect("an answer");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_call_and_says_how_many_lines_it_lost() {
    let mut service = Unread::start();
    let channel = service.channel().await;
    calls(&channel, FLOOD).await;

    // Now somebody reads.
    let (told, heard) = oneshot::channel();
    let log = mem::replace(&mut service.log, BufReader::new(File::open("/dev/null").expect("a device")));
    let reading = tokio::task::spawn_blocking(move || {
        let (mut told, mut dropped) = (Some(told), 0);
        let lines = log.lines().map_while(Result::ok).map(|line| serde_json::from_str::<Json>(&line).expect("JSON"));
        let last = lines.inspect(|line| {
            if let Some(number) = line["dropped"].as_u64() {
                dropped += number;
                told.take().map(|told| told.send(()));
            }
        });
        let last = last.last().expect("a line");
        (last, dropped)
    });
    timeout(PATIENCE, heard).await.expect("a line in time").expect("a line that says how many are lost");
    calls(&channel, 1).await;
    drop(channel);
    service.terminate();
    let (last, dropped) = reading.await.expect("the whole log");
    assert_eq!(last["message"], "drained");
    assert!(dropped > 0);
    assert_eq!(service.end(Duration::from_secs(5)).await.code(), Some(0));
}

#[tokio::test]
async fn a_signal_ends_a_program_whose_log_nobody_reads() {
    for signals in [1, 2] {
        let mut service = Unread::start();
        let channel = service.channel().await;
        calls(&channel, FLOOD).await;
        for _ in 0..signals {
            service.terminate();
        }
        drop(channel);
        let status = service.end(Duration::from_secs(8)).await;
        assert!(status.code().is_some(), "{status}");
    }
}

#[tokio::test]
async fn a_terminal_that_vanishes_ends_nothing() {
    let mut service = Unread::on_a_terminal();
    let channel = service.channel().await;
    calls(&channel, 10).await;
    service.log = BufReader::new(File::open("/dev/null").expect("a device"));
    calls(&channel, 300).await;
    drop(channel);
    service.terminate();
    assert_eq!(service.end(Duration::from_secs(5)).await.code(), Some(0));
}

#[tokio::test]
async fn a_peer_that_speaks_tls_leaves_one_hint() {
    let mut service = Service::start();
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[0; 32]].concat();
    for _ in 0..10 {
        let mut peer = TcpStream::connect(&service.address).await.expect("a connection");
        peer.write_all(&hello).await.expect("a peer that reads");
        assert_eq!(peer.read_to_end(&mut Vec::new()).await.ok().unwrap_or_default(), 0);
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    assert_eq!(log.iter().filter(|line| line.contains("a peer spoke TLS")).count(), 1, "{log:?}");
}
