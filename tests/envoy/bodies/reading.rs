//! What headers and bodies tell.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::json;

use super::{by_model, chat, expect_all_ended, passed, size_unknown, sized_by, told};
use crate::support::SOON;
use crate::support::client::{over_http2, request, upload};
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::Behaviour;

#[tokio::test]
async fn a_size_is_read_from_where_it_is_configured() {
    let body = json!({ "parameters": { "steps": 30 }, "prompt": "abc" }).to_string();
    for (source, expected) in [
        (json!("content_length"), body.len().to_string()),
        (json!({ "header": "X-Steps" }), "7.5".to_owned()),
        (
            json!({ "json_pointer": "/parameters/steps" }),
            "30".to_owned(),
        ),
        (json!({ "json_pointer": "/prompt" }), "3".to_owned()),
        (json!("openai"), "256.09375".to_owned()),
    ] {
        let fleet = Fleet::start(2, Behaviour::OK, &sized_by(source.clone())).await;
        let mut connection = fleet.connect().await;
        let headers = [("x-steps", "7.5")];
        let answer = connection.upload(&headers, body.as_bytes(), true).await;
        assert_eq!(answer.status, 200, "{source}");
        assert_eq!(told(&answer, "size"), expected, "{source}");
        assert_eq!(fleet.counter("paceline_size_unknown_total", &[]).await, 0);
        expect_all_ended(&fleet).await;
    }
}

#[tokio::test]
async fn a_body_is_read_however_it_comes_and_arrives_whole() {
    for workers in [1, 2] {
        let config = sized_by(json!("openai"));
        let mut fleet = Fleet::start_on(workers, 2, Behaviour::Hold, &config).await;
        for declared in [Some(chat().len()), None] {
            let mut connection = fleet.connect().await;
            let (mut body, request) = upload(&[], declared);
            let response = connection.start(request);
            let whole = chat();
            let (first, last) = whole.split_at(100);
            body.send_data(Bytes::copy_from_slice(first)).await.unwrap();
            // It waits for the rest: nothing has been picked.
            tokio::time::sleep(Duration::from_millis(50)).await;
            fleet.expect_in_flight(0, SOON).await;
            body.send_data(Bytes::copy_from_slice(last)).await.unwrap();
            drop(body);

            let mut arrival = fleet.arrival().await;
            let mut arrived = Vec::new();
            while arrived.len() < whole.len() {
                arrived.extend(arrival.next_piece().await);
            }
            assert_eq!(arrived, whole);
            arrival.answer(200);
            let answer = response.answer().await;
            assert_eq!(told(&answer, "size"), "10");
            assert_eq!(told(&answer, "model"), "m");
            assert_eq!(told(&answer, "stream"), "true");
        }
        assert_eq!(fleet.counter("paceline_size_unknown_total", &[]).await, 0);
        expect_all_ended(&fleet).await;
    }
}

#[tokio::test]
async fn a_body_is_read_over_http2_and_before_trailers() {
    let trailers: hyper::HeaderMap = [(
        hyper::header::HeaderName::from_static("x-checksum"),
        hyper::header::HeaderValue::from_static("1"),
    )]
    .into_iter()
    .collect();
    let fleet = Fleet::start(2, Behaviour::OK, &sized_by(json!("openai"))).await;
    let gateway = fleet.gateway.address();
    let whole = chat();
    let (first, last) = whole.split_at(100);
    for declared in [true, false] {
        for trailers in [None, Some(trailers.clone())] {
            let answer = over_http2(gateway, &[first, last], declared, trailers.clone()).await;
            assert_eq!(answer.status, 200);
            assert_eq!(told(&answer, "size"), "10", "{declared} {trailers:?}");
        }
    }
    assert_eq!(fleet.counter("paceline_size_unknown_total", &[]).await, 0);

    // Nothing but trailers, and more than is waited for.
    let answer = over_http2(gateway, &[], false, Some(trailers)).await;
    assert_eq!((answer.status.as_u16(), told(&answer, "size")), (200, ""));
    assert_eq!(size_unknown(&fleet, "missing").await, 1);
    let large = vec![b' '; 10_000_000];
    for declared in [true, false] {
        let answer = over_http2(gateway, &[&large], declared, None).await;
        assert_eq!((answer.status.as_u16(), told(&answer, "size")), (200, ""));
    }
    assert_eq!(size_unknown(&fleet, "too_large").await, 2);
    expect_all_ended(&fleet).await;
}

