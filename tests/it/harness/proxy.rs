//! A small proxy before a server, for what happens on the way and when the server is gone.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How the way to the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nothing passes, and nothing ends.
    Frozen,
    /// Connections end, and new ones are refused.
    Closed,
    /// Nothing passes on the connections there are, ever again; new ones are open.
    Lost,
}

/// Passes everything on after a delay, as long as the way is open.
pub struct Proxy {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts before this `HOST:PORT`.
    pub async fn start(target: String, delay: Duration) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), target, delay).await
    }

    /// Starts at this address, before this `HOST:PORT`.
    pub async fn at(address: SocketAddr, target: String, delay: Duration) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (way, changes) = watch::channel(Way::Open);
        let serving = tokio::spawn(async move {
            let mut listener = Some(listener);
            let mut way = changes.clone();
            loop {
                let bound = match listener.take() {
                    Some(listener) => listener,
                    None => TcpListener::bind(address).await.expect("the same port"),
                };
                tokio::select! {
                    () = accept(&bound, &target, delay, &changes) => {}
                    closed = way.wait_for(|way| *way == Way::Closed) => { closed.expect("a way"); }
                }
                drop(bound);
                way.wait_for(|way| *way != Way::Closed).await.expect("a way");
            }
        });
        Self { address, way, serving }
    }

    /// Changes the way for all connections.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: &TcpListener, target: &str, delay: Duration, way: &watch::Receiver<Way>) {
    loop {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(target).await.expect("the server");
        client.set_nodelay(true).expect("a socket");
        server.set_nodelay(true).expect("a socket");
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(pass_on(from_client, to_server, delay, way.clone()));
        tokio::spawn(pass_on(from_server, to_client, delay, way.clone()));
    }
}

/// Passes bytes on until either side ends or the way is closed.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, mut way: watch::Receiver<Way>) {
    let (mut closed, mut lost) = (way.clone(), way.clone());
    lost.mark_unchanged();
    let passing = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(delay).await;
            if way.wait_for(|way| *way != Way::Frozen).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = passing => {}
        () = becomes_closed(&mut closed) => {}
        () = becomes_lost(&mut lost) => std::future::pending().await,
    }
}

/// Waits until the way gets lost from now on.
async fn becomes_lost(way: &mut watch::Receiver<Way>) {
    while way.changed().await.is_ok() && *way.borrow_and_update() != Way::Lost {}
}

/// Waits until the way is closed.
async fn becomes_closed(way: &mut watch::Receiver<Way>) {
    let _ = way.wait_for(|way| *way == Way::Closed).await;
}
