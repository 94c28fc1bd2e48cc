//! What is in flight is counted exactly, and never leaks: the gauge is right
//! while requests are held, and zero after every end that a request can have.
//!
//! The lease is far longer than any of these tests, so that a count which was
//! only forgotten with its lease would show as a leak. What happens when a VM
//! traps is in `trap`, when the configuration changes in `reload`.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::client::{self, get, post};
use crate::support::fleet::{Fleet, Held, paceline};
use crate::support::upstream::{Behaviour, Cut};
use crate::support::{SOON, eventually, soon};

/// Requests that meet each end together.
const REQUESTS: usize = 3;

/// How many workers Envoy has: every end is tried with each.
const WORKERS: [u32; 2] = [1, 2];

/// Counts that leak stay for longer than anything is waited for.
const LEASE: &str = "5m";

fn config(clusters: &[&str]) -> Value {
    let upstreams: Vec<_> = clusters
        .iter()
        .map(|name| json!({ "cluster": name }))
        .collect();
    json!({ "upstreams": upstreams, "policy": "least_request", "lease": LEASE })
}

/// Two upstreams that hold every request, behind so many workers.
async fn holding(workers: u32) -> Fleet {
    Fleet::start_on(workers, 2, Behaviour::Hold, &config(&["a", "b"])).await
}

/// Holds some requests, and makes sure that they are counted.
async fn hold_some(fleet: &mut Fleet) -> Vec<Held> {
    let held = fleet.hold(REQUESTS).await;
    fleet.expect_in_flight(REQUESTS as u64, SOON).await;
    held
}

/// All has ended: nothing is in flight, and every pick had this outcome.
async fn expect_all_ended(fleet: &Fleet, outcome: &str) {
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    let picks = stats.total("paceline_picks_total");
    assert!(picks >= REQUESTS as u64, "{picks} picks");
    let mut outcomes = stats.by_label("paceline_outcomes_total", "outcome");
    outcomes.retain(|_, count| *count > 0);
    assert_eq!(outcomes, [(outcome.to_owned(), picks)].into());
}

#[tokio::test]
async fn what_is_held_is_counted_at_its_upstream() {
    for workers in WORKERS {
        let mut fleet =
            Fleet::start_on(workers, 3, Behaviour::Hold, &config(&["a", "b", "c"])).await;
        let mut held = Vec::new();
        for expected in 1..=8 {
            held.extend(fleet.hold(1).await);
            fleet.expect_in_flight(expected, SOON).await;
        }
        let stats = fleet.gateway.stats().await.unwrap();
        let gauges = stats.by_label("paceline_in_flight", "upstream");
        for upstream in &fleet.upstreams {
            assert_eq!(
                gauges[&upstream.name],
                upstream.count() as u64,
                "{}",
                upstream.name
            );
        }
        for remaining in (0..8).rev() {
            held.pop().unwrap().arrival.answer(200);
            fleet.expect_in_flight(remaining, SOON).await;
        }
    }
}

#[tokio::test]
async fn the_workers_of_one_envoy_share_their_counts() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut fleet = Fleet::start_on(2, names.len(), Behaviour::Hold, &config(&names)).await;
    let mut held = Vec::new();
    for round in 1..=2 {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..names.len() / 2 {
            let mut connections = fleet.connect_to_each_worker().await;
            second.extend(connections.pop());
            first.extend(connections.pop());
        }
        // The first worker takes half of the upstreams, and the second must take
        // the other half. Blind to each other they would do so in one of 70
        // cases, and in one of 4900 in both rounds.
        for connection in first.into_iter().chain(second) {
            held.push(fleet.hold_on(connection).await);
        }
        assert_eq!(fleet.counts(), [round; 8]);
    }
}

#[tokio::test]
async fn a_normal_end() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for held in hold_some(&mut fleet).await {
            held.arrival.answer(200);
            let answer = held.response.answer().await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.as_str()),
                (200, "answered\n")
            );
        }
        expect_all_ended(&fleet, "success").await;
    }
}

