//! The end of a stream: its handler is told of it in time, and says a last word.

use std::pin::Pin;

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::auth;
use crate::error::{Error, Result};

/// When a stream is to end: the server drains, or the connection has reached its age.
#[derive(Clone)]
pub struct StreamEnd(CancellationToken);

impl StreamEnd {
    /// When the token is cancelled.
    pub const fn at(token: CancellationToken) -> Self {
        Self(token)
    }

    /// When the stream that is asked for here is to end.
    pub fn of<T>(request: &Request<T>) -> Result<Self> {
        auth::extension(request)
    }

    /// These messages until they or the stream end. There the last word comes, as it follows from the last message, and
    /// then STREAM_ENDED. One message is asked for at a time.
    pub fn of_messages<T: Send + 'static>(
        self,
        messages: impl Stream<Item = Result<T>> + Send + 'static,
        last_word: fn(&T) -> T,
    ) -> BoxStream<'static, Result<T, Status>> {
        let begun = State::Open(Box::pin(messages), None);
        let next = move |state| Self::next(self.0.clone(), state, last_word);
        stream::unfold(begun, next).map(|message| message.map_err(Status::from)).boxed()
    }

    async fn next<T, S: Stream<Item = Result<T>>>(
        end: CancellationToken,
        state: State<S, T>,
        last_word: fn(&T) -> T,
    ) -> Option<(Result<T>, State<S, T>)> {
        match state {
            State::Open(mut messages, word) => match (end.run_until_cancelled(messages.next()).await, word) {
                (Some(message), _) => {
                    let message = message?;
                    let word = message.as_ref().ok().map(last_word);
                    Some((message, State::Open(messages, word)))
                }
                (None, Some(word)) => Some((Ok(word), State::Ending)),
                (None, None) => Some((Err(Error::StreamEnded), State::Ended)),
            },
            State::Ending => Some((Err(Error::StreamEnded), State::Ended)),
            State::Ended => None,
        }
    }
}

/// How far a stream is.
enum State<S, T> {
    /// With the last word that would follow now.
    Open(Pin<Box<S>>, Option<T>),
    Ending,
    Ended,
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// What comes of a stream: each message, or its code.
    async fn told(
        end: &StreamEnd,
        messages: impl Stream<Item = Result<i32>> + Send + 'static,
    ) -> Vec<Result<i32, Code>> {
        let stream = end.clone().of_messages(messages, |message| -message);
        stream.map(|message| message.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_stream_that_is_to_end_says_its_last_word_and_one_that_ends_by_itself_does_not() {
        let end = StreamEnd::at(CancellationToken::new());
        assert_eq!(told(&end, stream::iter([Ok(1), Ok(2)])).await, [Ok(1), Ok(2)]);
        let token = end.0.clone();
        let messages = stream::iter([Ok(1), Ok(2), Ok(3)]).inspect(move |message| {
            if *message.as_ref().expect("a message") == 2 {
                token.cancel();
            }
        });
        assert_eq!(told(&end, messages).await, [Ok(1), Ok(2), Ok(-2), Err(Code::Unavailable)]);
        assert_eq!(told(&end, stream::pending()).await, [Err(Code::Unavailable)], "nothing was said yet");
    }
}
