//! The state that the built filter tells, from a root context that serves nothing else.

use crate::faults::STATUSES;
use crate::fleet::{GET, TWO};
use crate::host::{Action, CallTable, HeaderMap, LocalResponse, Plugin, Process, Root, Vm, Which};
use serde_json::{Value, json};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(250);

/// The configuration of the one that tells the state.
fn telling() -> String {
    let mut config: Value = serde_json::from_str(TWO).unwrap();
    config["status"] = json!({ "path": "/paceline" });
    config.to_string()
}

/// Workers as Envoy has them: in each VM a plugin for clients and one for the state.
fn workers(process: &Process, count: usize) -> Vec<[Root; 2]> {
    let worker = |_| {
        let serving = Vm::start(process, TWO).unwrap();
        let telling = serving.vm.create_root(Plugin::new(telling())).unwrap();
        assert!(telling.configure().unwrap());
        [serving, telling]
    };
    (0..count).map(worker).collect()
}

fn tick(process: &Process, workers: &[[Root; 2]]) {
    process.advance(TICK);
    for root in workers.iter().flatten() {
        root.tick().unwrap();
    }
}

/// What is answered to a request for the state, if anything.
fn ask(telling: &Root) -> Option<LocalResponse> {
    let stream = telling.stream().unwrap();
    let headers = [(":method", "GET"), (":path", "/paceline?format=json")];
    let action = stream
        .request_headers(HeaderMap::new(headers), true)
        .unwrap();
    let answered = stream.local_response();
    assert_eq!(action == Action::Pause, answered.is_some());
    stream.end().unwrap();
    answered
}

fn state(telling: &Root) -> Value {
    let answered = ask(telling).unwrap();
    assert_eq!(answered.status, 200);
    serde_json::from_slice(&answered.body).unwrap()
}

#[test]
fn all_workers_tell_the_same_counts_and_decisions() {
    let process = Process::new();
    let workers = workers(&process, 3);
    state(&workers[2][1]);
    tick(&process, &workers);
    let open: Vec<_> = (0..6)
        .map(|number| workers[number % 2][0].request(GET).unwrap())
        .collect();
    tick(&process, &workers);
    for [_, telling] in &workers {
        let state = state(telling);
        let upstreams = state["pools"][0]["upstreams"].as_array().unwrap();
        let in_flight: Vec<_> = upstreams.iter().map(|it| &it["in_flight"]).collect();
        assert_eq!(in_flight, [3, 3]);
        let lanes: Vec<_> = state["workers"].as_array().unwrap().iter().collect();
        assert_eq!(lanes.len(), 2, "{state}");
        assert!(lanes.iter().all(|it| it["in_flight"] == 3), "{state}");
        assert_eq!(state["decisions"].as_array().unwrap().len(), 6, "{state}");
    }
    for stream in open {
        stream.end().unwrap();
    }
    tick(&process, &workers);
    let state = state(&workers[0][1]);
    assert_eq!(state["pools"][0]["upstreams"][1]["in_flight"], 0);
}

#[test]
fn nothing_is_spent_while_nobody_looks() {
    let process = Process::new();
    let workers = workers(&process, 2);
    let keys = || {
        let all = process.keys(crate::host::VM_ID);
        let ends = |end: &str| {
            all.iter()
                .filter(|key| key.ends_with(end.as_bytes()))
                .count()
        };
        (ends("/looked"), ends("/decisions"))
    };
    let life = |worker: usize| workers[worker][0].request(GET).unwrap().end().unwrap();
    (0..2).for_each(life);
    tick(&process, &workers);
    for [serving, telling] in &workers {
        serving.vm.take_calls();
        telling.tick().unwrap();
        // The time is all that it asks for.
        let table = CallTable::new(&telling.vm.take_calls());
        assert_eq!(table.calls_of("clock_time_get"), table.calls(), "{table}");
    }
    (0..2).for_each(life);
    tick(&process, &workers);
    assert_eq!(keys(), (0, 0));
    state(&workers[0][1]);
    tick(&process, &workers);
    (0..2).for_each(life);
    tick(&process, &workers);
    assert_eq!(keys(), (1, 2));
}

#[test]
fn a_failing_host_hurts_no_request() {
    for function in [
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "proxy_send_local_response",
        "proxy_get_header_map_value",
        "proxy_get_property",
    ] {
        for status in STATUSES {
            let process = Process::new();
            let workers = workers(&process, 1);
            let [serving, telling] = &workers[0];
            telling.vm.fail(Which::Every(function), status);
            let _ = ask(telling);
            telling.tick().unwrap();
            telling.vm.clear_plans();
            assert!(ask(telling).is_some(), "{function} {status:?}");
            serving.request(GET).unwrap().end().unwrap();
        }
    }
}
