//! Sizes decide where a request may go.

use serde_json::json;

use crate::support::client::Connection;
use crate::support::fleet::Fleet;
use crate::support::upstream::Behaviour;

async fn send(connection: &mut Connection, size: Option<&str>) -> String {
    let headers: Vec<(&str, &str)> = size.map(|size| ("x-size", size)).into_iter().collect();
    let answer = connection.upload(&headers, b"body", true).await;
    assert_eq!(answer.status, 200, "{size:?}");
    answer.header("x-paceline-decision").to_owned()
}

#[tokio::test]
async fn an_upstream_gets_only_the_sizes_that_it_accepts() {
    let config = json!({
        "upstreams": [
            { "cluster": "a", "accepts": { "max_size": 10 } },
            { "cluster": "b", "accepts": { "min_size": 10, "max_size": 100 } },
        ],
        "policy": "round_robin",
        "request_size": { "header": "x-size" },
        "explain": true,
    });
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    for (size, upstream) in [
        ("3", "a"),
        ("0", "a"),
        ("9", "a"),
        ("11", "b"),
        ("100", "b"),
    ] {
        let told = send(&mut connection, Some(size)).await;
        assert!(
            told.starts_with(&format!("upstream={upstream};")),
            "{size}: {told}"
        );
    }
    for size in [Some("10"), None] {
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(send(&mut connection, size).await);
        }
        told.sort();
        assert!(told[0].starts_with("upstream=a;"), "{size:?}: {told:?}");
        assert!(told[1].starts_with("upstream=b;"), "{size:?}: {told:?}");
    }
    let told = send(&mut connection, Some("101")).await;
    assert!(
        told.starts_with("pass_through; reason=size_not_accepted"),
        "{told}"
    );
    let reason = [("reason", "size_not_accepted")];
    assert_eq!(
        fleet.counter("paceline_pass_through_total", &reason).await,
        1
    );
}

#[tokio::test]
async fn a_reserved_upstream_is_kept_for_small_requests() {
    let config = json!({
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "policy": "round_robin",
        "request_size": { "header": "x-size" },
        "reserve": { "share": 0.5, "max_size": 10 },
        "explain": true,
    });
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    for size in [Some("11"), None, Some("1000")] {
        let told = send(&mut connection, size).await;
        assert!(told.starts_with("upstream=a;"), "{size:?}: {told}");
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(send(&mut connection, Some("10")).await);
    }
    told.sort();
    assert!(
        told[0].starts_with("upstream=a;") && told[1].starts_with("upstream=b;"),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_default_policy_tells_what_it_expects_and_what_it_measures_load_in() {
    let config = json!({
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "explain": true,
    });
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    let told = send(&mut connection, None).await;
    assert!(told.contains("; work=1; basis=requests"), "{told}");
    let pool = [("pool", "default")];
    assert_eq!(fleet.counter("paceline_weighs", &pool).await, 0);
}
