//! No request waits for ever, and none comes to harm by it.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{by_model, chat, expect_all_ended, size_unknown, sized_by, told};
use crate::support::client::{over_http2_slowly, upload};
use crate::support::fleet::{CONNECTION_MANAGER, Fleet, HTTP_FILTERS, paceline};
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
        for first in ["", "{", " ", "{\"model\": \"sm"] {
            let pieces = ["more", ", and", " more"];
            let mut connection = fleet.connect().await;
            let forged = [("x-upstream-cluster", "b")];
            let length = first.len() + pieces.concat().len() + 1;
            let (mut body, request) = upload(&forged, Some(length));
            let response = connection.start(request);
            body.send_data(Bytes::from(first)).await.unwrap();
            // On its way without an end, with what has come of its body.
            let mut arrival = fleet.arrival().await;
            let mut expected: Vec<u8> = Vec::new();
            let mut arrived = Vec::new();
            for piece in [first].into_iter().chain(pieces) {
                if !expected.is_empty() || piece != first {
                    body.send_data(Bytes::from_static(piece.as_bytes()))
                        .await
                        .unwrap();
                }
                expected.extend(piece.as_bytes());
                while arrived.len() < expected.len() {
                    arrived.extend(arrival.next_piece().await);
                }
                assert_eq!(arrived, expected, "retries {retries}");
            }
            body.send_data(Bytes::from_static(b"}")).await.unwrap();
            drop(body);
            arrival.answer(200);
            let answer = response.answer().await;
            assert_eq!(told(&answer, "reason"), "unknown_model");
        }
        let labels = [("reason", "late")];
        let late = fleet.counter("paceline_model_unknown_total", &labels).await;
        assert_eq!(late, if shows_bodies { 4 } else { 1 });
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

/// Clients that speak both ways at once, and wait for an answer to the first part
/// of their body. The wait for it would end after five minutes.
#[tokio::test]
async fn a_stream_that_waits_for_an_answer_goes_on_at_once() {
    let mut config = sized_by(json!("openai"));
    config["request_body"] = json!({ "timeout": "5m" });
    let mut fleet = Fleet::start(2, Behaviour::Hold, &config).await;
    for (kind, first) in [
        ("application/connect+json", &b"\0\0\0\0\x08{\"a\": 1}"[..]),
        ("application/proto", b"\x0a\x05hello"),
        ("text/plain", b"hello"),
        ("application/x-ndjson", b"{\"a\": 1}\n{\"b\": 2}\n"),
        ("application/json", b" {\"a\": 1}\n"),
        ("application/json", b"{\"a\" 1"),
    ] {
        let mut connection = fleet.connect().await;
        let (mut body, request) = upload(&[("content-type", kind)], None);
        let response = connection.start(request);
        body.send_data(Bytes::from_static(first)).await.unwrap();
        let mut arrival = fleet.arrival().await;
        assert_eq!(arrival.next_piece().await, first, "{kind}");
        let mut answer = arrival.begin_answer();
        answer.send_data(Bytes::from("answer")).await.unwrap();
        assert_eq!(response.head().await.status(), 200, "{kind}");
        drop((body, answer));
    }
    fleet.expect_in_flight(0, SOON).await;
    assert_eq!(size_unknown(&fleet, "malformed").await, 5);
    assert_eq!(size_unknown(&fleet, "missing").await, 1);
}

/// Over HTTP/2 a client may send a frame without bytes first.
#[tokio::test]
async fn a_frame_without_bytes_does_not_prolong_the_wait() {
    let mut config = sized_by(json!("openai"));
    config["request_body"] = json!({ "timeout": "300ms" });
    let mut fleet = Fleet::start(2, Behaviour::Hold, &config).await;
    for (first, has_trailers) in [("", false), ("{", false), (" ", true), ("", true)] {
        let (mut body, response) = over_http2_slowly(fleet.gateway.address()).await;
        body.send_data(Bytes::from_static(first.as_bytes()))
            .await
            .unwrap();
        let mut arrival = fleet.arrival().await;
        body.send_data(Bytes::from("more")).await.unwrap();
        let mut arrived = Vec::new();
        while arrived.len() < first.len() + 4 {
            arrived.extend(arrival.next_piece().await);
        }
        assert_eq!(arrived, [first.as_bytes(), b"more"].concat());
        if has_trailers {
            let name = hyper::header::HeaderName::from_static("x-checksum");
            let value = hyper::header::HeaderValue::from_static("1");
            let trailers = [(name, value)].into_iter().collect();
            body.send_trailers(trailers).await.unwrap();
        }
        drop(body);
        arrival.ended().await;
        arrival.answer(200);
        assert_eq!(response.answer().await.status, 200);
    }
    assert_eq!(size_unknown(&fleet, "late").await, 4);
    expect_all_ended(&fleet).await;
}

/// Where Envoy passes `expect` on, its client waits for the upstream's word.
#[tokio::test]
async fn a_client_that_expects_to_be_asked_for_its_body_is_not_waited_for() {
    let mut config = sized_by(json!("openai"));
    config["request_body"] = json!({ "timeout": "5m" });
    for passes_on in [true, false] {
        let mut fleet = Fleet::start_with(2, Behaviour::Hold, paceline(&config), |topology| {
            topology.amendments = vec![(
                format!("{CONNECTION_MANAGER}/proxy_100_continue"),
                json!(passes_on),
            )];
        })
        .await;
        let mut connection = fleet.connect().await;
        let (mut body, request) = upload(&[("expect", "100-continue")], Some(chat().len()));
        let response = connection.start(request);
        if !passes_on {
            // Envoy asks for it itself.
            body.send_data(Bytes::from(chat())).await.unwrap();
        }
        let arrival = fleet.arrival().await;
        if passes_on {
            body.send_data(Bytes::from(chat())).await.unwrap();
        }
        drop(body);
        arrival.answer(200);
        let size = if passes_on { "" } else { "10" };
        assert_eq!(told(&response.answer().await, "size"), size);
        let held_back = size_unknown(&fleet, "held_back").await;
        assert_eq!(held_back, u64::from(passes_on));
        expect_all_ended(&fleet).await;
    }
}

/// Filters that keep a body back before this one sees it, while what Envoy has
/// received for the request grows.
#[tokio::test]
async fn a_filter_that_keeps_bodies_back_is_not_taken_for_an_envoy_that_does() {
    let limits = json!({
        "name": "limit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
            "stat_prefix": "limit",
            "enable_mode": "REQUEST",
            "limit_kbps": 2,
            // It passes nothing on in between.
            "fill_interval": "1s",
        },
    });
    let buffers = json!({
        "name": "buffer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer",
            "max_request_bytes": 1_000_000,
        },
    });
    for filter in [limits, buffers] {
        let mut config = sized_by(json!("openai"));
        config["request_body"] = json!({ "timeout": "1m" });
        let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
            topology.amendments = vec![(format!("{HTTP_FILTERS}/0"), filter.clone())];
        })
        .await;
        let mut connection = fleet.connect().await;
        for request in 0..6 {
            let answer = connection.upload(&[], &chat(), true).await;
            assert_eq!(told(&answer, "size"), "10", "request {request}");
        }
        assert_eq!(fleet.counter("paceline_size_unknown_total", &[]).await, 0);
        let said = fleet.gateway.logs().unwrap();
        assert!(!said.contains("allow_on_headers_stop_iteration"), "{said}");
        expect_all_ended(&fleet).await;
    }
}
