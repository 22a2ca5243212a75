//! What changes do across these modules, one promise a test. Properties and the policy's table are with their modules.

mod cases;
mod erasures;
mod groups;
mod history;
mod identifiers;
mod input;
mod requests;

use sea_orm::Value;
use uuid::Uuid;

use super::{
    change::{Change, Claim, Target},
    decide::tests::{author, change, set},
    group::{Dependency, Group, Step},
    policy::Rpc,
};
use crate::entity::profile::{Column, Model};

/// Another organization than the author's.
const ELSEWHERE: Uuid = Uuid::from_u128(9);

fn patch(profile: &Model, column: Column, text: &str) -> Change {
    change(Rpc::PatchProfile, Target::Id(profile.id), set(vec![(column, Value::from(Some(text)))]))
}

fn with_request_id(change: Change) -> Change {
    Change { claim: Some(Claim { request_id: "r".to_owned(), payload_sha256: vec![1] }), ..change }
}

/// Decides the next change of a group: what it depends on and its error, if it is one, or none where it is for later.
fn next(group: &mut Group, change: &Change) -> Option<(Dependency, Option<String>)> {
    match group.decide(&author(), change, super::decide::tests::at(1)) {
        Step::Decided { result, depends_on, .. } => Some((depends_on, result.err().map(|error| error.to_string()))),
        Step::Later => None,
    }
}
