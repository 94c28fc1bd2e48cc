//! A server that is gone costs no client an error: Envoy sends the request to
//! another, and the filter learns which one failed.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::SOON;
use crate::support::client::post;
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::Behaviour;

async fn retrying(count: usize, behaviour: Behaviour, config: &Value) -> Fleet {
    Fleet::start_with(count, behaviour, paceline(config), |topology| {
        topology.workers = 2;
        topology.retries = true;
    })
    .await
}

/// Nothing failed for the clients; what was retried was picked for `dead`
/// alone and counts where it was served, and nothing is left in flight.
async fn expect_only(fleet: &Fleet, statuses: &[u16], dead: &[&str]) {
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    for name in ["a", "b", "c", "d"] {
        let labels = |outcome| [("upstream", name), ("outcome", outcome)];
        let of = |outcome| stats.sum("paceline_outcomes_total", &labels(outcome));
        let picks = stats.sum("paceline_picks_total", &[("upstream", name)]);
        let adoptions = stats.sum("paceline_adoptions_total", &[("upstream", name)]);
        assert_eq!(of("retried") + of("success"), picks + adoptions, "{name}");
        assert_eq!(of("retried") > 0, dead.contains(&name), "{name}");
    }
}

#[tokio::test]
async fn a_server_killed_under_load_costs_no_error() {
    // Takes no notice of failures, so that the dead server is picked again and
    // again.
    let mut config = one_pool(4, "round_robin");
    config["outlier_detection"] = "off".into();
    let busy = Behaviour::after(Duration::from_millis(20));
    let fleet = retrying(4, busy, &config).await;
    let killed = async {
        while fleet.upstreams[1].count() < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fleet.upstreams[1].stop();
    };
    let (statuses, ()) = tokio::join!(fleet.load(16, 50), killed);
    assert_eq!(statuses.len(), 800);
    expect_only(&fleet, &statuses, &["b"]).await;
}

#[tokio::test]
async fn half_of_the_servers_may_be_gone() {
    let fleet = retrying(4, Behaviour::OK, &one_pool(4, "round_robin")).await;
    fleet.upstreams[0].stop();
    fleet.upstreams[2].stop();
    let statuses = fleet.load(8, 50).await;
    expect_only(&fleet, &statuses, &["a", "c"]).await;
}

#[tokio::test]
async fn a_server_that_refuses_costs_no_error() {
    let fleet = retrying(4, Behaviour::OK, &one_pool(4, "round_robin")).await;
    fleet.upstreams[3].set(Behaviour::failing(503));
    let statuses = fleet.load(4, 50).await;
    expect_only(&fleet, &statuses, &["d"]).await;
    // A fourth of 200 would be 50, but after some failures in a row it is ejected.
    let count = fleet.upstreams[3].count();
    assert!((5..=25).contains(&count), "{count}");
}

#[tokio::test]
async fn the_next_server_gets_the_whole_body() {
    let mut fleet = retrying(4, Behaviour::Hold, &one_pool(4, "least_request")).await;
    let body = "x".repeat(100_000);
    let mut connection = fleet.connect().await;
    let (mut sender, request) = post();
    let response = connection.start(request);
    sender.send_data(Bytes::from(body.clone())).await.unwrap();
    drop(sender);
    let mut tried = Vec::new();
    for status in [503, 503, 200] {
        let mut arrival = fleet.arrival().await;
        let received = (&mut arrival.body).collect().await.unwrap().to_bytes();
        assert_eq!(received.len(), body.len());
        assert!(!tried.contains(&arrival.upstream), "{tried:?}");
        tried.push(arrival.upstream.clone());
        fleet.expect_in_flight(1, SOON).await;
        arrival.answer(status);
    }
    assert_eq!(response.answer().await.status, 200);
    fleet.expect_in_flight(0, SOON).await;
}

/// Without Paceline's pick, too.
#[tokio::test]
async fn the_fallback_route_retries_elsewhere() {
    let config = json!({ "pools": [{
        "name": "v1",
        "match": { "path_prefix": "/v1" },
        "upstreams": [{ "cluster": "a" }],
    }]});
    let fleet = retrying(4, Behaviour::OK, &config).await;
    fleet.upstreams[1].stop();
    let statuses = fleet.load(4, 50).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// What came from elsewhere says nothing of how fast the picked server is, and
/// a dead server is soon left alone.
#[tokio::test]
async fn a_retry_is_a_failure_and_no_sample_of_the_picked_server() {
    let config = one_pool(4, "shortest_expected_delay");
    let fleet = retrying(4, Behaviour::after(Duration::from_millis(5)), &config).await;
    fleet.upstreams[0].stop();
    let statuses = fleet.load(4, 100).await;
    expect_only(&fleet, &statuses, &["a"]).await;
    let stats = fleet.gateway.stats_prometheus().await.unwrap();
    let samples = stats.lines().find(|line| {
        line.starts_with("paceline_latency_milliseconds_count") && line.contains("\"a\"")
    });
    assert_eq!(samples, None, "{samples:?}");
    let picks = fleet
        .counter("paceline_picks_total", &[("upstream", "a")])
        .await;
    // A fair share would be 100.
    assert!(picks < 25, "{picks} picks of the dead server");
}
