//! The shipped configurations are what `paceline` writes.
//!
//! To write them anew after a change of the templates: `make shipped`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `make shipped` wants the files to be written.
const WRITE: &str = "PACELINE_WRITE_SHIPPED";

const SERVERS: [&str; 2] = ["gpu-a=http://127.0.0.1:8001", "gpu-b=http://127.0.0.1:8002"];

fn paceline(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// Compares a shipped file with what was written, or replaces it.
fn expect(file: &str, written: &str) {
    let path = shipped(file);
    if std::env::var_os(WRITE).is_some() {
        fs::write(path, written).unwrap();
        return;
    }
    let text = fs::read_to_string(path).unwrap();
    let differs = text
        .lines()
        .zip(written.lines())
        .find(|(one, other)| one != other);
    assert!(
        text == written,
        "{file} is not what `paceline` writes; `make shipped` writes it anew. The first difference: {differs:?}"
    );
}

#[test]
fn a_few_servers() {
    let [one, two] = SERVERS;
    let written = paceline(&["envoy", "--server", one, "--server", two]);
    expect("envoy/envoy.yaml", &written);
}

#[test]
fn endpoints_of_one_cluster() {
    let name = "dns:gpus.models.svc.cluster.local:8000";
    expect(
        "envoy/endpoints.yaml",
        &paceline(&["envoy", "--endpoints", name]),
    );
}

#[test]
fn two_models() {
    let llama = "llama=llama-a=http://127.0.0.1:8001,llama-b=http://127.0.0.1:8002";
    let qwen = "qwen=qwen-a=http://127.0.0.1:8003,qwen-b=http://127.0.0.1:8004";
    let written = paceline(&[
        "envoy",
        "--model",
        llama,
        "--model",
        qwen,
        "--model-header",
        "x-model",
    ]);
    expect("envoy/models.yaml", &written);
}

#[test]
fn files_that_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let servers = SERVERS.join(",");
    paceline(&[
        "envoy",
        "--server",
        &servers,
        "--dynamic",
        path,
        "--mounted-at",
        "/etc/envoy",
    ]);
    for file in ["dynamic.yaml", "lds.yaml", "cds.yaml"] {
        let written = fs::read_to_string(directory.path().join(file)).unwrap();
        expect(&format!("envoy/{file}"), &written);
    }
}

const SERVICE: [&str; 5] = [
    "istio",
    "--service",
    "llama.models.svc.cluster.local:8000",
    "--host",
    "llama.example.com",
];

/// Compares the shipped manifests with those of a command.
fn expect_manifests(options: &[&str], names: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let out = ["--out", directory.path().to_str().unwrap()];
    paceline(&[&SERVICE, options, &out].concat());
    for name in names {
        let written = fs::read_to_string(directory.path().join(name)).unwrap();
        expect(&format!("istio/{name}"), &written);
    }
}

#[test]
fn manifests_with_subsets() {
    expect_manifests(
        &[
            "--subset",
            "h100=hardware=h100",
            "--subset",
            "l4=hardware=l4",
            "--retries",
        ],
        &[
            "destinationrule.yaml",
            "gateway.yaml",
            "virtualservice.yaml",
            "envoyfilter-strip-header.yaml",
            "envoyfilter-retries.yaml",
            "wasmplugin-gateway.yaml",
        ],
    );
}

#[test]
fn manifests_of_single_pods() {
    expect_manifests(
        &["--endpoints"],
        &["envoyfilter-endpoints.yaml", "wasmplugin-endpoints.yaml"],
    );
}
