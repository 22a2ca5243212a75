//! Finding people: by ids, by what is theirs alone, and by name.

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Client, Database, Outcome, client};

const BATCH: &str = "ProfileQueryService/BatchGetProfiles";
const LOOK_UP: &str = "ProfileQueryService/LookUpProfile";
const LIST: &str = "ProfileQueryService/ListProfiles";
const COUNT: &str = "ProfileQueryService/CountProfiles";

#[tokio::test]
async fn a_batch_is_answered_in_its_order_each_once_and_says_what_there_is_not() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({})).await);
    let foreign = south.person(json!({})).await;
    let nobody = Uuid::now_v7().to_string();
    let ids = [&eve["id"], &json!(nobody), &ada["id"], &foreign["id"], &eve["id"], &json!(nobody.to_uppercase())];
    let answer = north.call(BATCH, json!({ "ids": ids })).await.expect("an answer");
    assert_eq!(answer, json!({ "profiles": [eve, ada], "missingIds": [nobody, foreign["id"]] }));
}

#[tokio::test]
async fn a_batch_of_a_hundred_is_taken_and_each_bad_id_is_named() {
    let (_service, north) = client().await;
    let ids = |number: usize, id: &str| json!({ "ids": vec![id; number] });
    let nobody = Uuid::now_v7().to_string();
    assert_eq!(north.call(BATCH, ids(100, &nobody)).await, Ok(json!({ "missingIds": [nobody] })));

    let refused = async |request: Json| north.call(BATCH, request).await.expect_err("bad ids");
    let none = refused(json!({})).await;
    assert_eq!(
        (none.code, none.paths(), none.field_reasons.clone()),
        (Code::InvalidArgument, vec!["ids"], vec!["REQUIRED".to_owned()])
    );
    let many = refused(ids(101, &nobody)).await;
    assert_eq!((many.paths(), many.field_reasons.clone()), (vec!["ids"], vec!["TOO_MANY".to_owned()]));
    assert_eq!(many.message, "Invalid fields: ids must not be more than 100.");
    let mixed = refused(json!({ "ids": [nobody, "", nobody, "ada"] })).await;
    assert_eq!(
        (mixed.paths(), mixed.field_reasons.clone()),
        (vec!["ids[1]", "ids[3]"], vec!["REQUIRED".to_owned(), "INVALID_UUID".to_owned()])
    );
    // More would not fit into the headers that clients take.
    let all = refused(ids(1000, "ada")).await;
    assert_eq!((all.paths().len(), all.paths()[0], all.paths()[17]), (18, "ids", "ids[16]"));
}

#[tokio::test]
async fn a_profile_is_looked_up_by_its_stored_form_within_the_organization() {
    let (mut service, north) = client().await;
    let south = service.organization("south").await;
    let ada = north.person(json!({ "email": "ada@example.com", "phoneNumber": "+15550001" })).await;
    for told in [json!({ "email": " ADA@example.com" }), json!({ "phoneNumber": "+1 (555) 0001" })] {
        assert_eq!(north.call(LOOK_UP, told.clone()).await, Ok(ada.clone()));
        assert_eq!(south.call(LOOK_UP, told).await.expect_err("not theirs").reason, "PROFILE_NOT_FOUND");
    }
    for (told, path) in
        [(json!({}), "email"), (json!({ "email": "ada" }), "email"), (json!({ "phoneNumber": "" }), "phone_number")]
    {
        assert_eq!(north.call(LOOK_UP, told).await.expect_err("nothing told").paths(), [path]);
    }
    service.signal("TERM");
    let (_, log) = service.end().await;
    let noted = log.iter().filter(|line| line.contains("LookUpProfile") && line.contains(text(&ada["id"]))).count();
    assert_eq!(noted, 2);
}

