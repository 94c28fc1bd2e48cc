//! What is wrong with a command line or a file is told, with an exit code that says
//! of which kind it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

use std::process::Command;

/// The exit code, and what is said.
fn paceline(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn expect(arguments: &[&str], code: i32, message: &str) {
    let (exit, said) = paceline(arguments);
    assert_eq!(exit, Some(code), "{arguments:?}: {said}");
    assert!(said.contains(message), "{arguments:?}: {message} in {said}");
}

#[test]
fn servers_that_are_none_are_told() {
    for (servers, message) in [
        (
            &["gpu-a"][..],
            "--server gpu-a: \"gpu-a\": no port; write gpu-a:8000",
        ),
        (
            &["http://gpu-a:99999"],
            "port \"99999\" is not allowed; give 1 to 65535",
        ),
        (
            &["tcp://gpu-a:1"],
            "tcp:// is not allowed; write http:// or https://",
        ),
        (&["http://gpu-a:1/v1"], "\"/v1\" is not allowed"),
        (
            &["gpu-a:1", "http://gpu-a:1"],
            "http://gpu-a:1 is given twice",
        ),
        (&["x=gpu-a:1", "x=gpu-b:1"], "another server has the name x"),
        (
            &["x=gpu-a:1", "x-servers=gpu-b:1"],
            "two clusters would be called x-servers",
        ),
        (&["a b=gpu-a:1"], "the name \"a b\" is not allowed"),
        (&["gpu-a:1,"], "no port"),
        (&[], "no servers: give --server, --model or --endpoints"),
    ] {
        let options = servers.iter().flat_map(|it| ["--server", it]);
        let arguments: Vec<_> = ["envoy"].into_iter().chain(options).collect();
        expect(&arguments, 64, message);
    }
    expect(
        &["envoy", "--model", "gpu-a:1"],
        64,
        "no model; write --model MODEL=gpu-a:1",
    );
    expect(
        &["envoy", "--endpoints", "gpus:1"],
        64,
        "write dns:NAME:PORT",
    );
    expect(
        &["envoy", "--endpoints", "dns:gpus"],
        64,
        "no port; write dns:gpus:8000",
    );
    expect(
        &["envoy", "--server", "a:1", "--model-header", "x"],
        64,
        "needs --model",
    );
    expect(
        &["envoy", "--server", "a:1", "--model", "m=a:1"],
        64,
        "cannot be used with",
    );
    expect(
        &["envoy", "--server", "a:1", "--listen", "8080"],
        64,
        "give an IP address and a port",
    );
    expect(&["envoy", "--no-such-option"], 64, "unexpected argument");
    expect(&["no-such-command"], 64, "unrecognized subcommand");
}

#[test]
fn configurations_that_do_not_fit_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pool.json");
    let path = file.to_str().unwrap();
    for (config, arguments, code, message) in [
        (
            r#"{"polcy": "random"}"#,
            &["--server", "a:1"][..],
            65,
            "polcy: unknown key; did you mean policy?",
        ),
        ("[]", &["--server", "a:1"], 65, "no JSON object"),
        ("{", &["--server", "a:1"], 65, "not valid JSON"),
        (
            r#"{"upstreams": [{"cluster": "b"}]}"#,
            &["--server", "a:1"],
            64,
            "upstream \"b\" has no server",
        ),
        (
            r#"{"upstreams": [{"cluster": "a"}]}"#,
            &["--server", "a:1,b:1"],
            64,
            "server b: no pool of the configuration has it",
        ),
        (
            r#"{"upstreams": [{"cluster": "a"}]}"#,
            &["--model", "m=a:1"],
            64,
            "--model makes the pools",
        ),
        (
            r#"{"pools": []}"#,
            &["--endpoints", "dns:a:1"],
            64,
            "give cluster, or leave it out",
        ),
        (
            r#"{"cluster": "a"}"#,
            &["--server", "a:1"],
            64,
            "needs --endpoints in place of --server",
        ),
    ] {
        std::fs::write(&file, config).unwrap();
        let all: Vec<_> = ["envoy", "--config", path]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        expect(&all, code, message);
    }
    let missing = directory.path().join("missing.json");
    let missing = missing.to_str().unwrap();
    expect(
        &["envoy", "--server", "a:1", "--config", missing],
        66,
        "missing.json: No such file",
    );
    expect(&["check", missing], 66, "missing.json: No such file");
    let nowhere = directory.path().join("none/envoy.yaml");
    let nowhere = nowhere.to_str().unwrap();
    expect(
        &["envoy", "--server", "a:1", "--out", nowhere],
        73,
        "cannot write",
    );
}

