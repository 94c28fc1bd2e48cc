//! Large bodies, and what keeping them takes.

use std::time::Duration;

use serde_json::json;

use super::{expect_all_ended, size_unknown, sized_by, told};
use crate::support::client::Connection;
use crate::support::fleet::Fleet;
use crate::support::upstream::Behaviour;

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
