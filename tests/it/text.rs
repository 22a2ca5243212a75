//! Text as people copy it: what is removed, what is composed, what is empty, and what is refused.

use serde_json::json;

use crate::harness::{Service, client, program};

#[tokio::test]
async fn what_copying_brings_along_is_removed_from_every_text() {
    let (_service, north) = client().await;
    for (sent, stored) in [
        ("\u{feff}Ada", "Ada"),
        ("A\u{ad}d\u{200b}a\u{2060}", "Ada"),
        ("\u{200f}\u{61c}\u{200e} Ada\u{a0}", "Ada"),
        ("Zoe\u{200b}\u{308}", "Zo\u{eb}"),
        ("\u{fa19}", "\u{795e}\u{fe00}"),
        ("\u{915}\u{94d}\u{200d}\u{937}", "\u{915}\u{94d}\u{200d}\u{937}"),
        ("\u{9089}\u{e0101}", "\u{9089}\u{e0101}"),
    ] {
        let person = north.person(json!({ "firstName": sent, "address": sent })).await;
        assert_eq!((&person["firstName"], &person["address"]), (&json!(stored), &json!(stored)), "{sent:?}");
        let again = json!({ "firstName": stored, "address": stored, "etag": "\u{feff}\"1\"" });
        assert_eq!(north.patch(&person, again).await, Ok(person));
    }
}

#[tokio::test]
async fn text_of_nothing_that_can_be_seen_is_empty() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "city": "London" })).await;
    for blank in [
        "\u{200b}",
        "\u{3164}",
        "\u{feff}",
        "\u{2800}",
        "\u{fe0f}",
        "\u{34f}",
        "\u{301}",
        "\u{202e}",
        "\u{ffa0} \u{2028}",
    ] {
        let refused = north.create(json!({ "firstName": blank, "lastName": blank })).await.expect_err(blank);
        assert_eq!(refused.message, "Invalid fields: profile.first_name is required; profile.last_name is required.");
        assert_eq!(refused.field_reasons, ["REQUIRED", "REQUIRED"]);
        let valid = json!({ "profile": { "id": ada["id"], "city": blank }, "validateOnly": true });
        let cleared = north.call("ProfileService/PatchProfile", valid).await.expect("a clearing");
        assert_eq!(cleared.get("city"), None, "{blank:?}");
        let refused = north.correct(&ada, json!({ "city": "x" }), blank).await.expect_err(blank);
        assert_eq!(refused.paths(), ["reason"]);
    }
}

#[tokio::test]
async fn what_no_text_may_hold_is_refused_with_its_reason_in_ids_and_reasons_too() {
    let (_service, north) = client().await;
    let ada = north.person(json!({})).await;
    for (character, reason) in [
        ('\t', "CONTROL_CHARACTER"),
        ('\u{9f}', "CONTROL_CHARACTER"),
        ('\u{2028}', "SEPARATOR"),
        ('\u{2029}', "SEPARATOR"),
        ('\u{202a}', "BIDIRECTIONAL_CONTROL"),
        ('\u{202e}', "BIDIRECTIONAL_CONTROL"),
        ('\u{2066}', "BIDIRECTIONAL_CONTROL"),
        ('\u{2069}', "BIDIRECTIONAL_CONTROL"),
        ('\u{fdd0}', "NONCHARACTER"),
        ('\u{10ffff}', "NONCHARACTER"),
    ] {
        let text = format!("a{character}b");
        let request = json!({
            "profile": { "id": ada["id"], "lastName": text, "city": text },
            "reason": text, "ticket": text, "requestId": text,
        });
        let refused = north.call("SupportService/CorrectProfile", request).await.expect_err(reason);
        assert_eq!(refused.paths(), ["profile.last_name", "profile.city", "reason", "ticket", "request_id"]);
        assert_eq!(refused.field_reasons, [reason; 5], "{character:?}");
        let refused = north.report(&text, &ada, "OPEN", "2026-01-05T10:00:00Z").await.expect_err(reason);
        assert_eq!(refused.paths(), ["case_id"]);
        assert_eq!(refused.field_reasons, [reason]);
    }
    let selectors = json!({ "firstName": "a\u{fe0f}\u{fe0f}", "lastName": "Byron" });
    let refused = north.create(selectors).await.expect_err("more selectors than characters");
    assert_eq!(refused.field_reasons, ["TOO_MANY_VARIATION_SELECTORS"]);
}

