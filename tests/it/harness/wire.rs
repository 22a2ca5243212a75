//! A call as it is on the wire: no client library that makes up a code.

use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Version};
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::Status;

use super::Failure;

/// A connection that sends what it is told.
pub struct Wire {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Waits until the server has ended the connection.
    pub async fn ended(self) {
        self.connection.await.expect("a connection").expect("an end without an error");
    }

    /// Calls a method with these bytes as the body, which ends or not, and answers the status that the server sent.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: Bytes, end: bool) -> Result<(), Failure> {
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://localhost/profiles.v1.{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.expect("a connection");
        let request = request.body(()).expect("a request");
        let (response, mut stream) = requests.send_request(request, false).expect("a stream");
        stream.send_data(body, end).expect("a body");
        let response = response.await.expect("an answer");
        let (head, mut body) = response.into_parts();
        while let Some(bytes) = body.data().await {
            let bytes = bytes.expect("a message");
            body.flow_control().release_capacity(bytes.len()).expect("a window");
        }
        let trailers: HeaderMap = body.trailers().await.expect("an end").unwrap_or(head.headers);
        let status = Status::from_header_map(&trailers).expect("a status");
        if status.code() == tonic::Code::Ok { Ok(()) } else { Err(status.into()) }
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
