//! Servers that go away in every way that a container can, under load: no user
//! sees an error, and what returns is used again.

use std::time::Duration;

use lab::docker::docker;

use crate::support::load::Load;
use crate::support::stack::Stack;
use crate::support::{SOON, eventually};

/// What a server that failed gets is little for a while. Until it must have
/// been tried again: the penalty's decay, and exploration every 10 s.
const RETURN: Duration = Duration::from_secs(60);

/// Successes at an upstream.
async fn successes(stack: &Stack, upstream: &str) -> u64 {
    let labels = [("upstream", upstream), ("outcome", "success")];
    stack.stats().await.sum("paceline_outcomes_total", &labels)
}

/// Sends requests until the upstream has served some again.
async fn expect_return(stack: &Stack, upstream: &str) {
    let before = successes(stack, upstream).await;
    eventually(&format!("{upstream} to serve again"), RETURN, async || {
        Load::start(stack, 20).expect_no_errors().await;
        match successes(stack, upstream).await - before {
            0 => Err("it does not".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_costs_no_user_an_error() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 500);
    load.expect_progress(100).await;
    // It has most of the load.
    let container = stack.container("h100-1");
    docker(&["kill", &container]).unwrap();
    load.expect_progress(200).await;
    docker(&["start", &container]).unwrap();
    load.expect_no_errors().await;

    let labels = [("upstream", "h100-1"), ("outcome", "retried")];
    let retried = stack.stats().await.sum("paceline_outcomes_total", &labels);
    assert!(retried > 0, "what it was working on was done elsewhere");
    stack.expect_none_in_flight().await;
    expect_return(&stack, "h100-1").await;
}

#[tokio::test]
async fn a_frozen_server_delays_what_it_has_and_gets_little_more() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 500);
    load.expect_progress(100).await;
    let container = stack.container("a100-1");
    docker(&["pause", &container]).unwrap();
    let picks = async || {
        let stats = stack.stats().await;
        let labels = [("upstream", "a100-1")];
        (
            stats.sum("paceline_picks_total", &labels),
            stats.total("paceline_picks_total"),
        )
    };
    let (frozen_before, all_before) = picks().await;
    load.expect_progress(200).await;
    let (frozen, all) = picks().await;
    docker(&["unpause", &container]).unwrap();
    let (frozen, all) = (frozen - frozen_before, all - all_before);
    println!("{frozen} of {all} picks while frozen");
    assert!(frozen * 4 < all, "{frozen} of {all} picks while frozen");
    load.expect_no_errors().await;
    stack.expect_none_in_flight().await;
    expect_return(&stack, "a100-1").await;
}

#[tokio::test]
async fn a_server_that_is_cut_off_costs_no_user_an_error() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 500);
    load.expect_progress(100).await;
    let (network, container) = (stack.network(), stack.container("a100-2"));
    docker(&["network", "disconnect", &network, &container]).unwrap();
    load.expect_progress(200).await;
    let alias = ["--alias", "a100-2"];
    docker(&[&["network", "connect"], &alias[..], &[&network, &container]].concat()).unwrap();
    load.expect_no_errors().await;
    stack.expect_none_in_flight().await;
    expect_return(&stack, "a100-2").await;
}

#[tokio::test]
async fn a_restarted_envoy_starts_afresh() {
    let stack = Stack::start().await;
    Load::start(&stack, 40).expect_no_errors().await;
    assert_eq!(stack.stats().await.total("paceline_picks_total"), 40);
    stack.compose(&["restart", "--timeout", "5", "envoy"]);
    // Its ports are others now.
    eventually("Envoy to return", SOON, async || {
        match stack.admin().is_ready().await {
            true => Ok(()),
            false => Err("it has not".to_owned()),
        }
    })
    .await;
    stack.expect_ready().await;
    Load::start(&stack, 40).expect_no_errors().await;
    assert_eq!(stack.stats().await.total("paceline_picks_total"), 40);
    stack.expect_none_in_flight().await;
}
