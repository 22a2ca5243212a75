//! A call as it is on the wire: no client library that makes up a code.

use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request, Version};
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::Status;

use super::Failure;

/// A connection that sends what it is told.
pub struct Wire {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    pub async fn connect(address: &str) -> Self {
        Self::with(address, &Builder::new()).await
    }

    /// Connects without a window: the server may send heads of answers, and no messages.
    pub async fn deaf(address: &str) -> Self {
        Self::with(address, Builder::new().initial_window_size(0)).await
    }

    async fn with(address: &str, builder: &Builder) -> Self {
        Self::over(TcpStream::connect(address).await.expect("a connection"), builder).await
    }

    /// Speaks HTTP/2 over a stream that is there.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, builder: &Builder) -> Self {
        let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Waits until the server has ended the connection, in good order or not.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.requests);
        self.connection.await.expect("a connection")
    }

    /// Begins a call of a method of the contract, or of `/another.Service/Method`, with these bytes as the body, which
    /// ends or not.
    pub async fn begin(&self, path: &str, headers: &[(&str, &str)], body: Bytes, end: bool) -> Begun {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/profiles.v1.{path}") };
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.expect("a connection");
        let request = request.body(()).expect("a request");
        let (response, stream) = requests.send_request(request, false).expect("a stream");
        let mut begun = Begun { response, stream };
        begun.send(body, end);
        begun
    }

    /// Calls a method and answers the status that the server sent.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes, end: bool) -> Result<(), Failure> {
        let status = self.begin(path, headers, body, end).await.status().await;
        if status.code() == tonic::Code::Ok { Ok(()) } else { Err(status.into()) }
    }
}

/// A call that has begun, until it is dropped.
pub struct Begun {
    response: ResponseFuture,
    stream: SendStream<Bytes>,
}

impl Begun {
    /// Sends the rest of the body.
    pub fn end(&mut self, rest: Bytes) {
        self.send(rest, true);
    }

    /// Sends a part of the body, unless the server has refused the call before it: what it answered tells.
    fn send(&mut self, part: Bytes, end: bool) {
        let _: Result<(), h2::Error> = self.stream.send_data(part, end);
    }

    /// The head of the answer.
    pub async fn head(&mut self) -> HeaderMap {
        let response = (&mut self.response).await.expect("an answer");
        response.into_parts().0.headers
    }

    /// Reads the answer a message at a time.
    pub async fn read(self) -> Reading {
        let (head, body) = self.response.await.expect("an answer").into_parts();
        Reading { _stream: self.stream, head: head.headers, body, received: BytesMut::new() }
    }

    /// Reads the answer to its end: its head, its body, and its trailers where they are apart from the head.
    pub async fn whole(self) -> (HeaderMap, Vec<u8>, Option<HeaderMap>) {
        let _until_it_ends = self.stream;
        let (head, mut body) = self.response.await.expect("an answer").into_parts();
        let mut received = Vec::new();
        while let Some(bytes) = body.data().await {
            let bytes = bytes.expect("a message");
            body.flow_control().release_capacity(bytes.len()).expect("a window");
            received.extend_from_slice(&bytes);
        }
        (head.headers, received, body.trailers().await.expect("an end"))
    }

    /// Reads the answer to its end, and answers its status.
    pub async fn status(self) -> Status {
        let (head, _, trailers) = self.whole().await;
        Status::from_header_map(trailers.as_ref().unwrap_or(&head)).expect("a status")
    }
}

/// A stream that is read a message at a time, until it is dropped.
pub struct Reading {
    _stream: SendStream<Bytes>,
    head: HeaderMap,
    body: RecvStream,
    received: BytesMut,
}

impl Reading {
    /// The next message, or the status at the end.
    pub async fn message(&mut self) -> Result<Bytes, Status> {
        loop {
            if let Some(([_compressed, length @ ..], rest)) = self.received.split_first_chunk::<5>()
                && let length = u32::from_be_bytes(*length) as usize
                && rest.len() >= length
            {
                return Ok(self.received.split_to(5 + length).split_off(5).freeze());
            }
            let Some(bytes) = self.body.data().await else {
                let trailers = self.body.trailers().await.expect("an end");
                let head = &self.head;
                return Err(Status::from_header_map(trailers.as_ref().unwrap_or(head)).expect("a status"));
            };
            let bytes = bytes.map_err(|error| Status::cancelled(error.to_string()))?;
            self.body.flow_control().release_capacity(bytes.len()).expect("a window");
            self.received.put(bytes);
        }
    }
}

/// A message in its frame.
pub fn frame(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a short message"));
    bytes.put_slice(message);
    bytes.freeze()
}