#[tokio::test]
async fn an_error_of_the_upstream() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for held in hold_some(&mut fleet).await {
            held.arrival.answer(500);
            assert_eq!(held.response.answer().await.status, 500);
        }
        expect_all_ended(&fleet, "upstream_error").await;
    }
}

#[tokio::test]
async fn the_upstream_resets_before_it_answers() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for held in hold_some(&mut fleet).await {
            held.arrival.reset();
            assert_eq!(held.response.answer().await.status, 503);
        }
        expect_all_ended(&fleet, "reset").await;
    }
}

#[tokio::test]
async fn the_upstream_resets_in_the_middle_of_its_answer() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for held in hold_some(&mut fleet).await {
            let mut body = held.arrival.begin_answer();
            body.send_data(Bytes::from_static(b"some")).await.unwrap();
            let mut response = held.response.head().await;
            response.frame().await.unwrap().unwrap();
            body.abort(Cut);
            let rest = soon("the answer's end", response.collect()).await;
            assert!(
                rest.is_err(),
                "the client can tell that the answer is not whole"
            );
        }
        expect_all_ended(&fleet, "reset").await;
    }
}

#[tokio::test]
async fn the_client_leaves_before_the_answer() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for mut held in hold_some(&mut fleet).await {
            held.connection.cut();
            held.arrival.given_up().await;
        }
        expect_all_ended(&fleet, "client_abort").await;
    }
}

#[tokio::test]
async fn the_client_leaves_while_it_sends_its_body() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for _ in 0..REQUESTS {
            let mut connection = fleet.connect().await;
            let (mut body, request) = post();
            let response = connection.start(request);
            body.send_data(Bytes::from_static(b"some")).await.unwrap();
            let mut arrival = fleet.arrival().await;
            assert_eq!(arrival.next_piece().await, "some");
            fleet.expect_in_flight(1, SOON).await;
            connection.cut();
            response.none().await;
            fleet.expect_in_flight(0, SOON).await;
        }
        expect_all_ended(&fleet, "client_abort").await;
    }
}

#[tokio::test]
async fn the_client_leaves_in_the_middle_of_the_answer() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for held in hold_some(&mut fleet).await {
            let mut body = held.arrival.begin_answer();
            body.send_data(Bytes::from_static(b"some")).await.unwrap();
            let mut response = held.response.head().await;
            response.frame().await.unwrap().unwrap();
            held.connection.cut();
            eventually("the upstream to notice", SOON, async || {
                let sent = body.send_data(Bytes::from_static(b"more")).await;
                if sent.is_err() {
                    Ok(())
                } else {
                    Err("still open".to_owned())
                }
            })
            .await;
        }
        expect_all_ended(&fleet, "client_abort").await;
    }
}

#[tokio::test]
async fn the_client_breaks_the_protocol_in_its_body() {
    for workers in WORKERS {
        let fleet = holding(workers).await;
        for _ in 0..REQUESTS {
            let head = "POST / HTTP/1.1\r\nhost: models\r\ntransfer-encoding: chunked\r\n\r\n";
            let broken = format!("{head}4\r\nsome\r\nnot a length\r\n");
            let answer = client::raw(fleet.gateway.address(), &broken).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        expect_all_ended(&fleet, "client_abort").await;
    }
}

#[tokio::test]
async fn the_upstream_answers_before_it_has_the_whole_request() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        for _ in 0..REQUESTS {
            let mut connection = fleet.connect().await;
            let (mut body, request) = post();
            let response = connection.start(request);
            body.send_data(Bytes::from_static(b"some")).await.unwrap();
            let arrival = fleet.arrival().await;
            fleet.expect_in_flight(1, SOON).await;
            arrival.answer(413);
            assert_eq!(response.answer().await.status, 413);
            fleet.expect_in_flight(0, SOON).await;
        }
        expect_all_ended(&fleet, "client_error").await;
    }
}

