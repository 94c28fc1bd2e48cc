//! Sizes and models are read from headers and bodies, and a request whose body
//! tells nothing goes on all the same.

use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, over_http2, request, upload};
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// One pool whose sizes come from this source.
fn sized_by(source: Value) -> Value {
    json!({
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "request_size": source,
        "explain": true,
        "lease": "5m",
    })
}

/// A pool for each of two models; others pass through.
fn by_model() -> Value {
    json!({
        "explain": true,
        "lease": "5m",
        "pools": [
            {
                "name": "small",
                "match": { "model": "small" },
                "upstreams": [{ "cluster": "a" }],
            },
            {
                "name": "large",
                "match": { "model": { "prefix": "large-" } },
                "upstreams": [{ "cluster": "b" }],
            },
        ],
    })
}

/// The value of one part of the decision; empty if it is not there.
fn told<'a>(answer: &'a Answer, part: &str) -> &'a str {
    let parts = answer.header("x-paceline-decision").split("; ");
    let mut values = parts.filter_map(|each| each.strip_prefix(part)?.strip_prefix('='));
    values.next().unwrap_or("")
}

/// A chat request whose size is 10: 320 characters, and no answer asked for.
fn chat() -> Vec<u8> {
    let content = "é\n".repeat(160);
    json!({
        "model": "m",
        "messages": [{ "role": "user", "content": content }],
        "max_tokens": 0,
        "stream": true,
    })
    .to_string()
    .into_bytes()
}

async fn size_unknown(fleet: &Fleet, reason: &str) -> u64 {
    let labels = [("reason", reason)];
    fleet.counter("paceline_size_unknown_total", &labels).await
}

async fn passed(fleet: &Fleet, reason: &str) -> u64 {
    let labels = [("reason", reason)];
    fleet.counter("paceline_pass_through_total", &labels).await
}

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

/// All is over: what was picked has been given back.
async fn expect_all_ended(fleet: &Fleet) {
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    assert_eq!(
        stats.total("paceline_picks_total"),
        stats.total("paceline_outcomes_total")
    );
}

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
            if declared.is_none() && !fleet.has_room().await {
                continue;
            }
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
    let has_room = fleet.has_room().await;
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
            // Without room, a large body is `undeclared` unless it comes at once.
            let reason = Some(reason).filter(|_| declared || has_room);
            let unknown = async || match reason {
                Some(reason) => size_unknown(&fleet, reason).await,
                None => fleet.counter("paceline_size_unknown_total", &[]).await,
            };
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
async fn a_large_body_goes_on_and_arrives_whole() {
    let fleet = Fleet::start(2, Behaviour::OK, &sized_by(json!("openai"))).await;
    let has_room = fleet.has_room().await;
    for (size, unknown) in [(900_000, 0), (1_500_000, 1), (10_000_000, 1)] {
        let body = json!({ "prompt": "x".repeat(size), "max_tokens": 0 }).to_string();
        for declared in [true, false] {
            let mut connection = fleet.connect().await;
            for _ in 0..4 {
                let before = size_unknown(&fleet, "too_large").await;
                let answer = connection.upload(&[], body.as_bytes(), declared).await;
                assert_eq!(answer.status, 200, "{size} declared {declared}");
                if !declared && !has_room {
                    // Read if it came at once.
                    continue;
                }
                let after = size_unknown(&fleet, "too_large").await;
                assert_eq!(after - before, unknown, "{size} declared {declared}");
                let expected = if unknown == 0 { "28125" } else { "" };
                assert_eq!(told(&answer, "size"), expected);
            }
        }
    }
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

#[tokio::test]
async fn a_buffer_that_is_too_small_refuses_no_second_body() {
    for declared in [true, false] {
        // More than Envoy was told to buffer.
        let mut config = sized_by(json!("openai"));
        config["request_body"] = json!({ "max_bytes": 64 << 20 });
        let fleet = Fleet::start(2, Behaviour::OK, &config).await;
        let mut connection = fleet.connect().await;
        let small = vec![b' '; 40_000];
        let answer = connection.upload(&[], &small, true).await;
        assert_eq!(answer.status, 200);

        let body = vec![b' '; 8_000_000];
        let answer = connection.upload(&[], &body, declared).await;
        if !declared && !fleet.has_room().await {
            // What goes on with its first part needs no room.
            assert_eq!(answer.status, 200);
            assert_eq!(size_unknown(&fleet, "undeclared").await, 1);
            continue;
        }
        assert_eq!(answer.status, 413);
        for declared in [true, false] {
            let mut connection: Connection = fleet.connect().await;
            let answer = connection.upload(&[], &body, declared).await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(size_unknown(&fleet, "undeclared").await, 1);
        assert_eq!(size_unknown(&fleet, "too_large").await, 1);
        // What has been held before is still waited for.
        let before = size_unknown(&fleet, "malformed").await;
        let mut connection = fleet.connect().await;
        connection.upload(&[], &small, true).await;
        assert_eq!(size_unknown(&fleet, "malformed").await, before + 1);
        let said = fleet.gateway.logs().unwrap();
        assert_eq!(said.matches("set request_body_buffer_limit").count(), 1);
        expect_all_ended(&fleet).await;
    }
}

/// Prints what it measures; the bound leaves room for a busy machine.
#[tokio::test]
async fn reading_a_body_of_200_kb_costs_less_than_passing_it_on() {
    let prompt = "The quick brown fox said \"hello\" and jumped.\n".repeat(4300);
    let message = json!({ "role": "user", "content": prompt });
    let body = json!({ "model": "m", "messages": [message], "max_tokens": 100 }).to_string();
    let mut config = sized_by(json!("openai"));
    config["explain"] = json!(false);
    let reading = Fleet::start(2, Behaviour::OK, &config).await;
    config["request_size"] = json!("content_length");
    let passing = Fleet::start(2, Behaviour::OK, &config).await;

    let mut ratios = Vec::new();
    for _ in 0..7 {
        let mut cpu = [Duration::ZERO; 2];
        for (fleet, used) in [&reading, &passing].into_iter().zip(&mut cpu) {
            let mut connection = fleet.connect().await;
            let before = fleet.gateway.cpu_time().unwrap();
            for _ in 0..50 {
                let answer = connection.upload(&[], body.as_bytes(), true).await;
                assert_eq!(answer.status, 200);
            }
            *used = (fleet.gateway.cpu_time().unwrap() - before) / 50;
        }
        let [reading, passing] = cpu;
        println!("{} bytes: {reading:?} read, {passing:?} passed", body.len());
        ratios.push(reading.as_secs_f64() / passing.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    assert!(median < 3.0, "median {median} of {ratios:?}");
}
