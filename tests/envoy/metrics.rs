//! What operators see: the filter's metrics in Envoy's admin interface.

use std::collections::BTreeSet;

use paceline::decision::PassThrough;
use serde_json::json;

use crate::support::client::request;
use crate::support::fleet::Fleet;
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// Two pools, one of which has no match for `/elsewhere`.
async fn fleet() -> Fleet {
    let config = json!({ "pools": [{
        "name": "chat",
        "match": { "path_prefix": "/infer" },
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "policy": "round_robin",
    }]});
    Fleet::start(2, Behaviour::OK, &config).await
}

#[tokio::test]
async fn envoy_names_them_with_their_labels() {
    let fleet = fleet().await;
    fleet.get_in_turn(4).await;
    let stats = fleet.gateway.stats().await.unwrap();
    for upstream in ["a", "b"] {
        let labels = [("pool", "chat"), ("upstream", upstream)];
        assert_eq!(stats.sum("paceline_picks_total", &labels), 2);
        let succeeded = [
            ("pool", "chat"),
            ("upstream", upstream),
            ("outcome", "success"),
        ];
        assert_eq!(stats.sum("paceline_outcomes_total", &succeeded), 2);
        let upstream = [("upstream", upstream)];
        let gauge: Vec<_> = stats.select("paceline_in_flight", &upstream).collect();
        assert_eq!(gauge.len(), 1, "there before anything is in flight");
        let labels = [("upstream", upstream[0].1), ("plugin", "paceline")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(gauge[0].labels, labels.into());
    }
}

/// Of an answer without a body Envoy knows a gRPC status, though it is none of
/// gRPC's.
#[tokio::test]
async fn an_answer_without_a_body_is_a_success() {
    let config = json!({ "upstreams": [{ "cluster": "a" }] });
    let fleet = Fleet::start(1, Behaviour::failing(204), &config).await;
    let answers = fleet.get_in_turn(3).await;
    assert!(answers.iter().all(|answer| answer.status == 204));
    eventually("three successes", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let outcomes = stats.by_label("paceline_outcomes_total", "outcome");
        let expected = [("success".to_owned(), 3)].into();
        (outcomes == expected)
            .then_some(())
            .ok_or(format!("{outcomes:?}"))
    })
    .await;
}

#[tokio::test]
async fn all_of_them_are_there_before_the_first_request() {
    let fleet = fleet().await;
    let stats = fleet.gateway.stats().await.unwrap();
    for (name, count) in [
        ("paceline_picks_total", 2),
        ("paceline_in_flight", 2),
        ("paceline_pass_through_total", PassThrough::ALL.len()),
        ("paceline_transaction_retries_total", 1),
        ("paceline_state_errors_total", 1),
    ] {
        assert_eq!(stats.select(name, &[]).count(), count, "{name}");
        assert_eq!(stats.total(name), 0, "{name}");
    }
}

/// The series of one metric, without its value: `name{label="value",...}`.
fn series<'a>(text: &'a str, name: &str) -> BTreeSet<&'a str> {
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _value)| series)
        .filter(|series| {
            series
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('{'))
        })
        .collect()
}

#[tokio::test]
async fn prometheus_gets_clean_names_and_labels() {
    let fleet = fleet().await;
    fleet.get_in_turn(4).await;
    let mut connection = fleet.connect().await;
    connection.request(request("GET", "/elsewhere", &[])).await;
    fleet.expect_in_flight(0, SOON).await;
    // Envoy merges its histograms every 5 s.
    let text = eventually("the histograms", SOON, async || {
        let text = fleet.gateway.stats_prometheus().await.unwrap();
        match text.contains("paceline_latency_milliseconds_count") {
            true => Ok(text),
            false => Err("none".to_owned()),
        }
    })
    .await;

    let with = |upstream: &str| format!(r#"{{pool="chat",upstream="{upstream}"}}"#);
    for name in [
        "paceline_picks_total",
        "paceline_first_byte_milliseconds_count",
        "paceline_first_byte_milliseconds_sum",
        "paceline_latency_milliseconds_count",
        "paceline_latency_milliseconds_sum",
    ] {
        let expected = [
            format!("{name}{}", with("a")),
            format!("{name}{}", with("b")),
        ];
        assert_eq!(
            series(&text, name),
            expected.iter().map(String::as_str).collect(),
            "{name}"
        );
    }
    let outcomes = series(&text, "paceline_outcomes_total");
    let expected = r#"paceline_outcomes_total{pool="chat",upstream="a",outcome="success"}"#;
    assert!(outcomes.contains(expected), "{outcomes:?}");
    let gauges = series(&text, "paceline_in_flight");
    let expected = [
        r#"paceline_in_flight{upstream="a",plugin="paceline"}"#,
        r#"paceline_in_flight{upstream="b",plugin="paceline"}"#,
    ];
    assert_eq!(gauges, expected.into());
    let passed = series(&text, "paceline_pass_through_total");
    let expected = r#"paceline_pass_through_total{reason="no_pool"}"#;
    assert!(passed.contains(expected), "{passed:?}");
    assert!(text.contains("paceline_pass_through_total{reason=\"no_pool\"} 1\n"));
    assert!(text.contains("# TYPE paceline_picks_total counter\n"));
    assert!(text.contains("# TYPE paceline_in_flight gauge\n"));
    assert!(text.contains("# TYPE paceline_latency_milliseconds histogram\n"));

    let all = text.lines().filter(|line| !line.starts_with('#'));
    // `envoy_wasm_paceline_vm_reload` and the like are Envoy's own.
    for line in all.filter(|line| line.contains("paceline_") && !line.starts_with("envoy_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let is_clean = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(is_clean && name.starts_with("paceline_"), "{line}");
    }
}