#[tokio::test]
async fn names_are_listed_last_name_first_as_people_take_them_for_the_same() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    south.person(json!({ "lastName": "Muller" })).await;
    for (last, first) in [
        ("\u{d8}sterberg", "Ada"),
        ("Osterberg", "Ada"),
        ("M\u{fc}ller", "Zoe"),
        ("MULLER", "Anna"),
        ("Mullers", "Ada"),
        ("\u{ff2d}u\u{308}ller", "Eva"),
        ("Doe", "Jane"),
        ("Dole", "John"),
        ("Doe", "John"),
        ("De la Cruz", "Ana Mar\u{ed}a"),
    ] {
        north.person(json!({ "lastName": last, "firstName": first })).await;
    }
    for (prefix, found) in [
        (
            "",
            &[
                "De la Cruz Ana Mar\u{ed}a",
                "Doe Jane",
                "Doe John",
                "Dole John",
                "MULLER Anna",
                "\u{ff2d}\u{fc}ller Eva",
                "M\u{fc}ller Zoe",
                "Mullers Ada",
                "Osterberg Ada",
                "\u{d8}sterberg Ada",
            ][..],
        ),
        ("mull", &["MULLER Anna", "\u{ff2d}\u{fc}ller Eva", "M\u{fc}ller Zoe", "Mullers Ada"]),
        ("M\u{dc}LLER ", &["MULLER Anna", "\u{ff2d}\u{fc}ller Eva", "M\u{fc}ller Zoe", "Mullers Ada"]),
        ("muller e", &["\u{ff2d}\u{fc}ller Eva"]),
        ("doe j", &["Doe Jane", "Doe John"]),
        ("j", &[]),
        ("de la cruz ana maria", &["De la Cruz Ana Mar\u{ed}a"]),
        ("o", &["Osterberg Ada"]),
        ("\u{f8}", &["\u{d8}sterberg Ada"]),
        ("%", &[]),
        ("_", &[]),
        ("doe john x", &[]),
    ] {
        let list = north.call(LIST, json!({ "namePrefix": prefix })).await.expect("a list");
        assert_eq!(names(&list), found, "{prefix:?}");
        let count = north.call(COUNT, json!({ "namePrefix": prefix })).await.expect("a number");
        assert_eq!(count["count"].as_u64().unwrap_or_default(), found.len() as u64, "{prefix:?}");
    }
}

#[tokio::test]
async fn with_a_date_of_birth_words_stand_in_any_order() {
    let (_service, north) = client().await;
    for (last, first, dob) in [
        ("De la Cruz", "Ana Mar\u{ed}a", "1985-12-10"),
        ("Mar\u{ed}n", "Anabel", "1985-12-10"),
        ("Doe", "Ana", "1985-12-11"),
        ("Roe", "Ana", ""),
    ] {
        north.person(json!({ "lastName": last, "firstName": first, "dob": dob })).await;
    }
    for (words, dob, found) in [
        ("", "1985-12-10", &["De la Cruz Ana Mar\u{ed}a", "Mar\u{ed}n Anabel"][..]),
        ("ana mar", "1985-12-10", &["De la Cruz Ana Mar\u{ed}a", "Mar\u{ed}n Anabel"]),
        ("MAR\u{cd}  ana", "1985-12-10", &["De la Cruz Ana Mar\u{ed}a", "Mar\u{ed}n Anabel"]),
        ("maria ana", "1985-12-10", &["De la Cruz Ana Mar\u{ed}a"]),
        ("maria cruz de", "1985-12-10", &["De la Cruz Ana Mar\u{ed}a"]),
        ("ruz", "1985-12-10", &[]),
        ("ana doe", "1985-12-10", &[]),
        ("ana", "1985-12-11", &["Doe Ana"]),
        ("", "1985-12-12", &[]),
    ] {
        let request = json!({ "namePrefix": words, "dob": dob });
        let list = north.call(LIST, request.clone()).await.expect("a list");
        assert_eq!(names(&list), found, "{words:?} {dob}");
        let count = north.call(COUNT, request).await.expect("a number");
        assert_eq!(count["count"].as_u64().unwrap_or_default(), found.len() as u64, "{words:?} {dob}");
    }
}

