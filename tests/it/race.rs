//! Races that the database decides.

use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_callers_who_want_one_phone_number_exactly_one_gets_it() {
    let (_service, north) = client().await;
    for round in 0..100 {
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let north = north.clone();
            let phone = format!("+1555{round:04}");
            callers.spawn(async move {
                north.create(json!({ "firstName": "A", "lastName": "B", "phoneNumber": phone })).await
            });
        }
        let outcomes = callers.join_all().await;
        let refusals: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert_eq!(refusals.len(), 63, "round {round}");
        for refused in refusals {
            assert_eq!((refused.code, refused.reason.as_str()), (Code::AlreadyExists, "PHONE_NUMBER_IN_USE"));
        }
    }
}
