//! A changed plugin, as the agent brings it to a running proxy.

use serde_json::{Value, json};

use crate::envoy::Envoy;
use crate::istio::Role;
use crate::server::Client;
use crate::traffic::{Fleet, OUTSIDE};

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
        |count| count == 2,
    );
    for _ in 0..10 {
        assert_eq!(client.get(&[]).served_by, "l4");
    }

    let bad = r#"{ "upstreams": [] }"#;
    envoy.serve_extensions(&with_configuration(&assembled.extensions, bad));
    envoy.expect_stat(
        &["extension_config_discovery", "paceline.config_fail"],
        |count| count == 1,
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
