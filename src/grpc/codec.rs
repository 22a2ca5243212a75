//! Messages as bytes, in short pieces: of a stream whose peer is slow no more is made than such a piece.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{self, BufferSettings, EncodeBuf},
};
use tonic_prost::ProstDecoder;

use crate::error::Error;

/// The size at which messages that are ready together become one piece, in bytes.
const PIECE: usize = 8 * 1024;

/// What a message is given at first, in bytes: most take less, and it waits with the answer until that is read.
const MESSAGE: usize = 1024;

/// What the generated services write and read.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Encoder<T> {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::default()
    }
}

/// Writes messages. A large one takes no more memory than it has bytes: a buffer that grows would have up to twice as many.
pub struct Encoder<T>(PhantomData<T>);

impl<T: Message> codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Error::Internal(error.to_string()).into())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(MESSAGE, PIECE)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use futures_util::stream;
    use http_body_util::BodyExt as _;
    use prost_types::FieldMask;
    use tonic::{
        Status,
        codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride},
    };

    use super::*;

    #[tokio::test]
    async fn no_more_of_a_stream_is_made_ahead_than_a_piece() {
        let made = Cell::new(0);
        let messages = stream::repeat_with(|| {
            made.set(made.get() + 1);
            Ok::<_, Status>("x".repeat(1000))
        });
        let encoder = Codec::<String, ()>::default().encoder();
        let single = SingleMessageCompressionOverride::default();
        let mut body = pin!(EncodeBody::new_server(encoder, messages, None, single, None));
        assert_eq!(made.get(), 0);
        for piece in 1..4 {
            body.frame().await.expect("a piece").expect("messages");
            assert_eq!(made.get(), piece * 9); // 8 of them are a little less than 8 KiB
        }
    }

    #[tokio::test]
    async fn a_large_message_takes_no_more_memory_than_it_has_bytes() {
        let message = FieldMask { paths: vec!["x".repeat(100); 1300] };
        let encoder = Codec::<FieldMask, ()>::default().encoder();
        let single = SingleMessageCompressionOverride::default();
        let mut body = Box::pin(EncodeBody::new_server(encoder, stream::iter([Ok(message)]), None, single, None));
        let data = body.frame().await.expect("a piece").expect("a message").into_data().expect("data");
        drop(body); // which has the rest of the buffer
        let length = data.len();
        assert_eq!(data.try_into_mut().expect("nobody else has it").capacity(), length);
    }
}
