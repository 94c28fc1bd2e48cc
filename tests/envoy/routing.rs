//! Requests go where the filter says, and nowhere that a client says.

use serde_json::json;

use crate::support::client::request;
use crate::support::fleet::{Fleet, one_pool};
use crate::support::upstream::Behaviour;

#[tokio::test]
async fn the_picked_cluster_serves_the_request() {
    let fleet = Fleet::start(3, Behaviour::OK, &one_pool(3, "round_robin")).await;
    let answers = fleet.get_in_turn(6).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(fleet.counts(), [2, 2, 2]);
    assert_eq!(
        fleet
            .counter("paceline_picks_total", &[("upstream", "b")])
            .await,
        2
    );
}

#[tokio::test]
async fn a_client_cannot_choose_a_cluster() {
    let config = json!({ "upstreams": [{ "cluster": "a" }] });
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    let answer = connection
        .request(request("GET", "/", &[("x-upstream-cluster", "b")]))
        .await;
    assert_eq!(answer.served_by(), "a");
}
