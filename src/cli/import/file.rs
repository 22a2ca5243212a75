//! The file of an import, line by line.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::super::BYTE_ORDER_MARK;

/// The longest line, in bytes: what a call may send. A line of a file of errors has what was wrong besides.
pub const LONGEST_LINE: usize = 64 * 1024;
const LONGEST_READ: usize = LONGEST_LINE + 32 * 1024;

/// Reads a file of lines.
pub struct Lines<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    hash: Sha256,
    number: u64,
}

/// A line without its end.
pub struct Line {
    /// From 1 on.
    pub number: u64,
    /// None where it is longer than any line may be.
    pub text: Option<Vec<u8>>,
}

impl Lines {
    /// Opens the file, which has to be one: it is read twice.
    pub fn open(path: &Path) -> Result<Self, String> {
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(format!("{} is not a file", path.display()));
        }
        let input = BufReader::with_capacity(256 * 1024, File::open(path).map_err(unreadable)?);
        Ok(Self::of(path, input))
    }
}

impl<R: BufRead> Lines<R> {
    /// The lines of the file at this path, whose content this is.
    pub fn of(path: &Path, content: R) -> Self {
        Self { path: path.to_owned(), input: content, hash: Sha256::new(), number: 0 }
    }

    /// The next line, if there is one; a blank one has no text.
    pub fn next(&mut self) -> Result<Option<Line>, String> {
        let (mut text, mut length) = (Vec::new(), 0);
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
            };
            if buffer.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let read = end.map_or(buffer.len(), |end| end + 1);
            let kept = LONGEST_READ.saturating_sub(text.len()).saturating_add(1).min(read);
            text.extend_from_slice(&buffer[..kept]);
            self.hash.update(&buffer[..read]);
            self.input.consume(read);
            length += read;
            if end.is_some() || read == 0 {
                break;
            }
        }
        self.number += 1;
        if length > LONGEST_READ {
            return Ok(Some(Line { number: self.number, text: None }));
        }
        if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        text.truncate(text.trim_ascii_end().len());
        Ok(Some(Line { number: self.number, text: Some(text) }))
    }

    /// The SHA-256 of what was read, in hexadecimal.
    pub fn sha256(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

/// What a first look at the file tells.
pub struct Survey {
    pub sha256: String,
    pub lines: u64,
}

/// Reads the file once, so that it is known before anything is stored.
pub fn survey(path: &Path) -> Result<Survey, String> {
    let mut lines = Lines::open(path)?;
    let (mut number, mut blank, mut objects) = (0, 0, 0);
    while let Some(line) = lines.next()? {
        number = line.number;
        match line.text.as_deref().map(<[u8]>::trim_ascii_start) {
            Some([]) => blank += 1,
            Some([b'{', ..]) => objects += 1,
            Some(_) | None => {}
        }
    }
    if number == blank {
        return Err(format!("{} is empty", path.display()));
    }
    if objects == 0 {
        let path = path.display();
        return Err(format!("{path} has no JSON lines: no line begins with {{, as one JSON object a line does"));
    }
    Ok(Survey { sha256: lines.sha256(), lines: number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Vec<(u64, Option<String>)> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lines");
        fs::write(&path, content).expect("a file");
        let mut lines = Lines::open(&path).expect("lines");
        let mut found = Vec::new();
        while let Some(line) = lines.next().expect("a line") {
            found.push((line.number, line.text.map(|text| String::from_utf8(text).expect("text"))));
        }
        assert_eq!(lines.sha256(), hex::encode(Sha256::digest(content)));
        found
    }

    #[test]
    fn lines_are_without_their_ends_and_the_mark_of_the_first() {
        let line = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(read(b""), []);
        assert_eq!(
            read("\u{feff}{}\r\n\r\n {}  \n{}".as_bytes()),
            [line(1, "{}"), line(2, ""), line(3, " {}"), line(4, "{}")]
        );
        let longest = "x".repeat(LONGEST_READ - 1);
        assert_eq!(read(format!("{longest}\n{longest}xx\ny").as_bytes()), [line(1, &longest), (2, None), line(3, "y")]);
    }
}