#[tokio::test]
async fn ids_are_the_same_with_and_without_what_cannot_be_seen() {
    let (_service, north) = client().await;
    let create = |id: &str| json!({ "profile": { "firstName": "Ada", "lastName": "Byron" }, "requestId": id });
    let ada = north.call("ProfileService/CreateProfile", create("r-1")).await.expect("created");
    let copied = json!({ "id": format!("\u{feff}{}\u{200b}", ada["id"].as_str().expect("an id")) });
    assert_eq!(north.get(&copied).await, Ok(ada.clone()));
    let other = north.call("ProfileService/CreateProfile", create("r-2")).await.expect("created");
    assert_ne!(other["id"], ada["id"]);
    let report = |case| north.report(case, &ada, "OPEN", "2026-01-05T10:00:00Z");
    assert_eq!(report("c\u{200b}-1").await.expect("reported"), report("c-1").await.expect("reported"));
}

#[tokio::test]
async fn a_phone_number_is_taken_as_address_books_paste_it() {
    let (_service, north) = client().await;
    let ada = north.person(json!({ "phoneNumber": "\u{202d}+1\u{a0}(551)\u{a0}344\u{2011}6634\u{202c}" })).await;
    assert_eq!(ada["phoneNumber"], "+15513446634");
    for pasted in ["\u{2066}+1 551 344 6634\u{2069}", "+1\u{2013}551\u{2212}344.66\u{ff0d}34", "+1 551\n344\t6634"] {
        let found = north.call("SupportService/FindProfile", json!({ "phoneNumber": pasted })).await;
        assert_eq!(found, Ok(ada.clone()), "{pasted:?}");
    }
    let trunk =
        north.patch(&ada, json!({ "phoneNumber": "+44\u{a0}(0)20 7946 0958" })).await.expect_err("a wrong number");
    assert_eq!(trunk.field_reasons, ["TRUNK_ZERO"]);
    assert_eq!(
        trunk.message,
        "Invalid fields: profile.phone_number must be without the trunk zero (0), which is dialed inside the country \
         only: +442079460958, not +44 (0)20 7946 0958."
    );
}

#[tokio::test]
async fn the_domain_of_an_email_is_a_host_name() {
    let (_service, north) = client().await;
    for domain in
        ["example.com?subject=x", "1.1", "localhost", "example.com.", "-example.com", "[127.0.0.1]", "b\u{fc}cher.de"]
    {
        let email = format!("john@{domain}");
        let refused = north.update(json!({ "email": email, "city": "x" })).await.expect_err(domain);
        assert_eq!(refused.paths(), ["data.email"]);
        assert_eq!(refused.field_reasons, ["INVALID_EMAIL_DOMAIN"]);
    }
    north.person(json!({ "email": "john@xn--bcher-kva.de" })).await;
}

#[tokio::test]
async fn names_of_organizations_and_keys_are_judged_alike() {
    let service = Service::start();
    service.run(["organization", "create", "nor\u{200b}th\u{feff}"]);
    let run = |arguments: &[&str]| {
        let mut command = program([]);
        let output = command.args(arguments).env("PROFILE_DATABASE_URL", service.database.url()).output();
        let output = output.expect("a program");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    for (name, code, told) in [
        ("north", 1, "there is an organization \"north\" already"),
        ("\u{3164}", 2, "a name is required"),
        ("so\u{202e}uth", 2, "the name must not contain bidirectional controls"),
        ("so\u{2028}uth", 2, "the name must not contain the separators"),
    ] {
        let (ended, said) = run(&["organization", "create", name]);
        assert!(ended == Some(code) && said.contains(told), "{name:?}: {ended:?} {said}");
    }
    let (ended, said) = run(&["key", "create", "--organization", "north", "--name", "\u{200b}", "--scope", "support"]);
    assert!(ended == Some(2) && said.contains("a name is required"), "{ended:?} {said}");
}
