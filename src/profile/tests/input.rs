//! The values of a request, and its violations.

use sea_orm::{IdenStatic as _, Value};
use uuid::Uuid;

use super::{
    super::{decide::tests::at, fields::Input, identifiers::MOST},
    Column,
};
use crate::{
    entity::{
        profile::{Gender, Role},
        profile_identifier::Identifier,
    },
    error::{Error, Violation},
    value::{self, Rule},
};

const ID: &str = "01890000-0000-7000-8000-000000000000";

/// What is made of the values, or the violations.
fn judged<T>(judge: impl FnOnce(&mut Input) -> T) -> Result<T, Vec<(String, Rule)>> {
    let mut input = Input::without_metadata();
    let made = judge(&mut input);
    input.finish(made).map_err(|error| match error {
        Error::InvalidFields(violations) => {
            violations.into_iter().map(|Violation { field, rule }| (field, rule)).collect()
        }
        error => panic!("{error}"),
    })
}

fn broken<T>(field: &str, rule: Rule) -> Result<T, Vec<(String, Rule)>> {
    Err(vec![(field.to_owned(), rule)])
}

#[test]
fn an_id_is_a_uuid_with_its_hyphens() {
    let id = Uuid::try_parse(ID).expect("a UUID");
    for text in [ID, &ID.to_uppercase(), &format!(" {ID}\n")] {
        assert_eq!(judged(|input| input.id("id", text)), Ok(id), "{text:?}");
    }
    for text in ["", " ", "\u{200b}"] {
        assert_eq!(judged(|input| input.id("id", text)), broken("id", Rule::Required), "{text:?}");
    }
    for text in ["1", &ID.replace('-', ""), &format!("{{{ID}}}"), &ID.replace('0', "x"), &format!("urn:uuid:{ID}")] {
        assert_eq!(judged(|input| input.id("id", text)), broken("id", Rule::Uuid), "{text:?}");
    }
}

#[test]
fn text_is_cleaned_before_it_is_judged_and_what_is_empty_is_none_or_missing() {
    assert_eq!(judged(|input| input.optional("ticket", " T-1 ", value::line::<3>)), Ok(Some("T-1".to_owned())));
    assert_eq!(judged(|input| input.optional("ticket", " ", value::line::<3>)), Ok(None));
    assert_eq!(judged(|input| input.required("reason", " typo ", value::line::<4>)), Ok("typo".to_owned()));
    assert_eq!(judged(|input| input.required("reason", " ", value::line::<4>)), broken("reason", Rule::Required));
    assert_eq!(judged(|input| input.required("reason", "typos", value::line::<4>)), broken("reason", Rule::Length(4)));
}

#[test]
fn each_column_has_its_rule_and_its_stored_form() {
    let date = chrono::NaiveDate::from_ymd_opt(1995, 10, 1);
    let text = |text: &str| Value::from(Some(text.to_owned()));
    let none = || Value::from(None::<String>);
    for (column, sent, stored) in [
        (Column::FirstName, " Ada ", "Ada".into()),
        (Column::LastName, "Byron", "Byron".into()),
        (Column::Email, "Ada@Example.com", text("ada@example.com")),
        (Column::Email, " ", none()),
        (Column::Dob, "1995-10-01", date.into()),
        (Column::Gender, "OTHER", Some(Gender::Other).into()),
        (Column::Gender, "GENDER_UNSPECIFIED", None::<Gender>.into()),
        (Column::Gender, "", None::<Gender>.into()),
        (Column::PhoneNumber, "+1 (555) 1234567", text("+15551234567")),
        (Column::Address, "1 Main Street", text("1 Main Street")),
        (Column::Address2, &"a".repeat(200), text(&"a".repeat(200))),
        (Column::City, &"a".repeat(100), text(&"a".repeat(100))),
        (Column::State, "ny", text("NY")),
        (Column::Country, "us", text("US")),
        (Column::PostalCode, "01010", text("01010")),
        (Column::Role, "ADMIN", Role::Admin.into()),
    ] {
        let columns = judged(|input| input.columns("profile.", vec![(column, sent.to_owned())], at(0))).expect(sent);
        assert!(matches!(columns.as_slice(), [(of, _)] if of.as_str() == column.as_str()));
        assert_eq!(columns[0].1, stored, "{sent}");
    }
    for (column, sent, rule) in [
        (Column::LastName, "", Rule::Required),
        (Column::Gender, "male", Rule::Gender),
        (Column::Address, &"a".repeat(201), Rule::Length(200)),
        (Column::City, &"a".repeat(101), Rule::Length(100)),
        (Column::Role, "", Rule::Role),
        (Column::Locked, "true", Rule::OutputOnly),
    ] {
        let refused = judged(|input| input.columns("profile.", vec![(column, sent.to_owned())], at(0))).err();
        assert_eq!(refused, Some(vec![(format!("profile.{}", column.as_str()), rule)]));
    }
}

