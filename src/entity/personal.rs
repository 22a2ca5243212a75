//! Every column of every table that holds a person's id or value: what erasing, exporting, copying and the feed do with it.
//! Erasing reads it; a test compares it with the schemas of both databases.

/// What becomes of a column where a person is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// It goes with its row.
    Row,
    /// It is emptied: what it holds may be a value of the person.
    Value,
    /// It stays: it holds no value of a person.
    Stays,
    /// It is left to the sweep that forgets request ids: a late repeat must not bring anybody back.
    Swept,
}

/// Where a person's export has a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    Profile,
    Case,
    Change,
    /// Nowhere: another record has it, or it is no more than the service's own.
    Nowhere,
}

/// What a copy of the database does with a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    AsItIs,
}

/// What followers of the feed are sent of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Sent,
    /// Not sent. Of an erased person nothing is sent but the id, the revision and the time of the erasure.
    Unsent,
}

/// A column, and what has been decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub table: &'static str,
    pub name: &'static str,
    pub erase: Erase,
    pub export: Export,
    pub copy: Copied,
    pub feed: Feed,
}

/// The tables that hold nothing of a person.
pub const OF_NOBODY: [&str; 5] = ["api_key", "feed_sequencer", "organization", "secret", "seaql_migrations"];

/// All columns of all other tables.
pub const COLUMNS: [Column; 62] = [
    column("profile", "id", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "organization_id", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile", "revision", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "locked", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "role", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "first_name", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "last_name", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "email", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "dob", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "gender", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "phone_number", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "address", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "address2", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "city", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "state", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "country", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "postal_code", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "identifiers", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "created_at", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "updated_at", Erase::Row, Export::Profile, Feed::Sent),
    column("profile", "sort_name", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_identifier", "organization_id", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_identifier", "system", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_identifier", "value", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_identifier", "profile_id", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_case", "organization_id", Erase::Row, Export::Nowhere, Feed::Unsent),
    column("profile_case", "case_id", Erase::Row, Export::Case, Feed::Unsent),
    column("profile_case", "profile_id", Erase::Row, Export::Case, Feed::Unsent),
    column("profile_case", "status", Erase::Row, Export::Case, Feed::Unsent),
    column("profile_case", "status_time", Erase::Row, Export::Case, Feed::Unsent),
    column("profile_change", "profile_id", Erase::Stays, Export::Nowhere, Feed::Sent),
    column("profile_change", "revision", Erase::Stays, Export::Change, Feed::Sent),
    column("profile_change", "organization_id", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("profile_change", "changed_at", Erase::Stays, Export::Change, Feed::Sent),
    column("profile_change", "rpc", Erase::Stays, Export::Change, Feed::Unsent),
    column("profile_change", "key_id", Erase::Stays, Export::Change, Feed::Unsent),
    column("profile_change", "key_name", Erase::Stays, Export::Change, Feed::Unsent),
    column("profile_change", "actor", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "request_id", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "reason", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "ticket", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "case_id", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "lock_overridden", Erase::Stays, Export::Change, Feed::Unsent),
    column("profile_change", "fields", Erase::Stays, Export::Change, Feed::Sent),
    column("profile_change", "old_values", Erase::Value, Export::Change, Feed::Unsent),
    column("profile_change", "new_values", Erase::Value, Export::Change, Feed::Unsent),
    column("write_request", "organization_id", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("write_request", "rpc", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("write_request", "request_id", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("write_request", "payload_sha256", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("write_request", "profile_id", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("write_request", "created_at", Erase::Swept, Export::Nowhere, Feed::Unsent),
    column("feed", "organization_id", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("feed", "position", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("feed", "profile_id", Erase::Stays, Export::Nowhere, Feed::Sent),
    column("feed", "revision", Erase::Stays, Export::Nowhere, Feed::Sent),
    column("feed_pending", "id", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("feed_pending", "changes", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("erasure", "profile_id", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("erasure", "organization_id", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("erasure", "erase_time", Erase::Stays, Export::Nowhere, Feed::Unsent),
    column("erasure", "reason_code", Erase::Stays, Export::Nowhere, Feed::Unsent),
];

const fn column(table: &'static str, name: &'static str, erase: Erase, export: Export, feed: Feed) -> Column {
    Column { table, name, erase, export, copy: Copied::AsItIs, feed }
}

/// The columns that erasing treats so.
pub fn erased_by(erase: Erase) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| column.erase == erase)
}
