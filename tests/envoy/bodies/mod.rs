//! Sizes and models are read from headers and bodies, and a request whose body
//! tells nothing goes on all the same.

mod reading;
mod room;
mod waiting;

use serde_json::{Value, json};

use crate::support::SOON;
use crate::support::client::Answer;
use crate::support::fleet::Fleet;

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

/// All is over: what was picked has been given back.
async fn expect_all_ended(fleet: &Fleet) {
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    assert_eq!(
        stats.total("paceline_picks_total"),
        stats.total("paceline_outcomes_total")
    );
}
