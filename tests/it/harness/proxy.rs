//! A small proxy before a server, for what only happens on a slow way.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinHandle,
};

/// Passes everything on after a delay.
pub struct Proxy {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts before this `HOST:PORT`.
    pub fn start(target: String, delay: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                let (client, _) = listener.accept().await.expect("a client");
                let server = TcpStream::connect(&target).await.expect("the server");
                client.set_nodelay(true).expect("a socket");
                server.set_nodelay(true).expect("a socket");
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pass_on(from_client, to_server, delay));
                tokio::spawn(pass_on(from_server, to_client, delay));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes bytes on until either side ends.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(delay).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
}
