//! `paceline istio` with what the shipped manifests do not have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

use std::process::Command;

use serde_json::{Value, json};

const SERVICE: [&str; 5] = [
    "istio",
    "--service",
    "llama.models.svc.cluster.local:8000",
    "--host",
    "llama.example.com",
];

/// The exit code, and what is said.
fn paceline(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_configuration_goes_into_the_plugin_and_the_routes() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let text = r#"{ "policy": { "name": "least_request", "choice_count": 2 }, "explain": true, "route_header": "x-route" }"#;
    std::fs::write(&config, text).unwrap();
    let subsets = "a=hardware=a100,b=hardware=b,c=pool=true,d=hardware=d";
    let more = [
        "--subset",
        subsets,
        "--retries",
        "--config",
        config.to_str().unwrap(),
    ];
    let (code, written) = paceline(&[&SERVICE[..], &more].concat());
    assert_eq!(code, Some(0), "{written}");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&written).unwrap();
    let of_kind = |kind: &str| documents.iter().find(|it| it["kind"] == kind).unwrap();
    let plugin = &of_kind("WasmPlugin")["spec"]["pluginConfig"];
    assert_eq!(plugin["explain"], true);
    let pool = &plugin["pools"][0];
    assert_eq!(
        pool["policy"],
        json!({ "name": "least_request", "choice_count": 2 })
    );
    assert_eq!(pool["upstreams"].as_array().unwrap().len(), 4);
    let routes = of_kind("VirtualService")["spec"]["http"]
        .as_array()
        .unwrap();
    assert_eq!(
        routes[0]["match"][0]["headers"],
        json!({ "x-route": { "exact": "a" } })
    );
    assert_eq!(routes.len(), 5);
    // A label's value is text, whatever it looks like.
    assert_eq!(
        of_kind("DestinationRule")["spec"]["subsets"][2]["labels"]["pool"],
        "true"
    );
    // Each subset, and the two that follow it.
    assert!(written.contains("|d|llama") && written.matches("- outbound|8000|").count() == 12);

    let file = directory.path().join("all.yaml");
    std::fs::write(&file, &written).unwrap();
    let (code, said) = paceline(&["check", file.to_str().unwrap()]);
    assert!(
        code == Some(0) && said.contains("accepted, 1 pool, 4 upstreams"),
        "{said}"
    );
}

#[test]
fn mistakes_are_told() {
    let subset = ["--subset", "a=hardware=a"];
    for (arguments, code, message) in [
        (&SERVICE[..], 64, "--subset"),
        (
            &[
                "istio",
                "--service",
                "llama:8000",
                "--host",
                "x",
                "--endpoints",
            ],
            64,
            "write NAME.NAMESPACE.svc",
        ),
        (
            &[&SERVICE[..], &["--subset", "a"]].concat(),
            64,
            "write NAME=LABEL=VALUE",
        ),
        (
            &[&SERVICE[..], &["--subset", "A=h=a"]].concat(),
            64,
            "lower-case letters",
        ),
        (
            &[&SERVICE[..], &subset, &subset].concat(),
            64,
            "another subset has this name",
        ),
        (
            &[&SERVICE[..], &subset, &["--gateway", "x"]].concat(),
            64,
            "write LABEL=VALUE",
        ),
        (
            &[&SERVICE[..], &subset, &["--image", "a b"]].concat(),
            64,
            "is no URL",
        ),
    ] {
        let (exit, said) = paceline(arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(message), "{message} in {said}");
    }
}
