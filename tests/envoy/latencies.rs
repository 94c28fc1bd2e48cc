//! Latencies as an operator reads them: quantiles, first bytes, gaps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::client::upload;
use crate::support::fleet::{Fleet, one_pool};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// A bin of the sketch is no wider than this part of what it holds.
const ERROR: f64 = 1.0 / 16.0;

/// The gauges of one metric by quantile, once they are not zero.
async fn quantiles(fleet: &Fleet, metric: &str) -> BTreeMap<String, u64> {
    eventually(metric, SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let gauges = stats.by_label(metric, "quantile");
        let measured = gauges.len() == 3 && gauges.values().all(|value| *value > 0);
        measured
            .then_some(gauges.clone())
            .ok_or(format!("{gauges:?}"))
    })
    .await
}

fn with_signal(signal: &str) -> Value {
    let mut config = one_pool(1, "latency_percentile");
    config["latency"] = json!({ "signal": signal });
    config
}

#[tokio::test]
async fn quantiles_are_those_of_the_answers() {
    const FAST: Duration = Duration::from_millis(20);
    const SLOW: Duration = Duration::from_millis(400);
    let fleet = Fleet::start(1, Behaviour::after(FAST), &with_signal("complete")).await;
    let mut connection = fleet.connect().await;
    let began = Instant::now();
    for _ in 0..16 {
        connection.get().await;
    }
    // No answer took longer than all of them.
    let longest = began.elapsed();
    fleet.set(Behaviour::after(SLOW));
    for _ in 0..4 {
        connection.get().await;
    }
    eventually("the slow ones to be measured", SOON, async || {
        let gauges = quantiles(&fleet, "paceline_latency_quantile_milliseconds").await;
        let slow = SLOW.as_millis() as f64 * (1.0 - ERROR);
        // Sixteen of twenty are fast, and a fifth is slow.
        let at_most = (longest.as_millis() as f64 * (1.0 + ERROR)).ceil();
        let fast = FAST.as_millis() as f64 * (1.0 - ERROR);
        let median = gauges["0.5"] as f64;
        let as_expected = gauges["0.9"] as f64 >= slow.floor()
            && gauges["0.99"] >= gauges["0.9"]
            && (fast.floor()..=at_most).contains(&median);
        as_expected.then_some(()).ok_or(format!("{gauges:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_streams_first_byte_gaps_and_end_are_kept_apart() {
    const BEFORE: Duration = Duration::from_millis(60);
    const GAP: Duration = Duration::from_millis(150);
    let mut fleet = Fleet::start(1, Behaviour::Hold, &with_signal("first_byte")).await;
    for _ in 0..3 {
        let connection = fleet.connect().await;
        let held = fleet.hold_on(connection).await;
        let head_at = Instant::now();
        // Headers come at once, as model servers send them.
        let mut body = held.arrival.begin_answer();
        tokio::time::sleep(BEFORE).await;
        for piece in ["one", "two", "three"] {
            body.send_data(Bytes::from(piece)).await.unwrap();
            tokio::time::sleep(GAP).await;
        }
        drop(body);
        assert_eq!(held.response.answer().await.body, "onetwothree");
        assert!(head_at.elapsed() >= BEFORE + 3 * GAP);
    }
    let first = quantiles(&fleet, "paceline_first_byte_quantile_milliseconds").await;
    let whole = quantiles(&fleet, "paceline_latency_quantile_milliseconds").await;
    let gaps = quantiles(&fleet, "paceline_chunk_gap_quantile_microseconds").await;
    let at_least = |time: Duration| time.as_secs_f64() * (1.0 - ERROR);
    let seconds = |gauges: &BTreeMap<String, u64>, unit: f64| gauges["0.5"] as f64 * unit + unit;
    assert!(seconds(&first, 1e-3) >= at_least(BEFORE), "{first:?}");
    assert!(
        seconds(&whole, 1e-3) >= at_least(BEFORE + 3 * GAP),
        "{whole:?}"
    );
    assert!(seconds(&gaps, 1e-6) >= at_least(GAP), "{gaps:?}");
    // A first byte is not an end: two gaps lie between them.
    assert!(
        seconds(&first, 1e-3) + at_least(2 * GAP) <= seconds(&whole, 1e-3) * (1.0 + ERROR),
        "{first:?} {whole:?}"
    );
}

#[tokio::test]
async fn a_client_that_sends_slowly_makes_no_server_slow() {
    const ANSWER: Duration = Duration::from_millis(20);
    const UPLOAD: Duration = Duration::from_millis(200);
    let config = one_pool(2, "shortest_expected_delay");
    let fleet = Fleet::start(2, Behaviour::after(ANSWER), &config).await;
    let mut connection = fleet.connect().await;
    for sent in 0..60 {
        let slow = fleet.upstreams[0].count();
        let (mut body, request) = upload(&[], None);
        let response = connection.start(request);
        body.send_data(Bytes::from_static(b"half")).await.unwrap();
        eventually("the request at an upstream", SOON, async || {
            let counts = fleet.counts();
            (counts.iter().sum::<usize>() == sent + 1)
                .then_some(())
                .ok_or(format!("{counts:?}"))
        })
        .await;
        if fleet.upstreams[0].count() > slow {
            tokio::time::sleep(UPLOAD).await;
        }
        body.send_data(Bytes::from_static(b"half")).await.unwrap();
        drop(body);
        assert_eq!(response.answer().await.status, 200);
    }
    let counts = fleet.counts();
    println!("{counts:?}");
    assert!(counts[0] >= 15, "equal servers: {counts:?}");
}
