//! No request waits for ever, and none comes to harm by it.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{by_model, chat, expect_all_ended, size_unknown, sized_by, told};
use crate::support::client::upload;
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// Waits until Envoy has a request.
async fn begun(fleet: &Fleet) {
    eventually("the request to begin", SOON, async || {
        let begun = fleet.gateway.stats().await.unwrap();
        match begun.total("http.ingress.downstream_rq_active") {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

/// A gateway that does not show bodies before the request has a route.
async fn blind(workers: u32, config: &Value) -> Fleet {
    Fleet::start_with(2, Behaviour::OK, paceline(config), |topology| {
        topology.workers = workers;
        topology.shows_bodies = false;
    })
    .await
}

#[tokio::test]
async fn no_request_hangs_where_envoy_does_not_show_bodies() {
    for workers in [1, 2] {
        // Were this found out by waiting, it would take this long.
        let mut config = sized_by(json!("openai"));
        config["request_body"] = json!({ "timeout": "5m" });
        let fleet = blind(workers, &config).await;
        let mut expected = 0;
        for _ in 0..3 {
            let connections = match workers {
                1 => vec![fleet.connect().await],
                _ => fleet.connect_to_each_worker().await,
            };
            for mut connection in connections {
                for (body, declared) in [
                    (chat(), true),
                    (chat(), false),
                    (vec![b' '; 2_000_000], false),
                ] {
                    let answer = connection.upload(&[], &body, declared).await;
                    assert_eq!(answer.status, 200);
                    assert_eq!(told(&answer, "size"), "");
                    expected += 1;
                }
            }
        }
        assert_eq!(size_unknown(&fleet, "not_shown").await, expected);
        let said = fleet.gateway.logs().unwrap();
        let warnings = said.matches("Envoy does not show request bodies").count();
        assert_eq!(warnings, workers as usize, "one for each worker");
        expect_all_ended(&fleet).await;
    }
}

#[tokio::test]
async fn a_slow_client_is_not_taken_for_an_envoy_that_does_not_show_bodies() {
    let fleet = Fleet::start(2, Behaviour::OK, &sized_by(json!("openai"))).await;
    let body = chat();
    let (mut slow, request) = upload(&[], Some(body.len()));
    let mut connection = fleet.connect().await;
    let response = connection.start(request);
    // Many times as long as it takes to find out.
    tokio::time::sleep(Duration::from_millis(700)).await;
    slow.send_data(Bytes::from(body)).await.unwrap();
    drop(slow);
    assert_eq!(told(&response.answer().await, "size"), "10");
    assert_eq!(fleet.counter("paceline_size_unknown_total", &[]).await, 0);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_waited_for_only_so_long() {
    // What is kept for retries must not be sent twice.
    for (shows_bodies, retries) in [(true, true), (true, false), (false, true)] {
        let mut config = by_model();
        config["request_body"] = json!({ "timeout": "300ms" });
        let mut fleet = Fleet::start_with(2, Behaviour::Hold, paceline(&config), |topology| {
            topology.shows_bodies = shows_bodies;
            topology.retries = retries;
        })
        .await;
        for first in ["", "{"] {
            let pieces = ["more", ", and", " more"];
            let mut connection = fleet.connect().await;
            let forged = [("x-upstream-cluster", "b")];
            let length = first.len() + pieces.concat().len() + 1;
            let (mut body, request) = upload(&forged, Some(length));
            let response = connection.start(request);
            body.send_data(Bytes::from(first)).await.unwrap();
            let mut arrival = None;
            if first.is_empty() || !shows_bodies {
                // On its way without an end.
                arrival = Some(fleet.arrival().await);
            } else {
                // A part has come: it goes on once another part comes, late.
                begun(&fleet).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            // What comes later still arrives, once.
            let mut expected = first.as_bytes().to_vec();
            let mut arrived = Vec::new();
            for piece in pieces {
                body.send_data(Bytes::from_static(piece.as_bytes()))
                    .await
                    .unwrap();
                expected.extend(piece.as_bytes());
                let arrival = match &mut arrival {
                    Some(arrival) => arrival,
                    none => none.insert(fleet.arrival().await),
                };
                while arrived.len() < expected.len() {
                    arrived.extend(arrival.next_piece().await);
                }
                assert_eq!(arrived, expected, "retries {retries}");
            }
            body.send_data(Bytes::from_static(b"}")).await.unwrap();
            drop(body);
            arrival.unwrap().answer(200);
            let answer = response.answer().await;
            assert_eq!(told(&answer, "reason"), "unknown_model");
        }
        let labels = [("reason", "late")];
        let late = fleet.counter("paceline_model_unknown_total", &labels).await;
        assert_eq!(late, if shows_bodies { 2 } else { 1 });
        for upstream in &fleet.upstreams {
            let seen = upstream.seen();
            assert!(
                seen.iter()
                    .all(|headers| !headers.contains_key("x-upstream-cluster"))
            );
        }
        expect_all_ended(&fleet).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_half_way_leaves_nothing_behind() {
    for shows_bodies in [true, false] {
        let config = sized_by(json!("openai"));
        let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
            topology.shows_bodies = shows_bodies;
        })
        .await;
        for piece in ["", "{\"prompt\": "] {
            for _ in 0..5 {
                let mut connection = fleet.connect().await;
                let (mut body, request) = upload(&[], Some(1000));
                let response = connection.start(request);
                if !piece.is_empty() {
                    body.send_data(Bytes::from(piece)).await.unwrap();
                }
                begun(&fleet).await;
                connection.cut();
                response.none().await;
            }
        }
        fleet.expect_in_flight(0, SOON).await;
        let answer = fleet.connect().await.upload(&[], &chat(), true).await;
        assert_eq!(answer.status, 200);
        expect_all_ended(&fleet).await;
    }
}
