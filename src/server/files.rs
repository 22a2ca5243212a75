//! Open files: every connection is one, and so is everything else that the program has open.

/// Open files that are neither connections of peers nor the database's own: the log, the ports, the runtime, SQLite's
/// files, metrics, and connections that are being closed.
const OTHERS: u64 = 80;

/// What the limit of open files allows.
#[derive(Clone, Copy, Debug)]
pub struct OpenFiles {
    /// The limit.
    pub limit: u64,
    /// Connections that may be open at once.
    pub connections: usize,
}

/// How many connections may be open at once, at most `wanted`, beside these to the database. Raises the process's soft
/// limit of open files to the hard one.
///
/// # Errors
///
/// Says how many open files are needed where the hard limit leaves none for connections.
pub fn connections(wanted: usize, to_database: u32) -> Result<OpenFiles, String> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft())
        .map_err(|error| format!("the limit of open files cannot be read: {error}"))?;
    let reserved = OTHERS + u64::from(to_database);
    let left = usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX);
    let connections = wanted.min(left);
    if connections == 0 {
        return Err(format!("{limit} open files are too few: allow {} at least (ulimit -n)", reserved + 1));
    }
    Ok(OpenFiles { limit, connections })
}
