//! Update masks (AIP-134, AIP-161).

use std::collections::BTreeSet;

use prost_types::FieldMask;
use sea_orm::IdenStatic as _;

use crate::{
    entity::profile::Column,
    error::{Error, Result},
    profile::policy,
};

/// How many refused paths a message names: a mask may have thousands, and a message travels in a header.
const NAMED_PATHS: usize = 10;

/// The longest path that a message names, in characters.
const NAMED_PATH: usize = 50;

/// The fields that a write names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Those that are present in the message.
    Present,
    /// All; those that are absent are cleared.
    All,
    /// These; those that are absent are cleared.
    Named(Vec<String>),
}

impl Mask {
    /// None or an empty mask is what is present; `*` alone is all.
    ///
    /// A path that is unknown, nested, in camelCase or not to be written, and `*` among others, are refused.
    pub fn parse(mask: Option<FieldMask>) -> Result<Self> {
        let paths = mask.unwrap_or_default().paths;
        if paths.is_empty() {
            Ok(Self::Present)
        } else if paths == ["*"] {
            Ok(Self::All)
        } else if paths.iter().all(|path| is_mutable(path)) {
            Ok(Self::Named(paths))
        } else {
            let mutable: Vec<_> = policy::mutable().map(|column| column.as_str()).collect();
            Err(Error::InvalidUpdateMask { refused: refused(&paths), mutable: mutable.join(", ") })
        }
    }

    /// Whether the write names this column, which may be present in the message.
    pub fn names(&self, column: Column, present: bool) -> bool {
        match self {
            Self::Present => present,
            Self::All => true,
            Self::Named(paths) => paths.iter().any(|path| path == column.as_str()),
        }
    }
}

/// What a mask cannot have, each path once: by its name where it looks like one, else by number, for it may be anything.
fn refused(paths: &[String]) -> String {
    let refused: BTreeSet<_> = paths.iter().filter(|path| !is_mutable(path)).map(String::as_str).collect();
    let (names, others): (Vec<&str>, Vec<&str>) = refused.into_iter().partition(|path| *path == "*" || is_name(path));
    let unnamed = names.len().saturating_sub(NAMED_PATHS) + others.len();
    let mut parts: Vec<_> = names.into_iter().take(NAMED_PATHS).map(told).collect();
    match unnamed {
        0 => {}
        1 => parts.push("1 path that is not named here".to_owned()),
        more => parts.push(format!("{more} paths that are not named here")),
    }
    parts.join(", ")
}

/// A refused path, and what was perhaps meant.
fn told(path: &str) -> String {
    match meant(path) {
        _ if path == "*" => "`*` among others".to_owned(),
        Some(column) => format!("`{path}` (did you mean `{}`?)", column.as_str()),
        None => format!("`{path}`"),
    }
}

/// The column whose name ends this path, in whatever case: `postalCode`, `profile.postal_code`, `Postal_Code`.
fn meant(path: &str) -> Option<Column> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let last = plain(path.rsplit('.').next()?);
    policy::mutable().find(|column| plain(column.as_str()) == last)
}

/// Whether the path looks like the name of a field: letters, digits and `_`, and dots between.
fn is_name(path: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    path.len() <= NAMED_PATH && path.split('.').all(is_part)
}

fn is_mutable(path: &str) -> bool {
    policy::mutable().any(|column| column.as_str() == path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sea_orm::Iterable as _;

    use super::*;

    fn parse<const N: usize>(paths: [&str; N]) -> Result<Mask> {
        parse_all(&paths)
    }

    fn parse_all(paths: &[&str]) -> Result<Mask> {
        Mask::parse(Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }))
    }

    #[test]
    fn none_and_an_empty_one_are_what_is_present() {
        assert_eq!((Mask::parse(None).ok(), parse([]).ok()), (Some(Mask::Present), Some(Mask::Present)));
    }

    #[test]
    fn exactly_the_mutable_columns_can_be_named() {
        let named: Vec<_> = Column::iter().map(|c| c.as_str()).filter(|path| parse([path]).is_ok()).collect();
        insta::assert_snapshot!(named.join(" "), @"first_name last_name email dob gender phone_number address address2 city state country postal_code");
    }

    #[test]
    fn everything_else_is_refused() {
        for path in [
            "",
            "id",
            "etag",
            "role",
            "locked",
            "locked_fields",
            "firstName",
            "profile.email",
            "email.x",
            "Email",
            " email",
        ] {
            assert!(matches!(parse([path]), Err(Error::InvalidUpdateMask { .. })), "{path:?}");
            assert!(matches!(parse(["email", path]), Err(Error::InvalidUpdateMask { .. })), "{path:?}");
        }
        assert!(matches!(parse(["*", "email"]), Err(Error::InvalidUpdateMask { .. })));
        assert!(matches!(parse(["*", "*"]), Err(Error::InvalidUpdateMask { .. })));
    }

    #[test]
    fn refused_paths_are_named_as_far_as_they_look_like_names_and_each_once() {
        let refused = |paths: &[&str]| match parse_all(paths) {
            Err(Error::InvalidUpdateMask { refused, mutable: _ }) => refused,
            other => panic!("{other:?}"),
        };
        let table = [
            (vec!["city", "nickname"], "`nickname`"),
            (vec!["role", "id", "role", "etag"], "`etag`, `id`, `role`"),
            (vec!["postalCode"], "`postalCode` (did you mean `postal_code`?)"),
            (vec!["Address2"], "`Address2` (did you mean `address2`?)"),
            (vec!["FIRST_NAME"], "`FIRST_NAME` (did you mean `first_name`?)"),
            (vec!["profile.city"], "`profile.city` (did you mean `city`?)"),
            (vec!["data.phoneNumber"], "`data.phoneNumber` (did you mean `phone_number`?)"),
            (vec!["city.name"], "`city.name`"),
            (vec!["*", "city"], "`*` among others"),
            (vec!["*", "*"], "`*` among others"),
            (vec![""], "1 path that is not named here"),
            (
                vec!["ada@example.com", "+15551234567", "1995-10-01", "a b", "city,state", "zo\u{eb}"],
                "6 paths that are not named here",
            ),
            (vec!["city.", ".city", "9", "_"], "4 paths that are not named here"),
            (vec!["*", "cities", " email"], "`*` among others, `cities`, 1 path that is not named here"),
        ];
        for (paths, told) in table {
            assert_eq!(refused(&paths), told, "{paths:?}");
        }
        let long = "x".repeat(NAMED_PATH + 1);
        assert_eq!(refused(&[&long, &long[1..]]), format!("`{}`, 1 path that is not named here", &long[1..]));
        let many: Vec<_> = (10..1000).map(|number| format!("x{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(refused(&many).ends_with("`x107`, `x108`, 980 paths that are not named here"), "{}", refused(&many));
    }

    proptest! {
        #[test]
        fn a_mask_names_what_it_lists_however_often_and_in_any_order(
            paths in proptest::collection::vec(proptest::sample::select(
                policy::mutable().map(|column| column.as_str().to_owned()).collect::<Vec<_>>()), 1..20),
            present: bool,
        ) {
            let mask = Mask::parse(Some(FieldMask { paths: paths.clone() })).expect("a mask");
            for column in Column::iter() {
                prop_assert_eq!(mask.names(column, present), paths.iter().any(|path| path == column.as_str()));
            }
        }

        #[test]
        fn any_path_is_named_or_refused(path in "[a-z_.*]{0,12}") {
            let known = policy::mutable().any(|column| column.as_str() == path) || path == "*";
            prop_assert_eq!(parse([&path]).is_ok(), known);
        }
    }
}
