//! Lists for people and for programs.

use clap::ValueEnum;
use serde::Serialize;

use super::{Failure, print};

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Output {
    /// A line each, its columns separated by tabs, after their names.
    #[default]
    Table,
    /// One JSON array of objects; what there is not is null.
    Json,
}

/// A row of a list; its fields are those of its object.
pub trait Row: Serialize {
    const COLUMNS: &'static [&'static str];

    /// The texts of its columns; where there is none, `-`.
    fn columns(self) -> Vec<String>;
}

impl Output {
    /// Prints these rows.
    pub fn print<R: Row>(self, rows: Vec<R>) -> Result<(), Failure> {
        match self {
            Self::Table => {
                let rows = rows.into_iter().map(|row| row.columns().join("\t"));
                let lines: Vec<_> = std::iter::once(R::COLUMNS.join("\t")).chain(rows).collect();
                print(&lines.join("\n"))
            }
            Self::Json => {
                let json = serde_json::to_string_pretty(&rows);
                print(&json.map_err(|error| Failure::failed(format!("the list is no JSON: {error}")))?)
            }
        }
    }
}

/// What a column shows of a value that may be missing.
pub fn shown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}
