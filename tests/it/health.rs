//! `health`: what a container asks about its own service.

use std::process::Output;

use tokio::net::TcpListener;

use crate::harness::{
    Service, program,
    tls::{Authority, SERVER, TlsFiles},
    until,
};

/// Runs `health`, and answers its exit code and what it has said.
fn health(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = program(["health"]);
    let Output { status, stdout, stderr } =
        command.args(arguments).envs(environment.iter().copied()).output().expect("a program");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).trim().to_owned())
}

const SERVING: (Option<i32>, &str) = (Some(0), "SERVING");

#[tokio::test]
async fn a_service_is_serving_by_the_environment_that_it_has_itself() {
    let service = Service::start();
    let port = service.address.rsplit(':').next().expect("a port");
    let listen = format!("0.0.0.0:{port}");
    until("it serves", async || health(&[], &[("PROFILE_LISTEN", &listen)]).0 == Some(0)).await;
    for name in ["", "liveness", "profiles.v1.ProfileService"] {
        let (code, said) = health(&["--listen", &service.address, "--service", name], &[]);
        assert_eq!((code, said.as_str()), SERVING);
    }
    let (code, said) = health(&["--listen", &service.address, "--service", "no.such"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not healthy: "), "{said}");
}

#[tokio::test]
async fn over_tls_it_needs_no_more_than_the_service_unless_other_authorities_sign_for_clients() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = TlsFiles::of(&servers.issue(SERVER));
    let billing = TlsFiles::of(&clients.issue("billing.test"));
    let path = |files: &TlsFiles, name| files.path(name).display().to_string();
    let [cert, key, ca] = ["cert", "key", "ca"].map(|name| path(&files, name));
    let [other_cert, other_key] = ["cert", "key"].map(|name| path(&billing, name));
    let mut environment = vec![("PROFILE_TLS_CERT", cert.as_str()), ("PROFILE_TLS_KEY", &key)];
    let start = |environment: &[(&str, &str)]| Service::with(&[], environment);

    let service = start(&environment);
    let asked = ["--listen", &service.address, "--service", "liveness"];
    assert_eq!(health(&asked, &environment), (Some(0), "SERVING".to_owned()));
    let (code, said) = health(&asked, &[]);
    assert_eq!(code, Some(1), "{said}");

    environment.extend([("PROFILE_TLS_CLIENT_CA", ca.as_str()), ("PROFILE_TLS_CLIENT_AUTH", "required")]);
    for (authority, presented, served) in [
        (&servers, &[][..], true),
        (&clients, &[], false),
        (&clients, &["--cert", &other_cert, "--key", &other_key], true),
    ] {
        files.write("ca", &authority.pem());
        let service = start(&environment);
        let asked = [&["--listen", &service.address, "--service", "liveness"], presented].concat();
        let (code, said) = health(&asked, &environment);
        assert_eq!(code, Some(i32::from(!served)), "{said}");
    }
}

#[tokio::test]
async fn nobody_there_and_nobody_who_answers_are_failures_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let (code, said) = health(&["--listen", &address, "--timeout", "300ms"], &[]);
    assert_eq!(code, Some(1));
    assert!(said.ends_with("is not healthy: no answer within 300ms"), "{said}");
    drop(silent);
    let (code, said) = health(&["--listen", &address], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("Connection refused"), "{said}");
}
