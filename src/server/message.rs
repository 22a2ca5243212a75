//! The one message of a request, read before the call takes a permit: who sends half of one takes nobody else's.

use std::{future::pending, pin::pin, sync::Arc};

use axum::body::{Body, Bytes, HttpBody as _};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use prost::bytes::BytesMut;

use super::peer::{Backlog, Held, Peer};
use crate::error::{Error, Result};

/// Reads a body to its end: a message of at most `most` bytes in its frame, and nothing after it. What else may be wrong
/// with it, tonic sees.
///
/// A call that waits for a part of it is counted, or is so already, until what is answered with the message is dropped.
pub async fn read(
    mut body: Body,
    most: usize,
    backlog: &Arc<Backlog>,
    peer: &Arc<Peer>,
    mut counted: Option<Held>,
) -> Result<(Bytes, Option<Held>)> {
    let mut received = BytesMut::new();
    loop {
        let data = {
            let mut next = pin!(next(&mut body));
            if let Some(data) = next.as_mut().now_or_never() {
                data
            } else {
                counted.get_or_insert_with(|| backlog.wait(peer, received.len()));
                next.await
            }
        };
        let Some(data) = data else { return Ok((received.freeze(), counted)) };
        if let Some(counted) = &counted {
            counted.add(data.len());
        }
        if received.is_empty() && body.is_end_stream() {
            judge(&data, most)?;
            return Ok((data, counted));
        }
        received.extend_from_slice(&data);
        judge(&received, most)?;
    }
}

/// The next bytes, until the body ends.
async fn next(body: &mut Body) -> Option<Bytes> {
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(data);
                }
            }
            // The caller has gone, and hyper drops the call.
            Err(_) => return pending().await,
        }
    }
}

/// Whether what has come so far can be the frame of one message: a flag, four bytes of length, and as many bytes.
fn judge(received: &[u8], most: usize) -> Result<()> {
    let Some(([_compressed, length @ ..], message)) = received.split_first_chunk::<5>() else { return Ok(()) };
    match u32::from_be_bytes(*length) as usize {
        length if length > most => Err(Error::MessageTooLarge(most)),
        length if message.len() > length => Err(Error::InvalidMessage),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[test]
    fn a_call_is_counted_as_long_as_it_waits_for_its_message() {
        let (backlog, peer) = (Arc::default(), Arc::<Peer>::default());
        let calls: Vec<_> = (0..1000)
            .map(|_| {
                let nothing = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
                let mut call = Box::pin(read(nothing, 2, &backlog, &peer, None));
                assert!(call.as_mut().now_or_never().is_none());
                call
            })
            .collect();
        assert!(peer.cut.is_cancelled(), "{} calls with 10 KiB each", calls.len());
    }

    #[test]
    fn a_body_is_one_message_of_a_bounded_size_and_nothing_else() {
        for (received, outcome) in [
            (&[][..], Ok(())),
            (&[0, 0, 0, 0], Ok(())),
            (&[0, 0, 0, 0, 0], Ok(())),
            (&[0, 0, 0, 0, 2, 8], Ok(())),
            (&[1, 0, 0, 0, 2, 8, 1], Ok(())),
            (&[0, 0, 0, 0, 2, 8, 1, 0], Err("INVALID")),
            (&[0, 0, 0, 0, 0, 0], Err("INVALID")),
            (&[0, 0, 0, 0, 3], Err("TOO LARGE")),
            (&[0, 0xff, 0xff, 0xff, 0xff], Err("TOO LARGE")),
        ] {
            let judged = judge(received, 2).map_err(|error| match error {
                Error::MessageTooLarge(2) => "TOO LARGE",
                _ => "INVALID",
            });
            assert_eq!(judged, outcome, "{received:?}");
        }
    }
}