#[tokio::test]
async fn a_body_that_tells_nothing_is_routed_as_the_mean_and_counted() {
    let deep = format!(
        r#"{{"messages":{}{}}}"#,
        "[".repeat(400_000),
        "]".repeat(400_000)
    );
    let fleet = Fleet::start(2, Behaviour::OK, &sized_by(json!("openai"))).await;
    let mut connection = fleet.connect().await;
    let mut expected = 0;
    for (body, reason) in [
        (b"{}".as_slice(), "missing"),
        (br#"{"model": "m"}"#, "missing"),
        (br#"{"prompt": "a"#, "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (b"[1, 2]", "malformed"),
        (deep.as_bytes(), "malformed"),
    ] {
        for declared in [true, false] {
            let unknown = async || size_unknown(&fleet, reason).await;
            let before = unknown().await;
            let answer = connection.upload(&[], body, declared).await;
            assert_eq!(answer.status, 200, "{reason:?}");
            assert!(!told(&answer, "upstream").is_empty(), "{reason:?}");
            assert_eq!(told(&answer, "size"), "", "{reason:?}");
            assert_eq!(unknown().await, before + 1, "{reason:?}");
            expected += 1;
        }
    }
    // No body at all, and an empty one.
    let bodyless = connection.request(request("POST", "/infer", &[])).await;
    assert_eq!(bodyless.status, 200);
    for declared in [true, false] {
        let answer = connection.upload(&[], b"", declared).await;
        assert_eq!(answer.status, 200);
        assert_eq!(told(&answer, "size"), "");
    }
    expected += 3;
    assert_eq!(
        fleet.counter("paceline_size_unknown_total", &[]).await,
        expected
    );
    assert_eq!(fleet.counts().iter().sum::<usize>() as u64, expected);
    expect_all_ended(&fleet).await;
}

#[tokio::test]
async fn the_model_decides_the_pool() {
    let fleet = Fleet::start(2, Behaviour::OK, &by_model()).await;
    let mut connection = fleet.connect().await;
    for declared in [true, false] {
        for (model, server) in [("small", "a"), ("large-7b", "b"), ("large-70b", "b")] {
            let body = json!({ "messages": [], "model": model }).to_string();
            // A client's own choice does not survive the wait.
            let forged = [("x-upstream-cluster", "all-gpus")];
            let answer = connection.upload(&forged, body.as_bytes(), declared).await;
            assert_eq!(answer.served_by(), server, "{model}");
            assert_eq!(told(&answer, "model"), model);
        }
    }
    expect_all_ended(&fleet).await;

    for body in [r#"{"model": "other"}"#, r#"{"model": 5}"#, "{}", "{", ""] {
        let forged = [("x-upstream-cluster", "b")];
        let answer = connection.upload(&forged, body.as_bytes(), true).await;
        assert_eq!(answer.status, 200, "{body}");
        let decision = answer.header("x-paceline-decision");
        assert!(
            decision.starts_with("pass_through; reason=unknown_model"),
            "{body}: {decision}"
        );
    }
    assert_eq!(passed(&fleet, "unknown_model").await, 5);
    for upstream in &fleet.upstreams {
        let forged = |headers: &hyper::HeaderMap| {
            let mut values = headers.get_all("x-upstream-cluster").iter();
            values.any(|value| *value != *upstream.name)
        };
        assert!(!upstream.seen().iter().any(forged));
    }
    let reasons = [("missing", 3), ("malformed", 1)];
    for (reason, count) in reasons {
        let labels = [("reason", reason)];
        let counted = fleet.counter("paceline_model_unknown_total", &labels).await;
        assert_eq!(counted, count, "{reason}");
    }
}

#[tokio::test]
async fn a_model_in_a_header_needs_no_body() {
    let mut config = by_model();
    config["model"] = json!({ "header": "x-model" });
    let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
        topology.shows_bodies = false;
    })
    .await;
    let mut connection = fleet.connect().await;
    for (model, server) in [("small", "a"), ("large-7b", "b")] {
        let headers = [("x-model", model)];
        let answer = connection.upload(&headers, b"not json", false).await;
        assert_eq!(answer.served_by(), server);
    }
    let answer = connection.upload(&[], b"{}", true).await;
    assert_eq!(told(&answer, "reason"), "unknown_model");
    expect_all_ended(&fleet).await;
}
