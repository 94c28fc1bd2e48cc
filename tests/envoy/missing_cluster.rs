//! An upstream that Envoy has no cluster for, as when a listener comes before
//! its clusters: Envoy answers 503 by itself and repeats nothing.

use serde_json::json;

use crate::support::fleet::{Fleet, one_pool};
use crate::support::upstream::Behaviour;

/// Policies that look at failures.
const POLICIES: [&str; 5] = [
    "shortest_expected_delay",
    "least_request",
    "least_response_time",
    "latency_percentile",
    "peak_ewma",
];

/// Most requests that two workers may send to a cluster that is not there
/// before both know: each may be picking while the other learns of it.
const MOST: usize = 2;

#[tokio::test]
async fn it_is_left_alone_at_once() {
    for policy in POLICIES {
        // Three upstreams, and clusters for two.
        let fleet = Fleet::start_on(2, 2, Behaviour::OK, &one_pool(3, policy)).await;
        let statuses = fleet.load(4, 100).await;
        let lost = statuses.iter().filter(|status| **status != 200).count();
        assert!(lost <= MOST, "{policy}: {lost} of {}", statuses.len());
        let labels = [("upstream", "c"), ("outcome", "unavailable")];
        let counted = fleet.counter("paceline_outcomes_total", &labels).await;
        assert_eq!(counted, lost as u64, "{policy}");
    }
}

#[tokio::test]
async fn a_pool_without_any_cluster_answers_at_once() {
    let config = json!({ "upstreams": [{ "cluster": "x" }, { "cluster": "y" }] });
    let fleet = Fleet::start(1, Behaviour::OK, &config).await;
    let answers = fleet.get_in_turn(10).await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    let labels = [("outcome", "unavailable")];
    let counted = fleet.counter("paceline_outcomes_total", &labels).await;
    assert_eq!(counted, 10);
}
