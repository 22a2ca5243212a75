//! A server that does to each call what a test says, and tells what it was sent.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use prost::bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};

use super::wire::frame;

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// It is answered with a message that has nothing.
    Answer,
    /// It ends with this code of gRPC, and nothing besides.
    Code(i32),
    /// Its stream is reset.
    Reset(Reason),
    /// It is never answered.
    Silence,
}

pub struct Peer {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
    serving: JoinHandle<()>,
}

impl Peer {
    /// Does these things to the calls that come, one after the other, and the last to all that follow.
    pub async fn start<const N: usize>(acts: [Act; N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::default();
        let serving = tokio::spawn(serve(listener, acts.to_vec(), Arc::clone(&heads)));
        Self { address, heads, serving }
    }

    /// The heads of the calls that came.
    pub fn heads(&self) -> Vec<HeaderMap> {
        self.heads.lock().expect("the heads").clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, acts: Vec<Act>, heads: Arc<Mutex<Vec<HeaderMap>>>) {
    let mut silent = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((call, answer))) = connection.accept().await {
            let number = {
                let mut heads = heads.lock().expect("the heads");
                heads.push(call.headers().clone());
                heads.len() - 1
            };
            silent.extend(act(acts[number.min(acts.len() - 1)], call, answer));
        }
    }
}

/// Answers what has to be kept for the call to stay open.
fn act(
    act: Act,
    call: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
) -> Option<(Request<RecvStream>, SendResponse<Bytes>)> {
    let head = Response::builder().header("content-type", "application/grpc");
    match act {
        Act::Answer => {
            let mut body = answer.send_response(head.body(()).expect("a head"), false).expect("a peer");
            body.send_data(frame(b""), false).expect("a peer");
            body.send_trailers([("grpc-status".parse().expect("a name"), 0.into())].into_iter().collect())
                .expect("a peer");
        }
        Act::Code(code) => {
            let head = head.header("grpc-status", code).body(()).expect("a head");
            answer.send_response(head, true).expect("a peer");
        }
        Act::Reset(reason) => answer.send_reset(reason),
        Act::Silence => return Some((call, answer)),
    }
    None
}