#[test]
fn the_same_identifier_twice_counts_once_and_more_than_twenty_are_too_many() {
    let pairs = |count: usize| -> Vec<_> { (0..count).map(|n| (" mrn ".to_owned(), n.to_string())).collect() };
    let mut sent = pairs(MOST);
    sent.push(("mrn".to_owned(), " 7".to_owned()));
    let judge = |sent: &[(String, String)]| judged(|input| input.identifiers("identifiers", sent));
    let texts: Vec<_> = judge(&sent).expect("identifiers").iter().map(Identifier::text).collect();
    assert_eq!((texts.len(), texts[0].as_str(), texts[20].as_str()), (21, "mrn|0", "mrn|7"));
    assert_eq!(judge(&pairs(MOST + 1)).err(), Some(vec![("identifiers".to_owned(), Rule::TooMany(20))]));
    let refused = judge(&[("mrn".to_owned(), "1".to_owned()), ("MRN".to_owned(), "a|b".to_owned())]).err();
    let fields = [("identifiers[1].system", Rule::System), ("identifiers[1].value", Rule::VerticalLine)];
    assert_eq!(refused, Some(fields.map(|(field, rule)| (field.to_owned(), rule)).to_vec()));
}

#[test]
fn all_violations_are_told_at_once() {
    let refused = judged(|input| {
        input.id("id", "1");
        input.optional("ticket", "ab", value::line::<1>);
        input.judge::<()>("page_size", Err(Rule::Negative));
    });
    let fields = [("id", Rule::Uuid), ("ticket", Rule::Length(1)), ("page_size", Rule::Negative)];
    assert_eq!(refused, Err(fields.map(|(field, rule)| (field.to_owned(), rule)).to_vec()));
    let elsewhere = Violation { field: "case_id".to_owned(), rule: Rule::Required };
    let mut input = Input::without_metadata();
    input.id("id", "1");
    let refused = input.and::<()>(Err(Error::InvalidFields(vec![elsewhere])));
    assert!(matches!(refused, Err(Error::InvalidFields(violations)) if violations.len() == 2));
    let failed = Input::without_metadata().and::<()>(Err(Error::InvalidPageToken));
    assert!(matches!(failed, Err(Error::InvalidPageToken)));
}

/// Most clients take 8 KiB of headers: at most 20 violations, and less than 7,500 bytes of them, but always one.
#[test]
fn as_many_violations_are_named_as_fit_into_headers() {
    // `is required` with a field of 164 bytes fills 4 * (164 + 11) + 50 = 750 of them.
    for (length, named) in [(1, 20), (163, 10), (164, 9), (5000, 1)] {
        let field = "f".repeat(length);
        let refused = judged(|input| (0..30).for_each(|_| input.judge(field.clone(), Err(Rule::Required))));
        assert_eq!(refused.expect_err("violations").len(), named, "{length}");
    }
}