#[tokio::test]
async fn the_gateway_gives_up_waiting() {
    for workers in WORKERS {
        let balancing = paceline(&config(&["a", "b"]));
        let mut fleet = Fleet::start_with(2, Behaviour::Hold, balancing, |topology| {
            topology.workers = workers;
            topology.request_timeout = Some(Duration::from_secs(1));
        })
        .await;
        for mut held in fleet.hold(REQUESTS).await {
            held.arrival.given_up().await;
            assert_eq!(held.response.answer().await.status, 504);
        }
        expect_all_ended(&fleet, "timeout").await;
    }
}

#[tokio::test]
async fn nobody_listens_at_the_upstream() {
    for workers in WORKERS {
        let fleet = holding(workers).await;
        for upstream in &fleet.upstreams {
            upstream.stop();
        }
        for answer in fleet.get_in_turn(REQUESTS).await {
            assert_eq!(answer.status, 503);
        }
        expect_all_ended(&fleet, "reset").await;
    }
}

#[tokio::test]
async fn the_cluster_does_not_exist() {
    for workers in WORKERS {
        let config = config(&["unknown", "nowhere"]);
        let fleet = Fleet::start_on(workers, 1, Behaviour::OK, &config).await;
        for answer in fleet.get_in_turn(REQUESTS).await {
            assert_eq!(answer.status, 503);
        }
        expect_all_ended(&fleet, "unavailable").await;
    }
}

#[tokio::test]
async fn a_retry() {
    for workers in WORKERS {
        let balancing = paceline(&config(&["a", "b"]));
        let mut fleet = Fleet::start_with(2, Behaviour::Hold, balancing, |topology| {
            topology.workers = workers;
            topology.retries = true;
        })
        .await;
        for held in hold_some(&mut fleet).await {
            held.arrival.answer(503);
            let second = fleet.arrival().await;
            second.answer(200);
            assert_eq!(held.response.answer().await.status, 200);
        }
        fleet.expect_in_flight(0, SOON).await;
        let stats = fleet.gateway.stats().await.unwrap();
        let outcomes = stats.by_label("paceline_outcomes_total", "outcome");
        let picks = stats.total("paceline_picks_total");
        assert_eq!(outcomes["retried"], picks);
        // Each counts anew where it was served.
        assert_eq!(outcomes["success"], picks);
        assert_eq!(stats.total("paceline_adoptions_total"), picks);
    }
}

/// Whatever happens, what was picked has ended once, and nothing is left.
#[tokio::test]
async fn all_ends_in_a_crowd() {
    for workers in WORKERS {
        let mut fleet = holding(workers).await;
        let mut connections = Vec::new();
        for wave in 0..6 {
            let mut crowd = Vec::new();
            for _ in 0..16 {
                let mut connection = fleet.connect().await;
                let response = connection.start(get());
                crowd.push((connection, response));
            }
            let mut arrivals = Vec::new();
            for _ in 0..16 {
                arrivals.push(fleet.arrival().await);
            }
            fleet.expect_in_flight(16, SOON).await;
            for (number, (connection, response)) in crowd.into_iter().enumerate() {
                match (number + wave) % 4 {
                    0 => connection.cut(),
                    _ => connections.push((connection, response)),
                }
            }
            for (number, arrival) in arrivals.into_iter().enumerate() {
                match (number + wave) % 3 {
                    0 => arrival.reset(),
                    1 => arrival.answer(503),
                    _ => arrival.answer(200),
                }
            }
            fleet.expect_in_flight(0, SOON).await;
        }
        let stats = fleet.gateway.stats().await.unwrap();
        assert_eq!(stats.total("paceline_picks_total"), 96);
        assert_eq!(stats.total("paceline_outcomes_total"), 96);
        assert_eq!(stats.total("paceline_state_errors_total"), 0);
    }
}
