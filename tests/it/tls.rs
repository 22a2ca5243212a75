//! TLS: who is let in, what is refused at the start, and files that change while calls are made.

use std::{
    collections::HashSet,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{client::TlsStream, rustls::HandshakeKind};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    Client, SCOPES, Service, program,
    tls::{Authority, Identity, SERVER, TlsClient, TlsFiles},
    until,
    wire::{Wire, frame},
};

const HTTP_2: &[&str] = &["h2"];

/// The preface of HTTP/2 and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A service with a certificate of an authority of its own.
struct Encrypted {
    service: Service,
    authority: Authority,
    files: TlsFiles,
}

impl Encrypted {
    fn start() -> Self {
        Self::with(&["--metrics-listen", "127.0.0.1:0"])
    }

    fn with(more: &[&str]) -> Self {
        let authority = Authority::new("servers");
        let files = TlsFiles::of(&authority.issue(SERVER));
        let arguments: Vec<_> = files.flags().into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect();
        Self { service: Service::with(&arguments, &[]), authority, files }
    }

    /// One that asks clients for certificates of the second authority, in this mode.
    fn asking(mode: &str) -> (Self, Authority) {
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let files = TlsFiles::of(&authority.issue(SERVER));
        files.write("ca", &clients.pem());
        let ca = files.path("ca").display().to_string();
        let asks = ["--tls-client-ca", &ca, "--tls-client-auth", mode].map(str::to_owned);
        let arguments: Vec<_> = files.flags().into_iter().chain(asks).collect();
        (Self { service: Service::with(&arguments, &[]), authority, files }, clients)
    }

    fn client(&self, identity: Option<&Identity>) -> TlsClient {
        TlsClient::new(&self.authority, identity, HTTP_2)
    }

    async fn serves(&self, identity: Option<&Identity>) -> bool {
        match self.client(identity).channel(&self.service.address).await {
            Ok(channel) => is_serving(channel).await,
            Err(_) => false,
        }
    }

    /// A metric of the service's own.
    async fn metric(&self, name: &str) -> f64 {
        self.service.scrape().await.samples[&format!("profile_service_{name}")]
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> Vec<u8> {
        let stream = self.client(None).connect(&self.service.address).await.expect("a handshake");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
    }
}

async fn is_serving(channel: Channel) -> bool {
    let liveness = HealthCheckRequest { service: "liveness".to_owned() };
    HealthClient::new(channel).check(liveness).await.is_ok()
}

#[tokio::test]
async fn calls_are_made_over_tls_and_a_peer_without_it_is_told_in_the_log() {
    let mut encrypted = Encrypted::start();
    encrypted.service.run(["organization", "create", "north"]);
    let key = encrypted.service.key("north", &SCOPES);
    let channel = encrypted.client(None).channel(&encrypted.service.address).await.expect("a connection");
    let north = Client::new(channel, &key);
    let ada = north.person(json!({})).await;
    assert_eq!(north.get(&ada).await, Ok(ada));

    let mut plain = TcpStream::connect(&encrypted.service.address).await.expect("a connection");
    plain.write_all(HELLO).await.expect("a peer that reads");
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), plain.read_to_end(&mut answer)).await.expect("an end");
    assert!(answer.len() < 10, "an alert at the most: {answer:?}");
    let counted = async || encrypted.metric(r#"connections_ended_total{end="no_tls"}"#).await;
    until("it is counted", async || counted().await > 0.0).await;

    encrypted.service.signal("TERM");
    drop(north);
    let (code, log) = encrypted.service.end().await;
    assert_eq!(code, Some(0));
    assert!(log.iter().any(|line| line.contains("a peer spoke no TLS")), "{log:?}");
    let listening = log.iter().find(|line| line.contains("listening")).expect("a line");
    assert_eq!(serde_json::from_str::<Json>(listening).expect("JSON")["tls"], json!(true));
}

