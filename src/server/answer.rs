//! An answer on its way: what of it waits to be read is counted, and a stream has its line, permit and deadline with it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    Error as BodyError,
    body::{Body, Bytes, HttpBody},
};
use http::HeaderMap;
use http_body::Frame;
use tokio::{sync::OwnedSemaphorePermit, time::Sleep};
use tonic::Status;

use super::{
    line::LogLine,
    peer::{Backlog, Held, Peer},
};
use crate::{error::Error, grpc::status};

/// The body of an answer.
pub struct Answer {
    pub body: Body,
    pub backlog: Arc<Backlog>,
    pub peer: Arc<Peer>,
    /// Of a stream, until it ends.
    pub course: Option<Course>,
}

/// What a stream has with it to its end. A call that answers one message has ended when that is ready.
pub struct Course {
    pub line: LogLine,
    /// Among the streams of its kind.
    pub _permit: OwnedSemaphorePermit,
    /// The caller's deadline.
    pub deadline: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    /// The next frame, or the end that the deadline makes.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(Course { line, deadline, .. }) = &mut self.course else {
            return Pin::new(&mut self.body).poll_frame(context);
        };
        let span = line.span.clone();
        let _noted_there = span.enter();
        let late = deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
        let frame = if late {
            Some(Ok(end(&Error::DeadlineExceeded.into())))
        } else {
            ready!(Pin::new(&mut self.body).poll_frame(context))
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let Some(trailers) = frame.trailers_ref() else { return Poll::Ready(Some(Ok(frame))) };
        let status = Status::from_header_map(trailers);
        line.code = status.as_ref().map(Status::code);
        let explained = status.and_then(|status| status::explained(&status));
        (self.body, self.course) = (Body::empty(), None);
        Poll::Ready(Some(Ok(explained.as_ref().map_or(frame, end))))
    }

    /// Counts these bytes until they have been sent.
    fn count(&self, data: Bytes) -> Bytes {
        let held = self.backlog.wait(&self.peer, data.len());
        Bytes::from_owner(Unread { data, _held: held })
    }
}

/// The trailers that end a stream.
fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap_or_default(); // all text is percent-encoded: no header refuses it
    Frame::trailers(trailers)
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll(context));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.count(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Bytes that HTTP/2 has not sent. It drops them when it has.
struct Unread {
    data: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
