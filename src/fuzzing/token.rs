//! Tokens: of the next page, and of where a follower goes on.

use uuid::Uuid;

use super::{decision::ORGANIZATION, tell};
use crate::{
    grpc::{
        page::{self, Token},
        query, support, watch,
    },
    value,
};

/// The list that the corpus has tokens of, sealed by `SECRET`.
const LIST: &str = "ListProfiles";
const SECRET: [u8; 32] = [7; 32];

/// The profile whose changes the corpus has tokens of.
const PROFILE: Uuid = Uuid::from_u128(2);

/// A page token of each list, and a position that a token holds.
pub fn page_token(input: &[u8]) {
    let key = page::key(&SECRET).expect("a key");
    let text = String::from_utf8_lossy(input);
    let opened = |token: &str, list: &str| Token::parse(&value::clean(token)).and_then(|token| token.open(&key, list));
    match opened(&text, LIST) {
        Ok(position) => {
            assert!(opened(&text, "ListProfileCases").is_err(), "a token is of one list");
            at(&position);
        }
        Err(error) => tell(error),
    }
    let sealed = Token::seal(&key, LIST, &text).expect("a token").text();
    assert_eq!(opened(&sealed, LIST).as_deref().ok(), Some(&*text));
    at(&text);

    let token = value::clean(&text);
    match support::page_start(&token, PROFILE) {
        Ok(revision) => {
            assert!(support::page_token(PROFILE, revision).eq_ignore_ascii_case(&token));
            assert!(support::page_start(&token, Uuid::nil()).is_err(), "a token is of one profile");
        }
        Err(error) => tell(error),
    }
}

/// Goes on behind a position in the list of profiles.
fn at(position: &str) {
    match query::position_in(position) {
        Ok(read) => assert!(position.ends_with(&format!(" {}", read.sort_name))),
        Err(error) => tell(error),
    }
}

/// A resume token.
pub fn resume_token(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let token = value::clean(&text);
    if let Some(cursor) = watch::cursor(ORGANIZATION, &token) {
        assert!(watch::token(ORGANIZATION, &cursor).eq_ignore_ascii_case(&token));
        assert!(watch::cursor(Uuid::nil(), &token).is_none(), "a token is of one organization");
    }
}
