//! `lab check` on files as users have them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

use std::path::Path;
use std::process::Command;

/// Whether all is accepted, and what is said of it.
fn check(files: &[&Path]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("check")
        .args(files)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn check_text(suffix: &str, text: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::with_suffix(suffix).unwrap();
    std::fs::write(file.path(), text).unwrap();
    check(&[file.path()])
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