#[tokio::test]
async fn http_2_is_spoken_whether_it_is_offered_or_nothing_is_and_nothing_else() {
    let encrypted = Encrypted::start();
    for (offered, served) in [(&["h2"][..], true), (&["http/1.1", "h2"], true), (&[], true), (&["http/1.1"], false)] {
        let client = TlsClient::new(&encrypted.authority, None, offered);
        let stream = client.connect(&encrypted.service.address).await;
        assert_eq!(stream.is_ok(), served, "{offered:?}");
        if let Ok(stream) = stream {
            let wire = Wire::over(stream, &h2::client::Builder::new()).await;
            wire.call("/grpc.health.v1.Health/Check", &[], frame(b""), true).await.expect("health");
        }
    }
}

#[tokio::test]
async fn who_must_have_a_certificate_is_refused_without_a_good_one_and_its_name_is_in_the_log() {
    for (mode, without) in [("required", false), ("optional", true)] {
        let (mut encrypted, clients) = Encrypted::asking(mode);
        let billing = clients.issue("spiffe://north/ns/shop/sa/billing");
        let stranger = Authority::new("clients").issue("spiffe://north/ns/shop/sa/billing");
        let expired = clients.issue_for("spiffe://north/ns/shop/sa/billing", -1);
        assert_eq!(encrypted.serves(None).await, without, "{mode}");
        assert!(encrypted.serves(Some(&billing)).await, "{mode}");
        assert!(!encrypted.serves(Some(&stranger)).await, "{mode}");
        assert!(!encrypted.serves(Some(&expired)).await, "{mode}");

        encrypted.service.run(["organization", "create", "north"]);
        let key = encrypted.service.key("north", &SCOPES);
        let identities = if without { vec![Some(&billing), None] } else { vec![Some(&billing)] };
        for identity in &identities {
            let channel = encrypted.client(*identity).channel(&encrypted.service.address).await.expect("let in");
            Client::new(channel, &key).person(json!({})).await;
        }
        encrypted.service.signal("TERM");
        let (_, log) = encrypted.service.end().await;
        assert_eq!(log.iter().filter(|line| line.contains("a TLS handshake failed")).count(), 1, "{log:?}");
        let calls = log.iter().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
        let told: Vec<_> =
            calls.filter(|line| line["message"] == "call").map(|line| line["span"]["client"].clone()).collect();
        let expected = [json!("spiffe://north/ns/shop/sa/billing"), Json::Null];
        assert_eq!(told, expected[..identities.len()], "{log:?}");
    }
}

#[tokio::test]
async fn a_session_is_resumed_only_where_clients_have_no_certificates() {
    let open = Encrypted::start();
    assert_eq!(again(&open, None).await, Some(HandshakeKind::Resumed));
    let (asking, clients) = Encrypted::asking("optional");
    assert_eq!(again(&asking, Some(&clients.issue("billing.test"))).await, Some(HandshakeKind::Full));
}

/// How the second handshake of a client went.
async fn again(encrypted: &Encrypted, identity: Option<&Identity>) -> Option<HandshakeKind> {
    let client = encrypted.client(identity);
    let connect = async || settled(client.connect(&encrypted.service.address).await.expect("a handshake")).await;
    connect().await;
    connect().await.get_ref().1.handshake_kind()
}

/// Reads what comes after the handshake: tickets, and the settings of HTTP/2.
async fn settled(mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    stream.write_all(HELLO).await.expect("a peer that reads");
    stream.read_exact(&mut [0; 9]).await.expect("settings");
    stream
}

