//! Dry runs, balanced shares, and access logs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Connection;
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::written::{Written, shipped};
use crate::support::{SOON, eventually};

fn with_mode(count: usize, mode: impl Into<Value>) -> Value {
    let mut config = one_pool(count, "shortest_expected_delay");
    config["mode"] = mode.into();
    config
}

/// How many requests were observed with this result.
async fn observed(fleet: &Fleet, result: &str) -> u64 {
    let labels = [("outcome", result)];
    fleet.counter("paceline_observed_total", &labels).await
}

#[tokio::test]
async fn a_dry_run_learns_and_tells_what_it_would_gain() {
    let config = with_mode(3, "observe");
    let fleet = Fleet::start(3, Behaviour::after(Duration::from_millis(5)), &config).await;
    fleet.upstreams[2].set(Behaviour::after(Duration::from_millis(60)));
    let statuses = fleet.load(4, 60).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    assert_eq!(stats.total("paceline_picks_total"), 0);
    assert_eq!(stats.total("paceline_pass_through_total"), 0);
    for upstream in &fleet.upstreams {
        assert!(
            upstream
                .seen()
                .iter()
                .all(|it| !it.contains_key("x-upstream-cluster"))
        );
        let labels = [("upstream", upstream.name.as_str()), ("outcome", "success")];
        let learned = stats.sum("paceline_outcomes_total", &labels);
        assert_eq!(learned, upstream.count() as u64, "{}", upstream.name);
    }
    let result = |result| stats.sum("paceline_observed_total", &[("outcome", result)]);
    let results = ["agreed", "differed", "unidentified", "unserved"].map(result);
    let [agreed, differed, unidentified, unserved] = results;
    assert_eq!((agreed + differed, unidentified, unserved), (240, 0, 0));
    assert!(agreed > 0 && differed > 0, "{results:?}");
    // It would hardly use the slow one, and that is where the gain is.
    let picks = stats.sum("paceline_observed_picks_total", &[("upstream", "c")]);
    assert!(picks < fleet.upstreams[2].count() as u64, "{picks}");
    let delay =
        |of| stats.total(&format!("paceline_observed_{of}_delay_microseconds_total")) as f64;
    let gain = 1.0 - delay("pick") / delay("server");
    println!("agreed {agreed} of 240, gain {gain:.3}");
    assert!((0.1..0.95).contains(&gain), "{gain}");
}

#[tokio::test]
async fn what_is_under_way_counts_where_envoy_sent_it() {
    let mut fleet = Fleet::start(3, Behaviour::Hold, &with_mode(3, "observe")).await;
    let held = fleet.hold(7).await;
    let at_servers: Vec<u64> = fleet.counts().iter().map(|count| *count as u64).collect();
    eventually("all to be counted", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let counted = stats.by_label("paceline_in_flight", "upstream");
        let counted: Vec<u64> = counted.into_values().collect();
        (counted == at_servers)
            .then_some(())
            .ok_or_else(|| format!("{counted:?}, not {at_servers:?}"))
    })
    .await;
    held.into_iter().for_each(|held| held.connection.cut());
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn a_share_is_balanced_and_the_rest_observed() {
    let config = with_mode(2, json!({ "balance_percent": 40 }));
    // Nobody tells whose addresses these are.
    let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
        topology.names_upstreams = false;
    })
    .await;
    let statuses = fleet.load(4, 150).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let balanced = fleet.counter("paceline_picks_total", &[]).await;
    // 240 of 600 expected; six standard deviations of 12.
    assert!((168..312).contains(&balanced), "{balanced}");
    let named = fleet.upstreams.iter().flat_map(Upstream::seen);
    let named = named.filter(|headers| headers.contains_key("x-upstream-cluster"));
    assert_eq!(named.count() as u64, balanced);
    for (group, expected) in [("balanced", balanced), ("observed", 600 - balanced)] {
        let labels = [("group", group), ("outcome", "success")];
        let ended = fleet
            .counter("paceline_group_outcomes_total", &labels)
            .await;
        assert_eq!(ended, expected, "{group}");
    }
    // The balanced ones have taught it the addresses.
    let before = observed(&fleet, "unidentified").await;
    fleet.load(4, 10).await;
    assert_eq!(observed(&fleet, "unidentified").await, before);
    fleet.expect_in_flight(0, SOON).await;
}

/// A shipped file in front of two servers, whose filter's configuration has `more`.
async fn written(more: &str, change: impl Fn(String) -> String) -> (Vec<Upstream>, Written) {
    let mut upstreams = Vec::new();
    for name in ["gpu-a", "gpu-b"] {
        upstreams.push(Upstream::start(name, Behaviour::OK).await);
    }
    let servers: Vec<_> = upstreams.iter().map(|it| it.address).collect();
    let text = shipped("envoy.yaml", &servers);
    let place = "\"include_attempt_count_in_response\": true";
    assert!(text.contains(place));
    let text = change(text.replace(place, &format!("{place}{more}")));
    let envoy = Written::start(&[("envoy.yaml", text)]).await;
    (upstreams, envoy)
}

async fn get_all(envoy: &Written, count: usize) {
    let mut connection = Connection::open(envoy.listener().await).await;
    for _ in 0..count {
        assert_eq!(connection.get().await.status, 200);
    }
}

#[tokio::test]
async fn a_dry_run_hurts_nobody_where_the_whole_pool_is_wrong() {
    let (upstreams, envoy) = written(", \"mode\": \"observe\"", |text| {
        let text = text.replace("{ \"cluster\": \"gpu-a\" }", "{ \"cluster\": \"gone-a\" }");
        text.replace("{ \"cluster\": \"gpu-b\" }", "{ \"cluster\": \"gone-b\" }")
    })
    .await;
    get_all(&envoy, 20).await;
    let served: usize = upstreams.iter().map(Upstream::count).sum();
    assert_eq!(served, 20);
    let stats = envoy.stats().await;
    let labels = [("outcome", "unidentified")];
    assert_eq!(stats.sum("paceline_observed_total", &labels), 20);
    assert_eq!(stats.total("paceline_outcomes_total"), 0);
}

#[tokio::test]
async fn the_access_log_tells_each_decision() {
    let (_upstreams, envoy) = written("", |text| text).await;
    get_all(&envoy, 5).await;
    let lines = logged(&envoy, 5).await;
    for line in lines {
        let decision = line.rsplit('"').nth(1).unwrap();
        let rest = decision.strip_prefix("decision=balanced; upstream=gpu-");
        let (_, rest) = rest.unwrap_or_else(|| panic!("{line}")).split_at(1);
        let score = rest.strip_prefix("; score=");
        let score = score.and_then(|it| it.strip_suffix("; wait=0ms; reason=policy"));
        let score: f64 = score.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        assert!(score > 0.0, "{line}");
    }
    drop(envoy);
    // And what becomes of it where Envoy chooses.
    let (_upstreams, envoy) = written(", \"mode\": \"observe\"", |text| text).await;
    get_all(&envoy, 5).await;
    for line in logged(&envoy, 5).await {
        assert!(
            line.contains("\"decision=observed; upstream=gpu-"),
            "{line}"
        );
        assert!(line.contains("; served_by=gpu-"), "{line}");
    }
}

/// The lines of the access log, once there are so many.
async fn logged(envoy: &Written, count: usize) -> Vec<String> {
    eventually("lines in the access log", SOON, async || {
        let lines: Vec<String> = envoy.output().lines().map(str::to_owned).collect();
        (lines.len() == count)
            .then_some(lines.clone())
            .ok_or(format!("{lines:?}"))
    })
    .await
}
