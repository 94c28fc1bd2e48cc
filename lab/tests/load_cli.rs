//! `lab load` against emulated servers.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use lab::model::{Control, Fleet};
use lab::serve::{Endpoint, FleetServer, Options};
use serde_json::Value;

const TIME_SCALE: &str = "40";

fn server() -> FleetServer {
    let fleet = Fleet::from_json(
        r#"{ "servers": [ { "name": "only", "kind": "batching", "gpu": "h100" } ] }"#,
    );
    let options = Options {
        time_scale: TIME_SCALE.parse().unwrap(),
        ..Options::default()
    };
    FleetServer::start(&fleet.unwrap(), &options).unwrap()
}

fn load(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab"))
        .args([
            "load",
            "--url",
            url,
            "--rate",
            "10",
            "--time-scale",
            TIME_SCALE,
        ])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn figures_go_to_a_table_and_to_files() {
    let server = server();
    let url = format!("http://{}", server.endpoints()[0].address);
    let directory = tempfile::tempdir().unwrap();
    let (json, svg) = (
        directory.path().join("load.json"),
        directory.path().join("load.svg"),
    );
    let output = load(
        &url,
        &[
            "--requests",
            "100",
            "--json",
            json.to_str().unwrap(),
            "--svg",
            svg.to_str().unwrap(),
        ],
    );
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for shown in ["p99", "to only", "schedule delay: median"] {
        assert!(told.contains(shown), "{told}");
    }
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(json["url"], url);
    assert_eq!(json["workload"], "conversation, arrivals poisson");
    assert_eq!(json["requests"]["statuses"]["200"], 90);
    assert_eq!(json["upstreams"]["only"], 90);
    assert!(json["latency"]["p99"].as_f64().unwrap() >= json["latency"]["p50"].as_f64().unwrap());
    assert!(fs::read_to_string(svg).unwrap().contains("</svg>"));
    assert_eq!(server.status("only").unwrap().counters.done, 100);
}

#[test]
fn several_targets_stand_side_by_side() {
    let server = server();
    let url = format!("http://{}", server.endpoints()[0].address);
    let (one, other) = (format!("one={url}"), format!("other={url}/infer?a=b"));
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("load.json");
    let output = load(
        &one,
        &[
            "--url",
            &other,
            "--requests",
            "40",
            "--wait",
            "30",
            "--json",
            json.to_str().unwrap(),
        ],
    );
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for shown in ["one", "other", "p99 of other", "other against one: p99"] {
        assert!(told.contains(shown), "{shown}: {told}");
    }
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    for (series, name) in [(0, "one"), (1, "other")] {
        assert_eq!(json["series"][series]["name"], name);
        let statuses = &json["series"][series]["runs"][0]["requests"]["statuses"];
        assert_eq!(statuses["200"], 36, "{name}");
    }
    assert_eq!(
        json["setting"]["workload"],
        "conversation, arrivals poisson"
    );
}

#[test]
fn a_target_that_is_not_ready_is_waited_for() {
    let server = server();
    let Endpoint { name, address, .. } = &server.endpoints()[0];
    let unready = Control {
        ready: Some(false),
        ..Control::default()
    };
    server.control(name, &unready).unwrap();
    let url = format!("http://{address}");
    let refused = load(&url, &["--requests", "1", "--wait", "0.3"]);
    let told = text(&refused);
    assert!(!refused.status.success(), "{told}");
    assert!(
        told.contains("GET /health was not answered with 200 within 300ms; last: 503"),
        "{told}"
    );
    assert_eq!(server.status(name).unwrap().counters.done, 0);
}

#[test]
fn chats_are_understood_and_streamed_ones_begin_early() {
    let server = server();
    let url = format!("http://{}", server.endpoints()[0].address);
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("load.json");
    for (form, is_streamed) in [("chat", false), ("chat-stream", true)] {
        let output = load(
            &url,
            &[
                "--form",
                form,
                "--requests",
                "40",
                "--json",
                json.to_str().unwrap(),
            ],
        );
        assert!(output.status.success(), "{}", text(&output));
        let json: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
        assert_eq!(json["requests"]["statuses"]["200"], 36, "{form}");
        let p50 = |of: &str| json[of]["p50"].as_f64().unwrap();
        assert_eq!(
            p50("first_byte") < 0.5 * p50("latency"),
            is_streamed,
            "{form}: {json:#}"
        );
    }
    let output = load(
        &url,
        &["--form", "chat", "--model", "other", "--requests", "10"],
    );
    assert!(!output.status.success());
    let told = text(&output);
    assert!(
        told.contains("9 x 404") && told.contains("no request was answered with a 2xx status"),
        "{told}"
    );
}

#[test]
fn what_went_wrong_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = load(&closed, &["--requests", "10"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused);
    assert!(
        told.contains(&format!(
            "9 x connection failed (no connection to {closed}: "
        )),
        "{told}"
    );
    for (arguments, expected) in [
        (
            &["--model", "a"][..],
            "--model: requests of the form infer name no model",
        ),
        (
            &["--timeout=-1"],
            "'--timeout <SECONDS>': allowed are seconds",
        ),
        (&["--warm-up", "0.95"], "warm-up: 0.95 is not allowed"),
        (
            &["--arrivals", "recorded"],
            "recorded arrivals need a trace",
        ),
        (&["--trace", "no-such.csv"], "no-such.csv: "),
    ] {
        let output = load(&closed, arguments);
        assert!(!output.status.success());
        let told = text(&output);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}