#[test]
fn directories_of_dynamic_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let begin = ["envoy", "--dynamic", path, "--server", "gpu-a:1"];
    expect(
        &["envoy", "--dynamic", path, "--add", "gpu-b:1"],
        64,
        "begin with --server",
    );
    expect(&["envoy", "--add", "gpu-b:1"], 64, "--dynamic");
    std::fs::write(directory.path().join("lds.yaml"), "").unwrap();
    expect(&begin, 64, "lds.yaml: is there already");
    std::fs::remove_file(directory.path().join("lds.yaml")).unwrap();
    expect(&begin, 0, "envoy -c");
    let change = ["envoy", "--dynamic", path, "--offline"];
    for (more, message) in [
        (["--add", "gpu-a:1"], "http://gpu-a:1 is given twice"),
        (
            ["--add", "gpu-a=gpu-b:1"],
            "another server has the name gpu-a",
        ),
        (
            ["--remove", "gpu-b"],
            "no such server; there are gpu-a (http://gpu-a:1)",
        ),
        (["--remove", "gpu-a"], "it is the only server"),
    ] {
        expect(&[&change[..], &more].concat(), 64, message);
    }
    std::fs::write(directory.path().join("gateway.json"), r#"{ "format": 2 }"#).unwrap();
    expect(
        &[&change[..], &["--add", "x:1"]].concat(),
        65,
        "gateway.json: ",
    );
}

#[test]
fn an_envoy_that_is_not_there_is_told() {
    // Nobody listens at port 1.
    expect(
        &["top", "--once", "--admin", "127.0.0.1:1"],
        69,
        "127.0.0.1:1: ",
    );
    expect(&["top", "--interval", "0"], 64, "give 0.1 to 3600");
}

#[test]
fn help_and_completions_are_no_errors() {
    let (code, help) = paceline(&["--help"]);
    assert_eq!(code, Some(0));
    for command in [
        "envoy",
        "istio",
        "run",
        "top",
        "check",
        "schema",
        "plan",
        "simulate",
        "completion",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} in {help}"
        );
        assert_eq!(paceline(&[command, "--help"]).0, Some(0), "{command}");
    }
    assert!(help.contains("65 configuration refused"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = paceline(&["completion", shell]);
        assert!(
            code == Some(0) && script.contains("model-header"),
            "{shell}"
        );
    }
}

#[test]
fn health_checks_ask_the_servers_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let (config, envoy) = (
        directory.path().join("config.json"),
        directory.path().join("envoy.yaml"),
    );
    let (config_path, envoy_path) = (config.to_str().unwrap(), envoy.to_str().unwrap());
    let write = ["envoy", "--config", config_path, "--out", envoy_path];
    for (text, servers) in [
        (r#"{ "health_check": "vllm" }"#, ["--server", "a:1,b:1"]),
        (
            r#"{ "health_check": { "preset": "vllm" } }"#,
            ["--model", "m=a:1,b:1"],
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        expect(&[&write[..], &servers].concat(), 0, "");
        let written = std::fs::read_to_string(&envoy).unwrap();
        assert!(
            written.contains(r#""cluster_suffix": "-servers""#),
            "{written}"
        );
        let (code, said) = paceline(&["check", envoy_path]);
        assert!(code == Some(0) && !said.contains("warning"), "{said}");
    }
}
