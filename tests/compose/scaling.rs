//! A service with more than one replica, and a changing number of them.

use std::collections::BTreeSet;

use crate::support::load::Load;
use crate::support::stack::Stack;
use crate::support::{SOON, eventually};

async fn addresses(stack: &Stack, server: &str) -> BTreeSet<String> {
    let hosts = stack.hosts(server).await;
    hosts
        .into_iter()
        .map(|(address, _requests)| address)
        .collect()
}

async fn scale(stack: &Stack, server: &str, replicas: usize) {
    let scale = format!("{server}={replicas}");
    let options = ["--detach", "--no-recreate", "--timeout", "1", "--scale"];
    stack.compose(&[&["up"], &options[..], &[&scale]].concat());
    assert_eq!(stack.containers(server).len(), replicas);
    eventually("Envoy to know the replicas", SOON, async || {
        let known = addresses(stack, server).await;
        if known.len() == replicas {
            Ok(())
        } else {
            Err(format!("{known:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn replicas_come_and_go_under_load() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 800);
    load.expect_progress(50).await;
    scale(&stack, "a40-1", 3).await;
    eventually("every replica to serve", SOON, async || {
        let hosts = stack.hosts("a40-1").await;
        match hosts.iter().all(|(_address, requests)| *requests > 0) {
            true => Ok(()),
            false => Err(format!("{hosts:?}")),
        }
    })
    .await;
    scale(&stack, "a40-1", 1).await;
    load.expect_no_errors().await;
    stack.expect_none_in_flight().await;
}
