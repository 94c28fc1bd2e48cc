//! Istio's manifests, plain configurations, and what is piped in.

use std::path::Path;

use crate::{check, check_piped, check_text};

#[test]
fn what_is_piped_in_is_checked_whatever_it_is() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy.yaml");
    let (accepted, said) = check_piped(&std::fs::read_to_string(shipped).unwrap());
    let expected = ["ingress", "status"].map(|listener| {
        format!("-: listener {listener}: filter paceline: accepted, 1 pool, 2 upstreams\n")
    });
    assert_eq!((accepted, said), (true, expected.concat()));

    let config = r#" { "upstreams": [ { "cluster": "a" }, { "cluster": "b", "wieght": 2 } ] }"#;
    let (accepted, said) = check_piped(config);
    assert!(
        !accepted && said.starts_with("-: refused: upstreams[1].wieght: unknown key"),
        "{said}"
    );
}

#[test]
fn shipped_plugins_are_accepted() {
    let istio = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio");
    let files = [
        "wasmplugin-gateway.yaml",
        "trafficextension-gateway.yaml",
        "envoyfilter-cluster-header.yaml",
    ]
    .map(|name| istio.join(name));
    let (accepted, said) = check(&files.each_ref().map(|path| path.as_path()));
    assert!(accepted, "{said}");
    assert_eq!(
        said.matches("accepted, 1 pool, 2 upstreams").count(),
        3,
        "{said}"
    );
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let plugin = "kind: WasmPlugin\nmetadata: { name: paceline }\nspec:\n  pluginConfig:\n    \
                  upstreams: [{ cluster: a, wieght: 2 }]\n";
    let json = r#"{ "upstreams": [ { "cluster": "a", "cluster": "b" } ] }"#;
    for (suffix, text, expected) in [
        (".yaml", plugin, "upstreams[0].wieght: unknown key"),
        (".json", json, "upstreams[0].cluster"),
        (
            ".yaml",
            "kind: WasmPlugin\nspec: {}\n",
            "upstreams: missing",
        ),
        (".yaml", "kind: Service\n", "no WasmPlugin"),
    ] {
        let (accepted, said) = check_text(suffix, text);
        assert!(!accepted, "{said}");
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_plain_configuration_is_accepted() {
    let text = r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "b" } ] }"#;
    let (accepted, said) = check_text(".json", text);
    assert!(accepted && said.contains("1 pool, 2 upstreams"), "{said}");
}

#[test]
fn manifests_are_compared_with_their_routes_and_subsets() {
    let istio = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio");
    let names = [
        "wasmplugin-gateway.yaml",
        "virtualservice.yaml",
        "destinationrule.yaml",
    ];
    let read = |name: &str| std::fs::read_to_string(istio.join(name)).unwrap();
    let all = names.map(read).join("\n---\n");
    for (from, to, expected) in [
        ("", "", "accepted, 1 pool, 2 upstreams"),
        (
            "exact: l4",
            "exact: l40",
            "no VirtualService has a route for x-upstream-cluster: l4",
        ),
        (
            "subset: l4",
            "subset: l40",
            "has no subset \"l40\" in its DestinationRule",
        ),
    ] {
        let (accepted, said) = check_text(".yaml", &all.replacen(from, to, 1));
        assert_eq!(accepted, from.is_empty(), "{said}");
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let names = [
        "wasmplugin-gateway.yaml",
        "virtualservice-cluster-header.yaml",
    ];
    let (accepted, said) = check_text(".yaml", &names.map(read).join("\n---\n"));
    assert!(accepted, "{said}");
}
