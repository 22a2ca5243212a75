//! Update masks (AIP-134, AIP-161).

use prost_types::FieldMask;
use sea_orm::IdenStatic as _;

use crate::{
    entity::profile::Column,
    error::{Error, Result},
    profile::policy,
};

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
        } else if paths.iter().all(|path| policy::mutable().any(|column| column.as_str() == path)) {
            Ok(Self::Named(paths))
        } else {
            let mutable: Vec<_> = policy::mutable().map(|column| column.as_str()).collect();
            Err(Error::InvalidUpdateMask(mutable.join(", ")))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sea_orm::Iterable as _;

    use super::*;

    fn parse<const N: usize>(paths: [&str; N]) -> Result<Mask> {
        Mask::parse(Some(FieldMask { paths: paths.map(str::to_owned).to_vec() }))
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
            assert!(matches!(parse([path]), Err(Error::InvalidUpdateMask(_))), "{path:?}");
            assert!(matches!(parse(["email", path]), Err(Error::InvalidUpdateMask(_))), "{path:?}");
        }
        assert!(matches!(parse(["*", "email"]), Err(Error::InvalidUpdateMask(_))));
        assert!(matches!(parse(["*", "*"]), Err(Error::InvalidUpdateMask(_))));
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
