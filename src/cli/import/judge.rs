//! From each line of an import to what it says about a person, judged whole.

use std::path::Path;

use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::{
    errors::{Failed, Violation},
    file::{LONGEST_LINE, Line, Lines},
    upsert::UpsertBy,
};
use crate::{
    clock,
    error::Error,
    grpc::{change, json, mask::Mask, pb, status},
    profile::change::{Change, Target},
};

/// How many lines, and about how many bytes of them, are stored at once: others wait for the rows and for SQLite's writer.
const LINES: u64 = 500;
const BYTES: usize = 1024 * 1024;

/// Lines that are stored together.
#[derive(Default)]
pub struct Chunk {
    /// How many lines of the file they are, with blank ones.
    pub lines: u64,
    pub judged: Vec<Judged>,
}

/// A line, with what it says or why that is refused.
pub struct Judged {
    pub number: u64,
    text: Vec<u8>,
    pub said: Result<Said, Vec<Violation>>,
}

/// What a line says.
pub enum Said {
    /// That there is a new person.
    Create(Change),
    /// What is true of whoever this key finds, or else of a new person.
    Upsert { key: String, patch: Change, profile: Box<pb::Profile> },
}

/// How the lines are judged.
pub struct Judge {
    pub upsert_by: Option<UpsertBy>,
    /// The beginning of the file's SHA-256, which the history keeps.
    pub file: String,
}

impl Judge {
    /// Judges the lines behind the first `done`, until nobody takes them any more. Answers the SHA-256 of what it has read.
    pub fn judge(&self, path: &Path, done: u64, judged: &mpsc::Sender<Chunk>) -> Result<String, String> {
        let mut lines = Lines::open(path)?;
        let (mut chunk, mut bytes) = (Chunk::default(), 0);
        while let Some(line) = lines.next()? {
            if line.number <= done {
                continue;
            }
            chunk.lines += 1;
            bytes += line.text.as_ref().map_or(0, Vec::len);
            if line.text.as_ref().is_none_or(|text| !text.is_empty()) {
                chunk.judged.push(self.line(line));
            }
            if chunk.lines == LINES || bytes >= BYTES {
                bytes = 0;
                if judged.blocking_send(std::mem::take(&mut chunk)).is_err() {
                    break;
                }
            }
        }
        if chunk.lines > 0 {
            let _ = judged.blocking_send(chunk); // nobody takes it where storing has failed
        }
        Ok(lines.sha256())
    }

    /// Judges a line that is not blank.
    pub fn line(&self, line: Line) -> Judged {
        let Line { number, text } = line;
        let text = text.unwrap_or_default();
        let said = profile(&text).and_then(|profile| self.said(number, profile));
        Judged { number, text, said }
    }

    fn said(&self, number: u64, profile: pb::Profile) -> Result<Said, Vec<Violation>> {
        let Some(by) = &self.upsert_by else { return self.create(number, profile).map(Said::Create) };
        let target = Target::Id(uuid::Uuid::nil()); // whom the key finds is set then
        let patch = change::import(profile.clone(), &Mask::Present, target, self.reason(number), clock::now());
        let patch = patch.map_err(|error| violations(&error))?;
        let key = by.key(&patch.edit).map_err(|violation| vec![violation])?;
        Ok(Said::Upsert { key, patch, profile: Box::new(profile) })
    }

    /// The creation of a person whom a line tells of.
    pub fn create(&self, number: u64, profile: pb::Profile) -> Result<Change, Vec<Violation>> {
        let target = Target::New(clock::new_id());
        let created = change::import(profile, &Mask::All, target, self.reason(number), clock::now());
        created.map_err(|error| violations(&error))
    }

    fn reason(&self, number: u64) -> String {
        format!("sha256:{} line {number}", self.file)
    }
}

impl Judged {
    /// The line in the file of errors.
    pub fn failed(&self, violations: Vec<Violation>) -> Failed {
        let text = || String::from_utf8_lossy(&self.text).into_owned();
        let said = match serde_json::from_slice(&self.text) {
            Ok(said @ Json::Object(_)) => {
                serde_json::from_value::<Failed>(said.clone()).map_or(said, |again| again.profile)
            }
            Ok(_) | Err(_) if self.text.len() > LONGEST_LINE || self.text.is_empty() => Json::Null,
            Ok(_) | Err(_) => text().into(),
        };
        Failed { line: self.number, violations, profile: said }
    }
}

/// The profile that a line has, or one of a file of errors.
fn profile(text: &[u8]) -> Result<pb::Profile, Vec<Violation>> {
    let invalid = |reason: &str, description: String| {
        vec![Violation { field: String::new(), reason: reason.to_owned(), description }]
    };
    let again = || serde_json::from_slice::<Failed>(text).ok().map(|failed| failed.profile.to_string());
    let parsed = match json::parse("Profile", text) {
        Err(_) if text.starts_with(b"{\"line\":") => match again() {
            Some(profile) if profile.len() <= LONGEST_LINE => json::parse("Profile", profile.as_bytes()),
            Some(_) | None => Err("the line has no profile".to_owned()),
        },
        _ if text.is_empty() || text.len() > LONGEST_LINE => {
            return Err(invalid("TOO_LONG", format!("a line may have {LONGEST_LINE} bytes at the most")));
        }
        parsed => parsed,
    };
    parsed.map_err(|error| invalid("INVALID_JSON", format!("is no profile in JSON: {error}")))
}

/// What was wrong with the line; nothing where it is not the cause.
pub fn violations(error: &Error) -> Vec<Violation> {
    status::violations(error).into_iter().map(Violation::from).collect()
}