#[tokio::test]
async fn who_is_renamed_or_reborn_is_found_as_he_is_now() {
    let (_service, north) = client().await;
    let found = async |request: Json| north.call(COUNT, request).await.expect("a number")["count"] == 1;
    let ada = north.person(json!({ "lastName": "Byron", "dob": "1985-12-10" })).await;
    let (byron, king) = (json!({ "namePrefix": "byron ada" }), json!({ "namePrefix": "king augusta" }));
    let (tenth, eleventh) = (json!({ "dob": "1985-12-10" }), json!({ "dob": "1985-12-11" }));
    north.patch(&ada, json!({ "city": "London" })).await.expect("patched");
    assert!(found(byron.clone()).await && found(tenth.clone()).await);
    north.patch(&ada, json!({ "lastName": "King" })).await.expect("patched");
    assert!(!found(byron).await && found(json!({ "namePrefix": "king ada" })).await);
    north.correct(&ada, json!({ "firstName": "Augusta" }), "why").await.expect("corrected");
    assert!(found(king.clone()).await && found(tenth.clone()).await);
    north.patch(&ada, json!({ "dob": "1985-12-11" })).await.expect("patched");
    assert!(found(king).await && !found(tenth).await && found(eleventh.clone()).await);
    assert!(found(json!({ "namePrefix": "aug", "dob": "1985-12-11" })).await);
    north.patch(&ada, json!({ "dob": "" })).await.expect("patched");
    assert!(!found(eleventh).await);
}

