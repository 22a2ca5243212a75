//! An answer on its way: what of it waits to be read is counted, and a stream has its course with it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    Error as BodyError,
    body::{Body, Bytes, HttpBody},
};
use futures_util::FutureExt as _;
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;

use super::{
    course::{Course, Progress},
    peer::{Backlog, Held, Peer},
};
use crate::grpc::status;

/// The body of an answer.
pub struct Answer {
    pub body: Body,
    /// What the service keeps for the peer besides a piece that it has not read, in bytes.
    pub kept: usize,
    pub backlog: Arc<Backlog>,
    pub peer: Arc<Peer>,
    /// Of a stream, until it ends.
    pub course: Option<Course>,
}

impl Answer {
    /// The next frame, or the end that the guard makes.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(Course { line, ended, .. }) = &mut self.course else {
            return Pin::new(&mut self.body).poll_frame(context);
        };
        let span = line.span.clone();
        let _noted_there = span.enter();
        let frame = if !ended.is_terminated()
            && let Poll::Ready(Ok(error)) = ended.poll_unpin(context)
        {
            Some(Ok(end(&error.into())))
        } else {
            ready!(Pin::new(&mut self.body).poll_frame(context))
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        if let (Some(sent), Some(data)) = (&mut line.sent, frame.data_ref()) {
            sent.count(data);
        }
        let Some(trailers) = frame.trailers_ref() else { return Poll::Ready(Some(Ok(frame))) };
        let status = Status::from_header_map(trailers);
        line.code = status.as_ref().map(Status::code);
        let explained = status.and_then(|status| status::explained(&status));
        (self.body, self.course) = (Body::empty(), None);
        Poll::Ready(Some(Ok(explained.as_ref().map_or(frame, end))))
    }

    /// Counts these bytes until they have been sent.
    fn count(&self, data: Bytes) -> Bytes {
        let held = self.backlog.wait(&self.peer, data.len() + self.kept);
        let progress = self.course.as_ref().map(|course| Arc::clone(&course.progress));
        if let Some(progress) = &progress {
            progress.wait();
        }
        Bytes::from_owner(Unread { data, _held: held, progress })
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
    progress: Option<Arc<Progress>>,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.take();
        }
    }
}
