//! Pages of lists (AIP-158): how large they are, and the tokens that ask for the next.

use prost::Message;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::sync::OnceCell;

use crate::{
    error::{Error, Result},
    profile::fields::Input,
    store::{self, Store},
    value::{self, Rule},
};

/// How many elements a page has where the request does not say.
const DEFAULT_SIZE: u64 = 50;

/// How many elements a page has at the most.
const LARGEST_SIZE: u64 = 200;

/// How many bytes a page has at the most, besides its token: well below what clients of gRPC take (4 MiB).
const LARGEST_ANSWER: usize = 256 * 1024;

/// What an element costs on its page besides itself: its tag and its length, in bytes.
const FIELD: usize = 5;

/// How many elements a page has at the most, by the request's `page_size`.
pub fn size(input: &mut Input, page_size: i32) -> u64 {
    match input.judge("page_size", u64::try_from(page_size).map_err(|_| Rule::Negative)) {
        0 => DEFAULT_SIZE,
        size => size.min(LARGEST_SIZE),
    }
}

/// The elements that fit on a page, one at least, and whether there are more.
pub fn fill<M: Message>(elements: impl IntoIterator<Item = Result<M>>, size: u64) -> Result<(Vec<M>, bool)> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for element in elements {
        let element = element?;
        bytes += element.encoded_len() + FIELD;
        if page.len() as u64 == size || (bytes > LARGEST_ANSWER && !page.is_empty()) {
            return Ok((page, true));
        }
        page.push(element);
    }
    Ok((page, false))
}

/// Seals positions that tell of a person: a token comes into the logs of others, and the person may be renamed or gone
/// when it comes back, so that it must hold the name itself.
#[derive(Default)]
pub struct Tokens {
    key: OnceCell<LessSafeKey>,
}

impl Tokens {
    /// A token of this list for the position. The list is the RPC, the organization and the filter.
    pub async fn seal(&self, store: &Store, list: &str, position: &str) -> Result<String> {
        Token::seal(self.key(store).await?, list, position).map(|token| token.text())
    }

    /// The position in a token of this list; none where the request has no token.
    pub async fn open(&self, store: &Store, list: &str, token: &str) -> Result<Option<String>> {
        let token = value::clean(token);
        if token.is_empty() {
            return Ok(None);
        }
        let token = Token::parse(&token)?;
        token.open(self.key(store).await?, list).map(Some)
    }

    /// All replicas have the same.
    async fn key(&self, store: &Store) -> Result<&LessSafeKey> {
        self.key.get_or_try_init(|| async { key(&store::secret::page_token(store).await?) }).await
    }
}

/// The key of this secret, which has 32 bytes.
pub fn key(secret: &[u8]) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, secret);
    key.map(LessSafeKey::new).map_err(|_| Error::Internal("the secret of page tokens is no key".to_owned()))
}

/// A sealed position.
pub struct Token {
    nonce: [u8; NONCE_LEN],
    sealed: Vec<u8>,
}

impl Token {
    pub fn seal(key: &LessSafeKey, list: &str, position: &str) -> Result<Self> {
        let (nonce, mut sealed) = (rand::random(), position.as_bytes().to_vec());
        let done = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(list), &mut sealed);
        done.map_err(|_| Error::Internal("a page token cannot be sealed".to_owned()))?;
        Ok(Self { nonce, sealed })
    }

    pub fn text(&self) -> String {
        hex::encode([&self.nonce[..], &self.sealed].concat())
    }

    pub fn parse(text: &str) -> Result<Self> {
        let bytes = hex::decode(text).map_err(|_| Error::InvalidPageToken)?;
        let (nonce, sealed) = bytes.split_first_chunk().ok_or(Error::InvalidPageToken)?;
        Ok(Self { nonce: *nonce, sealed: sealed.to_vec() })
    }

    /// The position, if it was sealed for this list.
    pub fn open(mut self, key: &LessSafeKey, list: &str) -> Result<String> {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let opened = key.open_in_place(nonce, Aad::from(list), &mut self.sealed);
        let position = opened.map_err(|_| Error::InvalidPageToken)?.to_vec();
        String::from_utf8(position).map_err(|_| Error::InvalidPageToken)
    }
}
