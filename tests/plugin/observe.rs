//! Requests that take Envoy's own route while the filter watches, and what the access
//! log tells.

use crate::faults::STATUSES;
use crate::fleet::{GET, In, Response, in_flight, picked, respond, total_in_flight};
use crate::host::{
    Action, HeaderMap, Process, Property, Root, Status, Stream, Vm, VmResult, Which,
};
use std::time::Duration;

const OBSERVE: &str = r#"{ "mode": "observe", "explain": true, "access_log": true,
    "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ] }"#;

/// What names the upstream that Envoy chose where the filter did not.
pub(crate) const METADATA: [&str; 5] = [
    "xds",
    "upstream_host_metadata",
    "filter_metadata",
    "paceline",
    "upstream",
];

/// Envoy has a connection to this upstream's server.
fn connect(stream: &Stream, upstream: &str) {
    // The one that the answer comes from.
    let address = Property::text("10.0.0.1:8000");
    stream.set_property(&["upstream", "address"], address);
    stream.set_property(&METADATA, Property::text(upstream));
}

/// The whole of a request that Envoy sends to `gpu-b`.
fn life(process: &Process, root: &Root) -> VmResult<Vec<Action>> {
    let stream = root.stream()?;
    let mut actions = vec![stream.request_headers(HeaderMap::new(GET), false)?];
    connect(&stream, "gpu-b");
    actions.push(stream.request_body(b"a prompt", true)?);
    actions.extend(respond(process, &stream, &Response::OK)?);
    assert_eq!(picked(&stream), None);
    assert_eq!(stream.local_response(), None);
    stream.end()?;
    Ok(actions)
}

fn observed(process: &Process) -> u64 {
    process.counters("paceline_observed_total;").values().sum()
}

#[test]
fn a_request_counts_where_envoy_sends_it() {
    let process = Process::new();
    let root = Vm::start(&process, OBSERVE).unwrap();
    let forged = [
        (":method", "GET"),
        (":path", "/"),
        ("x-upstream-cluster", "gpu-a"),
    ];
    let stream = root.stream().unwrap();
    stream
        .request_headers(HeaderMap::new(forged), true)
        .unwrap();
    assert_eq!(picked(&stream), None, "the client's own header is gone");
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0, "Envoy has no connection yet");
    connect(&stream, "gpu-b");
    root.tick().unwrap();
    assert_eq!(in_flight(&process)["gpu-b"], 1);
    respond(&process, &stream, &Response::OK).unwrap();
    let shown = stream.received_headers();
    let shown: Vec<_> = shown.get_all(b"x-paceline-decision").collect();
    let shown = String::from_utf8(shown[0].to_vec()).unwrap();
    assert!(shown.starts_with("observe; upstream=gpu-"), "{shown}");
    assert!(shown.ends_with("; served_by=gpu-b"), "{shown}");
    let logged = stream.filter_state("paceline").unwrap();
    assert!(
        logged.starts_with("decision=observed; upstream=gpu-"),
        "{logged}"
    );
    assert!(
        logged.ends_with("; reason=policy; served_by=gpu-b"),
        "{logged}"
    );
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    assert_eq!(observed(&process), 1);
    let outcome = "paceline_outcomes_total;pool=default;upstream=gpu-b;outcome=success";
    assert_eq!(process.counter(outcome), 1);
}

#[test]
fn a_request_survives_each_host_call_failing_in_each_way() {
    let calls = {
        let process = Process::new();
        let root = Vm::start(&process, OBSERVE).unwrap();
        life(&process, &root).unwrap();
        root.vm.take_calls();
        life(&process, &root).unwrap();
        root.vm.take_calls()
    };
    let functions: Vec<_> = calls
        .iter()
        .map(|call| Which::Every(call.function))
        .collect();
    for which in (0..calls.len()).map(Which::At).chain(functions) {
        for status in STATUSES {
            survives(which, status);
        }
    }
}

fn survives(which: Which, status: Status) {
    let process = Process::new();
    let root = Vm::start(&process, OBSERVE).unwrap();
    life(&process, &root).unwrap();
    root.tick().unwrap();
    root.vm.take_calls();
    let case = format!("{which:?} failing with {status:?}");
    root.vm.fail(which, status);
    let actions = life(&process, &root).in_case(&case);
    assert!(
        actions.iter().all(|it| *it == Action::Continue),
        "{case}: {actions:?}"
    );
    root.vm.clear_plans();
    // Ticks that look for servers come between those that make up for a failed write.
    process.advance(Duration::from_millis(250));
    root.tick().in_case(&case);
    assert_eq!(total_in_flight(&process), 0, "{case}, after a tick");
    let before = observed(&process);
    life(&process, &root).in_case(&case);
    assert_eq!(observed(&process), before + 1, "{case}");
    process.advance(Duration::from_millis(250));
    root.tick().in_case(&case);
    assert_eq!(
        total_in_flight(&process),
        0,
        "{case}, after another request"
    );
}

#[test]
fn the_access_log_costs_one_call_and_nothing_where_it_is_off() {
    let calls = |config: &str| {
        let process = Process::new();
        let root = Vm::start(&process, config).unwrap();
        let life = || {
            let stream = root.request(GET).unwrap();
            respond(&process, &stream, &Response::OK).unwrap();
            stream.end().unwrap();
        };
        life();
        root.vm.take_calls();
        life();
        let calls = root.vm.take_calls();
        let sets = calls
            .iter()
            .filter(|it| it.function == "proxy_set_property");
        (calls.len(), sets.count())
    };
    let off = r#"{ "upstreams": [ { "cluster": "gpu-a" } ] }"#;
    let (without, none) = calls(off);
    let (with, one) = calls(&off.replace("{ \"up", "{ \"access_log\": true, \"up"));
    assert_eq!((none, one), (0, 1));
    assert_eq!(with, without + 1);
}