#[tokio::test]
async fn what_is_half_configured_or_cannot_be_used_is_refused_at_the_start() {
    let authority = Authority::new("servers");
    let (good, other) = (authority.issue(SERVER), authority.issue(SERVER));
    let files = TlsFiles::of(&good);
    let half = &good.certificate[..good.certificate.len() / 2];
    for (name, text) in [
        ("other.key", other.key.as_str()),
        ("expired", &authority.issue_for(SERVER, -1).certificate),
        ("half", half),
        ("ca", &authority.pem()),
        ("empty", ""),
    ] {
        files.write(name, text);
    }
    let [cert, key, other_key, expired, half, ca, empty, none] =
        ["cert", "key", "other.key", "expired", "half", "ca", "empty", "none"]
            .map(|name| files.path(name).display().to_string());
    let pair = ["--tls-cert", &cert, "--tls-key", &key];
    let asking = |ca| [&pair[..], &["--tls-client-ca", ca, "--tls-client-auth", "required"]].concat();
    for (arguments, code, words) in [
        (vec!["--tls-cert", &cert], 2, "--tls-key <FILE>"),
        (vec!["--tls-key", &key], 2, "--tls-cert <FILE>"),
        (vec!["--tls-client-ca", &ca, "--tls-client-auth", "optional"], 2, "--tls-cert <FILE>"),
        ([&pair[..], &["--tls-client-ca", &ca]].concat(), 2, "--tls-client-auth <MODE>"),
        ([&pair[..], &["--tls-client-auth", "required"]].concat(), 2, "--tls-client-ca <FILE>"),
        ([&pair[..], &["--insecure-listen"]].concat(), 2, "--insecure-listen is for plain text"),
        (vec!["--tls-cert", &none, "--tls-key", &key], 1, "none: No such file or directory"),
        (vec!["--tls-cert", &cert, "--tls-key", &none], 1, "none: No such file or directory"),
        (vec!["--tls-cert", &half, "--tls-key", &key], 1, "half is no whole PEM"),
        (vec!["--tls-cert", &empty, "--tls-key", &key], 1, "empty has no certificate in PEM"),
        (vec!["--tls-cert", &key, "--tls-key", &key], 1, "key has no certificate in PEM"),
        (vec!["--tls-cert", &cert, "--tls-key", &cert], 1, "cert has no private key in PEM"),
        (vec!["--tls-cert", &cert, "--tls-key", &other_key], 1, "other.key is not that of the certificate of "),
        (vec!["--tls-cert", &expired, "--tls-key", &key], 1, "expired has expired, on 20"),
        (asking(&empty), 1, "empty has no certificate in PEM"),
        (asking(&none), 1, "none: No such file or directory"),
    ] {
        let (output, stderr) = refused(&arguments, &[]);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("PRIVATE KEY"), "{stderr}");
    }
    let (output, stderr) = refused(&[], &[("PROFILE_TLS_CERT", &cert)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("--tls-key <FILE>"), "{stderr}");
}

#[test]
fn plain_text_beyond_this_machine_is_refused_unless_it_is_wanted() {
    for address in ["0.0.0.0:0", "[::]:0", "[::ffff:192.0.2.1]:0", "192.0.2.1:0"] {
        let (output, stderr) = refused(&["--listen", address], &[]);
        assert_eq!(output.status.code(), Some(2), "{address}: {stderr}");
        assert!(stderr.contains("give --tls-cert and --tls-key, or --insecure-listen"), "{stderr}");
    }
    let authority = Authority::new("servers");
    let flags = TlsFiles::of(&authority.issue(SERVER));
    for arguments in [flags.flags().to_vec(), vec!["--insecure-listen".to_owned()]] {
        let everywhere = ["--listen", "0.0.0.0:0"].map(str::to_owned);
        let service = Service::with(&[&arguments[..], &everywhere].concat(), &[]);
        assert!(service.address.starts_with("0.0.0.0:"), "{}", service.address);
    }
    let service = Service::with(&[], &[("PROFILE_INSECURE_LISTEN", "true")]);
    assert!(service.address.starts_with("127.0.0.1:"));
}

/// Runs the service where it cannot start.
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let directory = tempfile::tempdir().expect("a directory");
    // One that serves all the same is ended, with 124.
    let mut command = Command::new("timeout");
    command.arg("20").arg(program([]).get_program()).arg("serve").env_remove("RUST_LOG");
    command.args(arguments).envs(environment.iter().copied()).current_dir(directory.path());
    let output = command.output().expect("a program");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!directory.path().join("profiles.db").exists(), "nothing is made before");
    (output, stderr)
}

