//! Containers that load their models, and one that is killed: they are picked when
//! they are ready.

use std::time::Duration;

use lab::docker::docker;

use crate::support::load::Load;
use crate::support::stack::Stack;
use crate::support::{SOON, eventually};

/// What a server that failed gets is little for a while, though it is ready again: until
/// it must have been tried, see `faults`.
const RETURN: Duration = Duration::from_secs(60);

/// Waits until the gauge says so of a server.
async fn expect_ready(stack: &Stack, server: &str, ready: u64) {
    eventually(&format!("ready {ready} of {server}"), SOON, async || {
        let labels = [("upstream", server)];
        let shown = stack.stats().await.sum("paceline_ready", &labels);
        (shown == ready).then_some(()).ok_or(format!("{shown}"))
    })
    .await;
}

async fn picks(stack: &Stack, server: &str) -> u64 {
    let labels = [("upstream", server)];
    stack.stats().await.sum("paceline_picks_total", &labels)
}

/// The server gets nothing while others serve so many requests.
async fn expect_no_picks(stack: &Stack, server: &str, load: &Load, requests: usize) {
    // Each worker notices on its next tick.
    load.expect_progress(requests).await;
    let before = picks(stack, server).await;
    load.expect_progress(requests).await;
    assert_eq!(picks(stack, server).await, before, "{server} is not ready");
}

/// Sends requests until the server gets some.
async fn expect_picks(stack: &Stack, server: &str) {
    let before = picks(stack, server).await;
    eventually(&format!("{server} to be picked"), RETURN, async || {
        Load::start(stack, 20).expect_no_errors().await;
        let now = picks(stack, server).await;
        (now > before).then_some(()).ok_or("it is not".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_container_that_loads_gets_nothing_until_it_has_loaded() {
    for loading in ["says", "unavailable"] {
        let stack = Stack::start().await;
        let load = Load::start(&stack, 900);
        load.expect_progress(50).await;
        let variables = [("LOAD_SECONDS", "80000"), ("LOADING", loading)];
        let options = ["up", "--detach", "--no-deps", "--timeout", "1", "a100-1"];
        stack.compose_with(&variables, &options);
        expect_ready(&stack, "a100-1", 0).await;
        expect_no_picks(&stack, "a100-1", &load, 40).await;
        // It has loaded.
        let control = format!("http://{}/control", stack.published("a100-1", 8000));
        ureq::post(&control)
            .send(r#"{"reload_seconds": 0}"#)
            .unwrap();
        expect_ready(&stack, "a100-1", 1).await;
        load.expect_no_errors().await;
        expect_picks(&stack, "a100-1").await;
        stack.expect_none_in_flight().await;
    }
}

#[tokio::test]
async fn a_killed_container_is_picked_no_more_until_it_is_back() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 900);
    load.expect_progress(50).await;
    let container = stack.container("h100-1");
    docker(&["kill", &container]).unwrap();
    expect_ready(&stack, "h100-1", 0).await;
    expect_no_picks(&stack, "h100-1", &load, 40).await;
    docker(&["start", &container]).unwrap();
    expect_ready(&stack, "h100-1", 1).await;
    load.expect_no_errors().await;
    expect_picks(&stack, "h100-1").await;
    stack.expect_none_in_flight().await;
}
