//! The end of a stream, of which its handler is told in time for a last message.

use tokio_util::sync::CancellationToken;

/// Beside the request of a stream. Cancelled when the stream is to end, with `STREAM_ENDED`: the server drains, or the
/// connection has reached its age. A handler that does not end it then is ended.
#[derive(Clone)]
pub struct StreamEnd(pub CancellationToken);
