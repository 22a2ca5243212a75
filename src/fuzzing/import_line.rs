//! Lines of an import.

use std::path::Path;

use super::decision::decide;
use crate::cli::import::{
    errors::Violation,
    file::{Line, Lines},
    judge::{Judge, Judged, Said},
    upsert::UpsertBy,
};

/// A file of lines, imported in each way. A line that fails is kept as one line, which can be imported too.
pub fn import_line(input: &[u8]) {
    let ways = [None, Some(UpsertBy::Email), Some(UpsertBy::PhoneNumber), Some(UpsertBy::Identifier("mrn".to_owned()))];
    for upsert_by in ways {
        let judge = Judge { upsert_by, file: "0123456789abcdef".to_owned() };
        let mut lines = Lines::of(Path::new("lines"), input);
        while let Some(line) = lines.next().expect("a line") {
            if line.text.as_ref().is_some_and(Vec::is_empty) {
                continue; // as the import does
            }
            let number = line.number;
            let judged = judge.line(line);
            let kept = match &judged.said {
                Ok(Said::Create(change)) => {
                    decide(change);
                    continue;
                }
                Ok(Said::Upsert { key, patch, profile }) => {
                    assert!(!key.is_empty());
                    decide(patch);
                    match judge.create(number, (**profile).clone()) {
                        Ok(change) => {
                            decide(&change);
                            continue;
                        }
                        Err(violations) => kept(&judged, violations),
                    }
                }
                Err(violations) => kept(&judged, violations.clone()),
            };
            judge.line(Line { number, text: Some(kept) });
        }
    }
}

/// The line as the file of errors has it.
fn kept(judged: &Judged, violations: Vec<Violation>) -> Vec<u8> {
    assert!(!violations.is_empty(), "a line fails for no reason");
    let line = serde_json::to_vec(&judged.failed(violations)).expect("JSON");
    assert!(!line.contains(&b'\n'));
    line
}
