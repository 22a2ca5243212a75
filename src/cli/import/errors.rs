//! The lines of an import that failed, in a file beside it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tonic_types::FieldViolation;

/// A line that failed. A file of these can be imported.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Its number in the file, from 1 on.
    pub line: u64,
    pub violations: Vec<Violation>,
    /// What the line said; its text where that is no JSON, and nothing where it is too long.
    pub profile: Json,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    pub field: String,
    pub reason: String,
    pub description: String,
}

impl From<FieldViolation> for Violation {
    fn from(violation: FieldViolation) -> Self {
        let FieldViolation { field, description, reason, localized_message: _ } = violation;
        Self { field, reason, description }
    }
}

/// The file of the lines that failed, for its owner alone.
pub struct Errors {
    path: PathBuf,
    file: Option<File>,
}

impl Errors {
    /// Beside this file, with this end of its name. What an earlier import left is kept where this one goes on.
    pub fn beside(path: &Path, end: &str, goes_on: bool) -> io::Result<Self> {
        let mut name = OsString::from(path);
        name.push(end);
        let path = PathBuf::from(name);
        if !goes_on {
            fs::remove_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(Self { path, file: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds these lines, which are on the disk then.
    pub fn write(&mut self, failed: &[Failed]) -> io::Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for line in failed {
            serde_json::to_writer(&mut lines, line)?;
            lines.push(b'\n');
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?),
        };
        file.write_all(&lines)?;
        file.sync_data()
    }
}
