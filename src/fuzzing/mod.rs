//! What the targets of `fuzz/` give any bytes to, and what the tests give the inputs of `fuzz/corpus` to.
//!
//! A target judges its input by the functions that serve a call. It panics where they do, and where what they make of the
//! input breaks a promise.

mod decision;
mod import_line;
mod request;
mod token;

use http::{HeaderMap, HeaderName, HeaderValue};
use prost_types::FieldMask;
use sea_orm::{IdenStatic as _, Iterable as _};
use tonic::Status;

pub use self::{
    import_line::import_line,
    request::request,
    token::{page_token, resume_token},
};
use crate::{
    entity::profile::Column,
    error::Error,
    grpc::{auth, mask::Mask},
    profile::policy,
    server::deadline,
    value::{self, KeyText},
};

/// What headers a client takes by default in most languages, in bytes as HTTP/2 counts them.
const LARGEST_HEADERS: usize = 8 * 1024;

/// What HTTP/2 counts for a header besides its name and value (RFC 9113 section 6.5.2).
const HEADER: usize = 32;

/// What a call sends in its headers, one a line: its key, and who acts.
pub fn key_text(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.append(name, value);
        }
    }
    match auth::presented(&headers) {
        Ok(key) => {
            let read = KeyText::parse(&key.expose()).expect("a key reads back");
            assert_eq!((&read.lookup, read.secret_sha256()), (&key.lookup, key.secret_sha256()));
            assert!(headers.values().any(|value| value.to_str().is_ok_and(|text| text.contains(&key.expose()))));
        }
        Err(error) => tell(error),
    }
    if let Ok(Some(actor)) = auth::actor(&headers) {
        assert_eq!(value::actor(&actor), Ok(actor));
    }
}

/// The deadline that a call has, against arithmetic that cannot overflow.
pub fn grpc_timeout(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let headers = HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), value)]);
    let nanoseconds = |unit| match unit {
        b'H' => Some(3_600_000_000_000),
        b'M' => Some(60_000_000_000),
        b'S' => Some(1_000_000_000),
        b'm' => Some(1_000_000),
        b'u' => Some(1_000),
        b'n' => Some(1_u128),
        _ => None,
    };
    let allowed = input.split_last().and_then(|(unit, digits)| {
        let count = digits.iter().try_fold(0, |count: u128, digit| {
            digit.is_ascii_digit().then(|| count.saturating_mul(10).saturating_add(u128::from(digit - b'0')))
        })?;
        nanoseconds(*unit).filter(|_| (1..=8).contains(&digits.len())).map(|of_one| count * of_one)
    });
    let expected = allowed.map(|allowed| allowed - (allowed / 10).min(100_000_000));
    assert_eq!(deadline::of_caller(&headers).map(|time| time.as_nanos()), expected);
}

/// An update mask, a path a line.
pub fn mask(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let paths: Vec<_> = text.split_terminator('\n').map(str::to_owned).collect();
    match Mask::parse(Some(FieldMask { paths: paths.clone() })) {
        Ok(mask) => {
            for column in Column::iter() {
                let named = paths.iter().any(|path| path == "*" || path == column.as_str());
                assert!(mask.names(column, true) == (named || paths.is_empty()) && mask.names(column, false) == named);
            }
        }
        Err(error) => {
            let known = |path: &String| policy::mutable().any(|column| column.as_str() == path);
            assert!(!paths.iter().all(known) && paths != ["*"]);
            tell(error);
        }
    }
}

/// Refuses a call: by a status that its caller can read, and never because the service failed.
fn tell(error: Error) {
    assert!(error.cause().is_none(), "{error}: {:?}", error.cause());
    let mut headers = HeaderMap::new();
    assert!(Status::from(error).add_header(&mut headers).is_ok());
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER).sum();
    assert!(size <= LARGEST_HEADERS, "{size} bytes of headers");
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::pb;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 7] = [
        ("grpc_timeout", grpc_timeout),
        ("import_line", import_line),
        ("key_text", key_text),
        ("mask", mask),
        ("page_token", page_token),
        ("request", request),
        ("resume_token", resume_token),
    ];

    fn fuzz(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
    }

    /// The names in a folder, without the ends that say what kind of file it is.
    fn names(folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz(folder)).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").path().with_extension(""));
        names.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!((names("fuzz_targets"), names("corpus")), (targets.clone(), targets));
    }

    #[test]
    fn every_rpc_is_judged_and_has_inputs() {
        let pool = DescriptorPool::decode(pb::DESCRIPTORS).expect("descriptors");
        let rpcs: BTreeSet<_> = pool
            .services()
            .flat_map(|service| service.methods().map(|rpc| rpc.name().to_owned()).collect::<Vec<_>>())
            .collect();
        assert!(rpcs.iter().all(|rpc| request::judge(rpc, b"")));
        assert_eq!(names("corpus/request"), rpcs);
    }

    #[test]
    fn every_input_that_was_kept_keeps_the_promises() {
        for (name, target) in TARGETS {
            let mut folders = vec![fuzz("corpus").join(name)];
            let mut inputs = 0;
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).expect("a folder") {
                    let path = entry.expect("an entry").path();
                    if path.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    println!("{}", path.display()); // shown where the input fails
                    target(&fs::read(&path).expect("an input"));
                    inputs += 1;
                }
            }
            assert!(inputs > 0, "{name} has no inputs");
        }
    }
}
