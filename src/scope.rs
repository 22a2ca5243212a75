//! What an API key allows.

use std::{fmt, str::FromStr};

/// What an API key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read profiles.
    ProfilesRead,
    /// Create and change profiles.
    ProfilesWrite,
    /// Report how cases stand.
    CasesReport,
    /// Correct locked fields, set roles, find people and read their history.
    Support,
    /// List, count and follow all profiles.
    ProfilesList,
    /// Export and erase people.
    Privacy,
}

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::ProfilesRead, Self::ProfilesWrite, Self::CasesReport, Self::Support, Self::ProfilesList, Self::Privacy];

    /// The scope's name in the database, on the command line and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProfilesRead => "profiles.read",
            Self::ProfilesWrite => "profiles.write",
            Self::CasesReport => "cases.report",
            Self::Support => "support",
            Self::ProfilesList => "profiles.list",
            Self::Privacy => "privacy",
        }
    }

    /// What a key with the scope may do, for `--help`.
    pub const fn description(self) -> &'static str {
        match self {
            Self::ProfilesRead => "Read profiles",
            Self::ProfilesWrite => "Create and change profiles",
            Self::CasesReport => "Report how cases stand",
            Self::Support => "Correct locked fields, set roles, find people, read their history and cases",
            Self::ProfilesList => "List, count and follow all profiles",
            Self::Privacy => "Export and erase people",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no scope of this name.
#[derive(Debug, thiserror::Error)]
#[error("there is no such scope")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or(UnknownScope)
    }
}
