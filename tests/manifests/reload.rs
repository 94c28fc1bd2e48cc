//! A changed plugin, as the agent brings it to a running proxy.

use std::fs;

use lab::gateway::filter_module;
use serde_json::{Value, json};

use crate::envoy::Envoy;
use crate::istio::{Role, assemble};
use crate::server::{Client, load};
use crate::traffic::{Fleet, OUTSIDE, manifests};

fn with_configuration(extensions: &[Value], configuration: &str) -> Vec<Value> {
    let mut changed = extensions.to_vec();
    changed[0]["typed_config"]["config"]["configuration"]["value"] = json!(configuration);
    changed
}

#[test]
fn a_good_change_applies_and_a_bad_one_does_not() {
    let fleet = Fleet::start();
    let assembled = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    let envoy = Envoy::start(&assembled);
    let client = Client::new(envoy.address, OUTSIDE);
    assert_eq!(client.get(&[]).status, 200);

    let one = r#"{ "upstreams": [ { "cluster": "l4" } ] }"#;
    envoy.serve_extensions(&with_configuration(&assembled.extensions, one));
    envoy.expect_stat(
        &["extension_config_discovery", "paceline.config_reload"],
        |count| count >= 2,
    );
    for _ in 0..10 {
        assert_eq!(client.get(&[]).served_by, "l4");
    }

    let bad = r#"{ "upstreams": [] }"#;
    envoy.serve_extensions(&with_configuration(&assembled.extensions, bad));
    envoy.expect_stat(
        &["extension_config_discovery", "paceline.config_fail"],
        |count| count >= 1,
    );
    assert!(envoy.log().contains("upstreams: "), "{}", envoy.log());
    for _ in 0..10 {
        assert_eq!(
            client.get(&[]).served_by,
            "l4",
            "the old configuration serves on"
        );
    }
}

/// A new version is other code, so Envoy makes new VMs for it.
#[test]
fn a_new_version_takes_over_and_no_request_is_lost() {
    // An empty custom section: the same filter to run, and another one to Envoy.
    const SECTION: [u8; 4] = [0, 2, 1, b'x'];
    let mut module = fs::read(filter_module().unwrap()).unwrap();
    module.extend(SECTION);
    let newer = tempfile::NamedTempFile::with_suffix(".wasm").unwrap();
    fs::write(newer.path(), module).unwrap();

    let fleet = Fleet::start();
    let plugin = ["wasmplugin-gateway.yaml"];
    let envoy = Envoy::start(&fleet.assemble(Role::Gateway, &plugin));
    let documents = manifests(&plugin);
    let upgraded = assemble(Role::Gateway, &documents, &fleet.pods(), newer.path());
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(envoy.address, OUTSIDE, 4, 100, &[]));
        envoy.expect_stat(&["paceline_picks_total"], |picks| picks > 50);
        envoy.serve_extensions(&upgraded.extensions);
        let answers = clients.join().unwrap();
        assert!(
            answers.keys().all(|answer| answer.status == 200),
            "{answers:?}"
        );
    });
    envoy.expect_stat(&["paceline.config_reload"], |count| count == 2);
    assert_eq!(envoy.stat(&["paceline_picks_total"]), 400);
    envoy.expect_stat(&["paceline_in_flight"], |in_flight| in_flight == 0);
    assert_eq!(envoy.stat(&["paceline_pass_through_total"]), 0);
}

/// What a running proxy refuses and outlives, a proxy that starts with it does
/// not: it has no older configuration to go on with.
#[test]
fn a_bad_configuration_at_the_start_fails_every_request() {
    let fleet = Fleet::start();
    let mut assembled = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    assembled.extensions = with_configuration(&assembled.extensions, r#"{ "upstreams": [] }"#);
    let envoy = Envoy::start(&assembled);
    let client = Client::new(envoy.address, OUTSIDE);
    assert_eq!(client.get(&[]).status, 500);
    assert!(
        envoy.log().contains("upstreams: an empty array"),
        "{}",
        envoy.log()
    );

    let good = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    envoy.serve_extensions(&good.extensions);
    // The file system may tell Envoy of one change twice.
    envoy.expect_stat(&["paceline.config_reload"], |count| count >= 1);
    assert_eq!(client.get(&[]).status, 200, "until it is mended");
}