#[tokio::test]
async fn handshake_and_preface_share_two_seconds_and_hold_a_place_from_the_beginning() {
    let encrypted = Encrypted::with(&["--max-connections", "3"]);
    let address = &encrypted.service.address;
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    let mut begun = TcpStream::connect(address).await.expect("a connection");
    begun.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("the beginning of a handshake");
    let mut shaken = encrypted.client(None).connect(address).await.expect("a handshake");
    let started = Instant::now();
    let mut fourth = TcpStream::connect(address).await.expect("a connection");
    assert_eq!(fourth.read(&mut [0; 1]).await.unwrap_or_default(), 0, "it is closed before its handshake");
    assert!(started.elapsed() < Duration::from_secs(1));
    let dripping = async {
        for byte in [0, 1, 252, 3, 3].iter().cycle() {
            if begun.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let reading =
        async { tokio::join!(async { silent.read(&mut [0; 1]).await }, async { shaken.read(&mut [0; 1]).await }) };
    let _ = timeout(Duration::from_secs(4), async { tokio::join!(dripping, reading) }).await.expect("an end");
    assert!(encrypted.serves(None).await, "their places are free again");
}

#[tokio::test]
async fn silent_peers_and_peers_that_do_not_read_do_not_keep_it_from_ending() {
    let mut encrypted = Encrypted::with(&["--drain-timeout", "2s"]);
    let mut begun = TcpStream::connect(&encrypted.service.address).await.expect("a connection");
    begun.write_all(&[22, 3, 1]).await.expect("the beginning of a handshake");
    let mut peers = Vec::new();
    for hello in [&b""[..], &HELLO[..10], HELLO] {
        let mut peer = encrypted.client(None).connect(&encrypted.service.address).await.expect("a handshake");
        peer.write_all(hello).await.expect("a silent peer");
        peers.push(peer);
    }
    let started = Instant::now();
    encrypted.service.signal("TERM");
    assert_eq!(encrypted.service.end().await.0, Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn new_files_are_taken_over_without_the_loss_of_a_call_and_bad_ones_are_not() {
    let mut encrypted = Encrypted::start();
    let first = encrypted.shown().await;
    let channel = encrypted.client(None).channel(&encrypted.service.address).await.expect("a connection");
    let calls = {
        let channel = channel.clone();
        tokio::spawn(async move {
            loop {
                assert!(is_serving(channel.clone()).await, "a call on a connection of before");
            }
        })
    };
    let mut shown = HashSet::from([first.clone()]);

    let good = encrypted.authority.issue_for(SERVER, 90);
    for (file, bad) in [("key", "no key"), ("cert", &good.certificate[..100]), ("cert", &good.certificate)] {
        encrypted.files.write(file, bad);
        let before = encrypted.service.count("cannot be used");
        until("it is said", async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            encrypted.service.count("cannot be used") > before
        })
        .await;
        assert_eq!(encrypted.shown().await, first, "those of before");
    }
    let failed = encrypted.metric("tls_reload_failures_total").await;
    assert!(failed >= 3.0, "{failed}");
    let end = encrypted.metric(r#"tls_certificate_expiry_timestamp_seconds{of="server"}"#).await;

    encrypted.files.put(&good);
    until("they are taken over", async || shown.insert(encrypted.shown().await)).await;
    let sooner = encrypted.metric(r#"tls_certificate_expiry_timestamp_seconds{of="server"}"#).await;
    assert!(sooner < end, "{sooner} {end}");
    assert!(!calls.is_finished(), "no call has failed");
    calls.abort();
    assert!(is_serving(channel).await, "no connection was dropped");
    encrypted.service.signal("TERM");
    let (_, log) = encrypted.service.end().await;
    assert!(!log.iter().any(|line| line.contains("PRIVATE KEY")));
    assert_eq!(log.iter().filter(|line| line.contains("TLS files loaded")).count(), 2, "{log:?}");
}

#[tokio::test]
async fn who_has_a_certificate_of_an_authority_that_was_taken_out_is_refused() {
    let (encrypted, clients) = Encrypted::asking("required");
    let billing = clients.issue("billing.test");
    let client = encrypted.client(Some(&billing));
    settled(client.connect(&encrypted.service.address).await.expect("let in")).await;
    let others = Authority::new("others");
    encrypted.files.write("ca", &others.pem());
    until("the other authority is taken", async || encrypted.serves(Some(&others.issue("billing.test"))).await).await;
    let refused = match client.channel(&encrypted.service.address).await {
        Ok(channel) => !is_serving(channel).await,
        Err(_) => true,
    };
    assert!(refused, "the same client, with whatever session it has kept");
}
