//! `lab compare` on a real Envoy, which `make setup` installs, with the filter that `make build` builds.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const POLICIES: [&str; 5] = [
    "envoy:round_robin",
    "envoy:random",
    "envoy:least_request",
    "envoy:least_request_full_scan",
    "paceline:shortest_expected_delay",
];

fn lab(arguments: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("compare").args(arguments).arg("--out").arg(out);
    command
}

fn json(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("compare.json")).unwrap()).unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

#[test]
fn every_policy_serves_the_same_requests() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("new/out");
    let policies = POLICIES.join(",");
    let output = lab(
        &[
            "--policies",
            &policies,
            "--requests",
            "300",
            "--seeds",
            "2",
            "--time-scale",
            "40",
            "--load",
            "0.3",
        ],
        &out,
    )
    .output()
    .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");

    let json = json(&out);
    let series = json["series"].as_array().unwrap();
    assert_eq!(series.len(), POLICIES.len());
    for (series, policy) in series.iter().zip(POLICIES) {
        assert_eq!(series["name"], policy);
        let runs = series["runs"].as_array().unwrap();
        let seeds: Vec<_> = runs
            .iter()
            .map(|run| run["seed"].as_u64().unwrap())
            .collect();
        assert_eq!(seeds, [1, 2]);
        for run in runs {
            // A tenth of the 300 was the warm-up.
            assert_eq!(run["requests"]["statuses"]["200"], 270, "{policy}: {run:#}");
            assert_eq!(run["warm_up"]["statuses"]["200"], 30, "{policy}");
            let upstreams = run["upstreams"].as_object().unwrap();
            let served: u64 = upstreams
                .values()
                .map(|count| count.as_u64().unwrap())
                .sum();
            assert_eq!(served, 270, "{policy}");
            assert!(!upstreams.contains_key("(unknown)"), "{policy}");
            // The filter picked for every request, or a remark would say otherwise.
            assert_eq!(run["remarks"], Value::Array(Vec::new()), "{policy}");
        }
    }
    // Round robin is told from the others by its counts: 33 or 34 of the 270 for each of the eight servers.
    let upstreams = series[0]["runs"][0]["upstreams"].as_object().unwrap();
    assert_eq!(upstreams.len(), 8);
    assert!(
        upstreams
            .values()
            .all(|count| (32..=36).contains(&count.as_u64().unwrap())),
        "{upstreams:?}"
    );
    assert_eq!(json["ratios"].as_array().unwrap().len(), 20);
    let load = json["setting"]["load"].as_f64().unwrap();
    let rate =
        json["setting"]["rate"].as_f64().unwrap() / json["setting"]["capacity"].as_f64().unwrap();
    assert!((load - 0.3).abs() < 1e-9 && (rate - 0.3).abs() < 1e-9);

    assert!(
        fs::read_to_string(out.join("compare.svg"))
            .unwrap()
            .contains("</svg>")
    );
    for shown in [
        "p99 of shortest_expected_delay",
        "to h100-1",
        "against envoy:random: p99",
    ] {
        assert!(told.contains(shown), "{told}");
    }
}

#[test]
fn a_trace_is_replayed_at_the_wanted_load() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("own.csv");
    let rows: String = (0..120)
        .map(|n| format!("2024-01-01 00:{:02}:{:02},{},20\n", n / 60, n % 60, 100 + n))
        .collect();
    fs::write(
        &trace,
        format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}"),
    )
    .unwrap();
    let trace = trace.to_str().unwrap();
    let output = lab(
        &[
            "--policies",
            "envoy:random",
            "--trace",
            trace,
            "--time-scale",
            "10",
        ],
        directory.path(),
    )
    .output()
    .unwrap();
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the trace has 120 rows"), "{told}");
    let json = json(directory.path());
    assert_eq!(json["setting"]["requests"], 120);
    assert_eq!(
        json["series"][0]["runs"][0]["requests"]["statuses"]["200"],
        108
    );
}

#[test]
fn an_interrupt_ends_envoy() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = lab(
        &["--policies", "envoy:random", "--time-scale", "1"],
        directory.path(),
    )
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(lab.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("run 1 of 1")));
    let envoy = within(Duration::from_secs(30), || only_child(lab.id()));
    kill_process(Pid::from_child(&lab), Signal::INT).unwrap();
    let status = within(Duration::from_secs(30), || lab.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(rest, ["lab: interrupted"]);
    assert!(test_kill_process(envoy).is_err(), "Envoy still runs");
    assert!(!directory.path().join("compare.json").exists());
}

/// What `condition` gives as soon as it gives something.
fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The child process of that process.
fn only_child(parent: u32) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children = threads
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).ok());
    let children: String = children.collect();
    Pid::from_raw(children.split_whitespace().next()?.parse().unwrap())
}

#[test]
fn what_is_missing_is_named_with_the_target_that_builds_it() {
    let directory = tempfile::tempdir().unwrap();
    let told = |variable: &str, arguments: &[&str]| {
        let output = lab(arguments, directory.path())
            .env(variable, "/nowhere/at/all")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output)
    };
    let envoy = told("PACELINE_ENVOY", &[]);
    assert!(
        envoy.contains("no Envoy at /nowhere/at/all") && envoy.contains("make setup"),
        "{envoy}"
    );
    let filter = told("PACELINE_WASM", &[]);
    assert!(
        filter.contains("no filter at /nowhere/at/all") && filter.contains("make build"),
        "{filter}"
    );
}

#[test]
fn what_cannot_be_compared_is_refused_before_the_first_run() {
    let directory = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = lab(arguments, directory.path()).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    for (arguments, expected) in [
        (&["--load", "3"][..], "load: 3 is not allowed, 0.01 to 2 is"),
        (&["--time-scale", "0"], "time scale: 0.0 is not allowed"),
        (&["--warm-up", "1"], "warm-up: 1.0 is not allowed"),
        (&["--requests", "0"], "0 requests are not allowed"),
        (&["--workers", "0"], "workers: 0 is not allowed"),
        (
            &["--policies", "envoy:random,envoy:random"],
            "policy envoy:random is given twice",
        ),
        (&["--policies", "envoy:maglev"], "allowed are round_robin"),
        (&["--fleet", "no-such"], "--fleet"),
        (&["--trace", "no-such.csv"], "no-such.csv: "),
        (&["--workload", "diffusion"], "slots8"),
    ] {
        let told = told(arguments);
        assert!(told.contains(expected), "{arguments:?}: {told}");
        assert!(!told.contains("run 1 of"), "{told}");
    }
}
