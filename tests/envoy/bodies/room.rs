//! Large bodies.

use serde_json::json;

use super::{expect_all_ended, size_unknown, sized_by, told};
use crate::support::client::upload;
use crate::support::fleet::Fleet;
use crate::support::upstream::Behaviour;
use hyper::body::Bytes;

#[tokio::test]
async fn a_large_body_goes_on_and_arrives_whole() {
    let fleet = Fleet::start(2, Behaviour::OK, &sized_by(json!("openai"))).await;
    for (size, unknown) in [(900_000, 0), (1_500_000, 1), (10_000_000, 1)] {
        let body = json!({ "prompt": "x".repeat(size), "max_tokens": 0 }).to_string();
        for declared in [true, false] {
            let mut connection = fleet.connect().await;
            for _ in 0..4 {
                let before = size_unknown(&fleet, "too_large").await;
                let answer = connection.upload(&[], body.as_bytes(), declared).await;
                assert_eq!(answer.status, 200, "{size} declared {declared}");
                let after = size_unknown(&fleet, "too_large").await;
                assert_eq!(after - before, unknown, "{size} declared {declared}");
                let expected = if unknown == 0 { "28125" } else { "" };
                assert_eq!(told(&answer, "size"), expected);
            }
        }
    }
    expect_all_ended(&fleet).await;
}

/// Envoy stops reading where its buffer is full, and the wait ends in its time.
#[tokio::test]
async fn a_buffer_that_is_too_small_refuses_no_body() {
    // More than Envoy was told to buffer.
    let mut config = sized_by(json!("openai"));
    config["request_body"] = json!({ "max_bytes": 64 << 20, "timeout": "500ms" });
    let mut fleet = Fleet::start(2, Behaviour::Hold, &config).await;
    let body = json!({ "prompt": "x".repeat(12_000_000), "max_tokens": 0 }).to_string();
    for declared in [true, false] {
        let mut connection = fleet.connect().await;
        let (mut sender, request) = upload(&[], declared.then_some(body.len()));
        let response = connection.start(request);
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.as_bytes().chunks(32 << 10) {
                sender
                    .send_data(Bytes::copy_from_slice(piece))
                    .await
                    .unwrap();
            }
        });
        let mut arrival = fleet.arrival().await;
        let mut arrived = Vec::new();
        while arrived.len() < body.len() {
            arrived.extend(arrival.next_piece().await);
        }
        assert!(arrived == body.as_bytes(), "it arrives whole, once");
        sending.await.unwrap();
        arrival.answer(200);
        assert_eq!(response.answer().await.status, 200);
    }
    assert_eq!(size_unknown(&fleet, "late").await, 2);
    expect_all_ended(&fleet).await;
}
