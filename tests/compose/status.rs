//! The state of the gateway, where the host has it.

use lab::gateway::Admin;
use serde_json::Value;

use crate::support::load::Load;
use crate::support::stack::{SERVERS, Stack};
use crate::support::{SOON, eventually};

#[tokio::test]
async fn the_state_is_published_on_loopback() {
    let stack = Stack::start().await;
    Load::start(&stack, 60).expect_no_errors().await;
    let address = stack.published("envoy", 9902);
    assert!(address.ip().is_loopback(), "{address}");

    // It speaks the same HTTP as the admin interface.
    let listener = Admin::new(address);
    let is_learned = |upstream: &Value| upstream["pace"]["measured"].as_f64() > Some(0.0);
    let state = eventually("what was learned of all servers", SOON, async || {
        let text = listener.get("/paceline?format=json").await;
        let text = text.map_err(|error| error.to_string())?;
        let state: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let upstreams = state["pools"][0]["upstreams"].as_array();
        match upstreams.is_some_and(|all| all.iter().all(is_learned)) {
            true => Ok(state),
            false => Err(text),
        }
    })
    .await;
    let upstreams = state["pools"][0]["upstreams"].as_array().unwrap();
    let names: Vec<_> = upstreams.iter().map(|it| it["name"].as_str()).collect();
    assert_eq!(names, SERVERS.map(Some));
    let is_well = |it: &Value| it["ready"] == true && it["state"] == "in";
    assert!(upstreams.iter().all(is_well), "{state}");
}
