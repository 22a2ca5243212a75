//! Who may change what: RPC x role x case status x field, as one table. A changed rule is a changed row.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::harness::{Client, Outcome, client};

const ROLES: [&str; 4] = ["USER", "PROVIDER", "SUPPORT", "ADMIN"];
const STATUSES: [&str; 8] =
    ["none", "OPEN", "ASSIGNED", "IN_PROGRESS", "APPROVED", "REJECTED", "NO_DECISION", "CANCELLED"];
const RPCS: [&str; 6] =
    ["ReplaceProfile", "PatchProfile", "UpdateProfile", "CorrectProfile", "AddIdentifier", "RemoveIdentifier"];

/// Each field, and a value that no one has yet.
pub const FIELDS: [(&str, &str); 13] = [
    ("firstName", "Eve"),
    ("lastName", "King"),
    ("email", "new@example.com"),
    ("dob", "1999-01-01"),
    ("gender", "OTHER"),
    ("phoneNumber", "+15550001"),
    ("address", "1 New Street"),
    ("address2", "Flat 2"),
    ("city", "Ockham"),
    ("state", "NY"),
    ("country", "GB"),
    ("postalCode", "01010"),
    ("identifiers", "7"),
];

#[tokio::test]
async fn who_may_change_what() {
    let (_service, north) = client().await;
    let mut table = format!("{:<17}{:<9}", "", "");
    table.extend(FIELDS.map(|(field, _)| format!("{field:<12}")));
    table.push_str("statuses of the case");
    for rpc in RPCS {
        for role in ROLES {
            let mut rows: Vec<(String, Vec<&str>)> = Vec::new();
            for status in STATUSES {
                let person = person(&north, role, status, rpc).await;
                let mut row = String::new();
                for (field, value) in FIELDS {
                    let outcome = change(&north, rpc, &person, field, value).await;
                    write!(row, "{:<12}", verdict(rpc, &person, field, outcome)).expect("text");
                }
                match rows.iter_mut().find(|(known, _)| *known == row) {
                    Some((_, statuses)) => statuses.push(status),
                    None => rows.push((row, vec![status])),
                }
            }
            for (row, statuses) in rows {
                write!(table, "\n{rpc:<17}{role:<9}{row}{}", statuses.join(" ")).expect("text");
            }
        }
    }
    insta::assert_snapshot!(table, @r"
                              firstName   lastName    email       dob         gender      phoneNumber address     address2    city        state       country     postalCode  identifiers statuses of the case
    ReplaceProfile   USER     yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    ReplaceProfile   USER     LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    ReplaceProfile   PROVIDER yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    ReplaceProfile   PROVIDER LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    ReplaceProfile   SUPPORT  yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    ReplaceProfile   SUPPORT  LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    ReplaceProfile   ADMIN    yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    ReplaceProfile   ADMIN    LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    PatchProfile     USER     yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    PatchProfile     USER     LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    PatchProfile     PROVIDER yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    PatchProfile     PROVIDER LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    PatchProfile     SUPPORT  yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    PatchProfile     SUPPORT  LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    PatchProfile     ADMIN    yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    PatchProfile     ADMIN    LOCKED      LOCKED      yes         LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    UpdateProfile    USER     yes         yes         selects     yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN CANCELLED
    UpdateProfile    USER     LOCKED      LOCKED      selects     LOCKED      LOCKED      yes         yes         yes         yes         yes         yes         yes         ignored     ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION
    UpdateProfile    PROVIDER NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    UpdateProfile    SUPPORT  NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    UpdateProfile    ADMIN    NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED NOT ALLOWED none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    CorrectProfile   USER     yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    CorrectProfile   PROVIDER yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    CorrectProfile   SUPPORT  yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    CorrectProfile   ADMIN    yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         yes         ignored     none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    AddIdentifier    USER     -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    AddIdentifier    PROVIDER -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    AddIdentifier    SUPPORT  -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    AddIdentifier    ADMIN    -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    RemoveIdentifier USER     -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    RemoveIdentifier PROVIDER -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    RemoveIdentifier SUPPORT  -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    RemoveIdentifier ADMIN    -           -           -           -           -           -           -           -           -           -           -           -           yes         none OPEN ASSIGNED IN_PROGRESS APPROVED REJECTED NO_DECISION CANCELLED
    ");
}

async fn person(north: &Client, role: &str, status: &str, rpc: &str) -> Json {
    let name = format!("{role}.{status}.{rpc}");
    let fields = json!({ "email": format!("{name}@example.com"), "identifiers": [{ "system": "mrn", "value": name }] });
    let person = north.person(fields).await;
    north.set_role(&person, role).await.expect("a role");
    if status != "none" {
        let case = format!("{role} {status} {rpc}");
        north.report(&case, &person, status, "2026-01-05T10:00:00Z").await.expect("a report");
    }
    person
}

/// Tries to change one field.
async fn change(north: &Client, rpc: &str, person: &Json, field: &str, value: &str) -> Outcome {
    if let "AddIdentifier" | "RemoveIdentifier" = rpc {
        let identifier = if rpc == "AddIdentifier" {
            json!({ "system": "mrn", "value": value })
        } else {
            person["identifiers"][0].clone()
        };
        let request = json!({ "profileId": person["id"], "identifier": identifier, "validateOnly": true });
        return north.call(&format!("ProfileIdentifierService/{rpc}"), request).await;
    }
    let mut fields = json!({ "id": person["id"] });
    if rpc == "ReplaceProfile" {
        fields = person.clone();
        fields["etag"] = json!("");
    }
    if rpc == "UpdateProfile" {
        fields = json!({ "email": person["email"] });
    }
    if !(rpc == "UpdateProfile" && field == "email") {
        fields[field] =
            if field == "identifiers" { json!([{ "system": "mrn", "value": value }]) } else { json!(value) };
    }
    match rpc {
        "UpdateProfile" => {
            north.call("ProfileService/UpdateProfile", json!({ "data": fields, "validateOnly": true })).await
        }
        "CorrectProfile" => {
            let request = json!({ "profile": fields, "reason": "why", "validateOnly": true });
            north.call("SupportService/CorrectProfile", request).await
        }
        rpc => north.call(&format!("ProfileService/{rpc}"), json!({ "profile": fields, "validateOnly": true })).await,
    }
}

fn verdict(rpc: &str, person: &Json, field: &str, outcome: Outcome) -> &'static str {
    match outcome {
        Ok(_) if rpc.ends_with("Identifier") && field != "identifiers" => "-",
        Ok(changed) if field == "identifiers" && changed[field] == person[field] => "ignored",
        Ok(_) if rpc == "UpdateProfile" && field == "email" => "selects",
        Ok(_) => "yes",
        Err(refused) if refused.reason == "DEMOGRAPHICS_LOCKED" => "LOCKED",
        Err(refused) if refused.reason == "UPDATE_NOT_ALLOWED" => "NOT ALLOWED",
        Err(refused) => panic!("{rpc} {field}: {refused:?}"),
    }
}
