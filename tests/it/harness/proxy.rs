//! A small proxy before a server, for what happens on the way and when the server is gone.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

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
    /// Which of the next things that the server says is lost, counted down; 0 is none.
    loses: Arc<AtomicU32>,
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
        let loses = Arc::new(AtomicU32::new(0));
        let lost = Arc::clone(&loses);
        let serving = tokio::spawn(async move {
            let mut listener = Some(listener);
            let mut way = changes.clone();
            loop {
                let bound = match listener.take() {
                    Some(listener) => listener,
                    None => TcpListener::bind(address).await.expect("the same port"),
                };
                tokio::select! {
                    () = accept(&bound, &target, delay, &changes, &lost) => {}
                    closed = way.wait_for(|way| *way == Way::Closed) => { closed.expect("a way"); }
                }
                drop(bound);
                way.wait_for(|way| *way != Way::Closed).await.expect("a way");
            }
        });
        Self { address, way, loses, serving }
    }

    /// Changes the way for all connections.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Of what the server says from now on, the one with this number does not arrive, and its connection ends.
    pub fn lose(&self, nth: u32) {
        self.loses.store(nth, SeqCst);
    }

    /// Everything arrives again.
    pub fn lose_nothing(&self) {
        self.lose(0);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(
    listener: &TcpListener,
    target: &str,
    delay: Duration,
    way: &watch::Receiver<Way>,
    loses: &Arc<AtomicU32>,
) {
    loop {
        let (client, _) = listener.accept().await.expect("a client");
        let Ok(server) = TcpStream::connect(target).await else { continue }; // it may have been killed
        client.set_nodelay(true).expect("a socket");
        server.set_nodelay(true).expect("a socket");
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(pass_on(from_client, to_server, delay, way.clone(), None));
        tokio::spawn(pass_on(from_server, to_client, delay, way.clone(), Some(Arc::clone(loses))));
    }
}

/// Passes bytes on until either side ends, the way is closed, or what is to be lost comes along.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut way: watch::Receiver<Way>,
    loses: Option<Arc<AtomicU32>>,
) {
    let (mut closed, mut lost) = (way.clone(), way.clone());
    lost.mark_unchanged();
    let passing = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let is_it = |nth: &Arc<AtomicU32>| nth.fetch_update(SeqCst, SeqCst, |nth| nth.checked_sub(1)) == Ok(1);
            if loses.as_ref().is_some_and(is_it) {
                break;
            }
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

/// Waits until the way gets lost from now on; for ever where it ends.
async fn becomes_lost(way: &mut watch::Receiver<Way>) {
    while way.changed().await.is_ok() {
        if *way.borrow_and_update() == Way::Lost {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Waits until the way is closed.
async fn becomes_closed(way: &mut watch::Receiver<Way>) {
    let _ = way.wait_for(|way| *way == Way::Closed).await;
}