#[tokio::test]
async fn pages_show_each_profile_once_whatever_happens_to_those_that_were_shown() {
    let (service, north) = client().await;
    let mut people = Vec::new();
    for number in 0..12 {
        // Some have one name: their ids decide.
        people
            .push(north.person(json!({ "lastName": format!("Doe {}", number / 3), "city": number.to_string() })).await);
    }
    let mut shown = Vec::new();
    let mut token = String::new();
    for page in 0.. {
        let list = list(&north, 1, &token, json!({ "namePrefix": "doe" })).await.expect("a page");
        let profile = &list["profiles"][0];
        shown.push(text(&profile["city"]).to_owned());
        // The last one that was shown goes elsewhere, or goes.
        if page % 3 == 0 {
            north.patch(profile, json!({ "lastName": "Aaron" })).await.expect("renamed");
        } else if page % 3 == 1 {
            let city = text(&profile["city"]);
            service.database.execute(&format!("DELETE FROM profile WHERE city = '{city}'")).await;
        }
        match list["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(shown, (0..12).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_has_50_profiles_or_as_many_as_are_asked_for_up_to_200() {
    let (service, north) = client().await;
    let organization = organization(&north).await;
    people(&service.database, &organization, 1000, 250).await;
    for (size, found) in [(0, 50), (1, 1), (50, 50), (199, 199), (200, 200), (201, 200), (i32::MAX, 200)] {
        let page = list(&north, size, "", json!({})).await.expect("a page");
        assert_eq!(names(&page).len(), found, "{size}");
        assert!(page["nextPageToken"].is_string());
    }
    let first = list(&north, 200, "", json!({})).await.expect("a page");
    let last = list(&north, 200, text(&first["nextPageToken"]), json!({})).await.expect("a page");
    assert_eq!((names(&last).len(), last.get("nextPageToken")), (50, None));
    let whole: HashSet<_> = [names(&first), names(&last)].concat().into_iter().collect();
    assert_eq!(whole.len(), 250);
    assert!([names(&first), names(&last)].concat().is_sorted());
}

#[tokio::test]
async fn a_page_of_large_profiles_ends_early_and_the_next_one_goes_on() {
    let (_service, north) = client().await;
    let wide = |length: usize| "\u{1f600}".repeat(length);
    for number in 0..100 {
        let fields = json!({
            "lastName": format!("{number:03}{}", wide(97)), "firstName": wide(100), "city": wide(100),
            "address": wide(200), "address2": wide(200),
        });
        north.person(fields).await;
    }
    let (mut shown, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = list(&north, 200, &token, json!({})).await.expect("a page");
        assert!(page.to_string().len() < 300 * 1024);
        shown.extend(names(&page).iter().map(|name| name[..3].to_owned()));
        pages += 1;
        match page["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(shown, (0..100).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    assert_eq!(pages, 2);
}

#[tokio::test]
async fn a_token_is_of_its_list_and_organization_and_tells_no_name() {
    let (service, north) = client().await;
    let south = service.organization("south").await;
    for caller in [&north, &south] {
        for first in ["Ada", "Eve", "Kim"] {
            let person = caller.person(json!({ "firstName": first, "lastName": "Doe", "dob": "1985-12-10" })).await;
            caller.patch(&person, json!({ "city": "London" })).await.expect("patched");
        }
    }
    let filter = json!({ "namePrefix": "DOE" });
    let first = list(&north, 1, "", filter.clone()).await.expect("a page");
    let token = text(&first["nextPageToken"]);
    let clear = hex::decode(token).expect("hex");
    assert!(!clear.windows(3).any(|bytes| bytes.eq_ignore_ascii_case(b"doe") || bytes.eq_ignore_ascii_case(b"ada")));

    // The same filter by another key of the organization, in other words.
    let other = service.client(&service.key("north", &["profiles.list"])).await;
    let second = list(&other, 1, &format!(" {token} "), json!({ "namePrefix": " do\u{ff45}" })).await.expect("a page");
    assert_eq!(names(&second), ["Doe Eve"]);

    let request = json!({ "id": first["profiles"][0]["id"], "pageSize": 1 });
    let changes = north.call("SupportService/ListProfileChanges", request.clone()).await.expect("changes");
    let changes_token = text(&changes["nextPageToken"]);
    let mut flipped = token.to_owned();
    flipped.replace_range(60..61, if &token[60..61] == "0" { "1" } else { "0" });
    for (caller, token, filter) in [
        (&south, token, filter.clone()),
        (&north, token, json!({})),
        (&north, token, json!({ "namePrefix": "do" })),
        (&north, token, json!({ "namePrefix": "doe", "dob": "1985-12-10" })),
        (&north, &token[2..], filter.clone()),
        (&north, &flipped, filter.clone()),
        (&north, changes_token, filter.clone()),
        (&north, "00", filter.clone()),
        (&north, "next", filter.clone()),
    ] {
        let refused = list(caller, 1, token, filter).await.expect_err("another list");
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_PAGE_TOKEN"));
    }
    let mut changes = request;
    changes["pageToken"] = json!(token);
    let refused = north.call("SupportService/ListProfileChanges", changes).await.expect_err("another list");
    assert_eq!(refused.reason, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn a_list_names_everything_that_is_wrong_with_it() {
    let (_service, north) = client().await;
    let bad = json!({ "pageSize": -1, "pageToken": "x", "namePrefix": "x".repeat(201), "dob": "1985-13-10" });
    let refused = north.call(LIST, bad).await.expect_err("bad");
    assert_eq!((refused.code, refused.paths()), (Code::InvalidArgument, vec!["page_size", "name_prefix", "dob"]));
    assert_eq!(refused.field_reasons, ["NEGATIVE", "TOO_LONG", "INVALID_DATE_OF_BIRTH"]);
    let bad = json!({ "namePrefix": "a\u{7}", "dob": "never" });
    assert_eq!(north.call(COUNT, bad).await.expect_err("bad").paths(), ["name_prefix", "dob"]);
    list(&north, 1, "", json!({ "namePrefix": "x".repeat(200) })).await.expect("a list");
}

#[tokio::test]
async fn up_to_10_000_are_counted() {
    let (service, north) = client().await;
    assert_eq!(north.call(COUNT, json!({})).await, Ok(json!({})));
    let organization = organization(&north).await;
    people(&service.database, &organization, 0, 10_000).await;
    assert_eq!(north.call(COUNT, json!({})).await, Ok(json!({ "count": 10_000 })));
    assert_eq!(north.call(COUNT, json!({ "namePrefix": "doe 0000" })).await, Ok(json!({ "count": 10 })));
    people(&service.database, &organization, 10_000, 1).await;
    assert_eq!(north.call(COUNT, json!({})).await, Ok(json!({ "count": 10_000, "truncated": true })));
    assert_eq!(north.call(COUNT, json!({ "dob": "1985-12-10" })).await.expect("a number")["truncated"], true);
}

#[tokio::test]
async fn the_log_names_whom_a_call_has_sent() {
    let (mut service, north) = client().await;
    let (ada, eve) = (north.person(json!({})).await, north.person(json!({ "firstName": "Eve" })).await);
    north.call(BATCH, json!({ "ids": [eve["id"], Uuid::now_v7().to_string()] })).await.expect("an answer");
    list(&north, 0, "", json!({})).await.expect("a page");
    service.signal("TERM");
    let (_, log) = service.end().await;
    let line = |rpc: &str| -> Json {
        let line = log.iter().find(|line| line.contains(rpc)).expect("a line");
        serde_json::from_str::<Json>(line).expect("JSON")["span"].clone()
    };
    let (batch, list) = (line("BatchGetProfiles"), line("ListProfiles"));
    assert_eq!((&batch["profiles"], &batch["profile_ids"]), (&json!(1), &eve["id"]));
    let both = format!("{} {}", text(&ada["id"]), text(&eve["id"]));
    assert_eq!((&list["profiles"], &list["profile_ids"]), (&json!(2), &json!(both)));
}

async fn list(caller: &Client, size: i32, token: &str, mut request: Json) -> Outcome {
    request["pageSize"] = json!(size);
    request["pageToken"] = json!(token);
    caller.call(LIST, request).await
}

/// The names on a page, as they are stored.
fn names(page: &Json) -> Vec<String> {
    let profiles = page["profiles"].as_array().into_iter().flatten();
    profiles.map(|profile| format!("{} {}", text(&profile["lastName"]), text(&profile["firstName"]))).collect()
}

fn text(value: &Json) -> &str {
    value.as_str().expect("text")
}

/// The id of the caller's organization.
async fn organization(caller: &Client) -> String {
    let key = caller.call("KeyService/GetCurrentKey", json!({})).await.expect("a key");
    text(&key["organizationId"]).to_owned()
}

/// Stores people of the organization, `Doe 00000` and so on, each with what a write stores beside a row.
async fn people(database: &Database, organization: &str, first: usize, number: usize) {
    let last = first + number - 1;
    let (numbers, name, id, organization, now) = if database.is_postgres() {
        (
            format!("SELECT n FROM generate_series({first}, {last}) n"),
            "lpad(n::text, 5, '0')",
            "gen_random_uuid()",
            format!("'{organization}'::uuid"),
            "now()",
        )
    } else {
        (
            format!(
                "WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) SELECT n FROM s"
            ),
            "printf('%05d', n)",
            "randomblob(16)",
            format!("x'{}'", organization.replace('-', "")),
            "'2026-01-01T00:00:00.000000+00:00'",
        )
    };
    let dob = if database.is_postgres() { "'1985-12-10'::date" } else { "'1985-12-10'" };
    database
        .execute(&format!(
            "INSERT INTO profile (id, organization_id, revision, locked, role, first_name, last_name, dob, sort_name, \
             created_at, updated_at) SELECT {id}, {organization}, 1, false, 'USER', 'Jo', 'Doe ' || {name}, {dob}, \
             'doe ' || {name} || ' jo', {now}, {now} FROM ({numbers}) AS numbers"
        ))
        .await;
}
