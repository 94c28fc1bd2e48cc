//! What becomes of requests after the module has trapped, under each of
//! Istio's failure strategies. `docs/operations.md` says the same in words.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::envoy::Envoy;
use crate::istio::{Role, assemble};
use crate::server::{Answer, Client};
use crate::traffic::{Fleet, OUTSIDE, manifests};
use crate::trap::trapping_in;

/// A gateway whose module has just trapped.
fn trapped(fleet: &Fleet, strategy: &str, also: &[&str]) -> (Envoy, Client) {
    let mut documents = manifests(&[&["wasmplugin-gateway.yaml"], also].concat());
    let plugin = documents
        .iter_mut()
        .find(|document| document.kind() == "WasmPlugin");
    plugin.unwrap().value["spec"]["failStrategy"] = json!(strategy);
    let module = trapping_in("proxy_on_request_body");
    let envoy = Envoy::start(&assemble(
        Role::Gateway,
        &documents,
        &fleet.pods(),
        module.path(),
    ));
    let client = Client::new(envoy.address, OUTSIDE);
    assert_eq!(client.get(&[]).status, 200, "before the trap");
    assert_eq!(client.post().status, 503, "the request that meets the trap");
    (envoy, client)
}

#[test]
fn fail_close_refuses_all_that_follows() {
    let fleet = Fleet::start();
    let (envoy, client) = trapped(&fleet, "FAIL_CLOSE", &[]);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(
            client.get(&[]),
            Answer {
                status: 503,
                served_by: String::new()
            }
        );
    }
    assert_eq!(
        envoy.stat(&["vm_reload"]),
        0,
        "nothing tries to bring it back"
    );
}

#[test]
fn fail_open_leaves_all_that_follows_to_the_fallback_route() {
    let fleet = Fleet::start();
    let (envoy, client) = trapped(&fleet, "FAIL_OPEN", &[]);
    let picked = envoy.stat(&["paceline_picks_total"]);
    for _ in 0..20 {
        assert_eq!(client.get(&[]).status, 200);
    }
    assert_eq!(
        envoy.stat(&["paceline_picks_total"]),
        picked,
        "the filter is bypassed"
    );
    // Nobody takes a client's header off any more.
    for hardware in ["h100", "l4"] {
        for _ in 0..10 {
            assert_eq!(
                client.get(&[("x-upstream-cluster", hardware)]).served_by,
                hardware
            );
        }
    }
}

#[test]
fn the_envoy_filter_takes_the_header_off_while_paceline_is_bypassed() {
    let fleet = Fleet::start();
    let (_envoy, client) = trapped(&fleet, "FAIL_OPEN", &["envoyfilter-strip-header.yaml"]);
    // Least request of two out of five pods at rest is a random one: that none
    // of 60 requests goes to an H100 has probability (3/5)^60, below 1e-13.
    let served: Vec<_> = (0..60)
        .map(|_| client.get(&[("x-upstream-cluster", "l4")]).served_by)
        .collect();
    assert!(served.iter().any(|name| name == "h100"), "{served:?}");
}

#[test]
fn a_changed_plugin_ends_the_bypass() {
    let fleet = Fleet::start();
    let (envoy, client) = trapped(&fleet, "FAIL_OPEN", &[]);
    let mut changed = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    let configuration = &mut changed.extensions[0]["typed_config"]["config"]["configuration"];
    configuration["value"] = json!(r#"{ "explain": true, "upstreams": [ { "cluster": "l4" } ] }"#);
    envoy.serve_extensions(&changed.extensions);
    envoy.expect_stat(&["paceline.config_reload"], |count| count == 2);
    for _ in 0..10 {
        assert_eq!(client.get(&[]).served_by, "l4");
    }
    let picks = envoy.stat(&["paceline_picks_total", "pool=default"]);
    assert_eq!(picks, 10, "the pool of the new configuration");
}

/// Where the module cannot be fetched, Istio's agent puts a filter in its place
/// (`pkg/wasm/convert.go`): one that denies all, and under `FAIL_OPEN` one that
/// allows all.
#[test]
fn a_failed_download_denies_all_unless_it_fails_open() {
    let fleet = Fleet::start();
    for (rules, status) in [(json!({ "rules": {} }), 403), (json!({}), 200)] {
        let mut assembled = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
        let mut instead = rules;
        instead["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC");
        assembled.extensions[0]["typed_config"] = instead;
        let envoy = Envoy::start(&assembled);
        let client = Client::new(envoy.address, OUTSIDE);
        for _ in 0..5 {
            assert_eq!(client.get(&[]).status, status);
        }
    }
}

#[test]
fn fail_reload_brings_the_filter_back() {
    let fleet = Fleet::start();
    let (envoy, client) = trapped(&fleet, "FAIL_RELOAD", &[]);
    let picked = envoy.stat(&["paceline_picks_total"]);
    assert_eq!(client.get(&[]).status, 503, "until the back-off is over");
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.get(&[]).status != 200 {
        assert!(Instant::now() < deadline, "{}", envoy.log());
    }
    assert!(envoy.stat(&["paceline_picks_total"]) > picked);
    assert!(envoy.stat(&["vm_reload_success"]) > 0);
}
