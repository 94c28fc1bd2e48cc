//! Every host call of a request's life fails, one at a time and in every way,
//! and no user notices.

use crate::fleet::{GET, In, LEASE, Response, TWO};
use crate::fleet::{pass_throughs, picked, respond, serve, total_in_flight};
use crate::host::{Action, HeaderMap, Plugin, Process, Root, Status, VM_ID, Vm, VmResult, Which};
use std::collections::BTreeSet;

pub(crate) const STATUSES: [Status; 9] = [
    Status::NotFound,
    Status::BadArgument,
    Status::SerializationFailure,
    Status::ParseFailure,
    Status::InvalidMemoryAccess,
    Status::Empty,
    Status::CasMismatch,
    Status::InternalFailure,
    Status::Unimplemented,
];

/// A request from its headers to its end, with a body, on an upstream that
/// answers well. Where it went, and all that the filter told Envoy on the way.
pub(crate) fn life(process: &Process, root: &Root) -> VmResult<(Option<String>, Vec<Action>)> {
    let stream = root.stream()?;
    let mut actions = vec![stream.request_headers(HeaderMap::new(GET), false)?];
    actions.push(stream.request_body(b"a prompt", true)?);
    actions.extend(respond(process, &stream, &Response::OK)?);
    let local_response = stream.local_response();
    assert_eq!(
        local_response, None,
        "the filter answered in the upstream's place"
    );
    assert!(!stream.closed(), "the filter reset the stream");
    let upstream = picked(&stream);
    stream.end()?;
    Ok((upstream, actions))
}

/// A worker before its first request, or after it.
fn worker(process: &Process, seasoned: bool) -> Root {
    let root = Vm::start(process, TWO).unwrap();
    if seasoned {
        // Long enough to write without reading.
        for _ in 0..3 {
            life(process, &root).unwrap();
        }
        root.tick().unwrap();
    }
    root.vm.take_calls();
    root
}

/// Runs a request with `which` failing, and checks all that must hold. Whether
/// the request was routed, or counted as passing through.
fn survives(seasoned: bool, which: Which, code: u32) -> bool {
    let process = Process::new();
    let root = worker(&process, seasoned);
    root.vm.fail(which, code);
    let context = format!("{which:?} failing with {code}, seasoned: {seasoned}");
    let (upstream, actions) = life(&process, &root).in_case(&context);
    let accounted = upstream.is_some() || !pass_throughs(&process).is_empty();
    let paused = actions.iter().any(|action| *action != Action::Continue);
    assert!(!paused, "{context}: {actions:?}");
    root.vm.clear_plans();
    root.tick().in_case(&context);
    assert_eq!(total_in_flight(&process), 0, "{context}, after a tick");
    let upstream = serve(&process, &root).in_case(&context);
    assert!(
        upstream.is_some(),
        "{context}: the next request was not routed"
    );
    assert_eq!(
        total_in_flight(&process),
        0,
        "{context}, after another request"
    );
    accounted
}

fn every_call_failing_in_every_way(seasoned: bool) {
    let process = Process::new();
    let root = worker(&process, seasoned);
    life(&process, &root).unwrap();
    let calls = root.vm.take_calls();
    assert!(
        calls.len() > 10,
        "{} host calls in a request's life",
        calls.len()
    );
    for index in 0..calls.len() {
        for status in STATUSES {
            let accounted = survives(seasoned, Which::At(index), status.into());
            assert!(
                accounted,
                "neither routed nor counted: call {index}, {status:?}"
            );
        }
    }
}

#[test]
fn a_first_request_survives_each_host_call_failing_in_each_way() {
    every_call_failing_in_every_way(false);
}

#[test]
fn a_later_request_survives_each_host_call_failing_in_each_way() {
    every_call_failing_in_every_way(true);
}

#[test]
fn a_request_survives_a_host_function_that_always_fails() {
    let process = Process::new();
    let root = worker(&process, false);
    life(&process, &root).unwrap();
    let calls = root.vm.take_calls();
    let functions: BTreeSet<&str> = calls.iter().map(|call| call.function).collect();
    for function in functions {
        for status in STATUSES {
            survives(false, Which::Every(function), status.into());
            survives(true, Which::Every(function), status.into());
        }
    }
}

#[test]
fn a_request_survives_a_host_that_fails_from_some_call_on() {
    let process = Process::new();
    let root = worker(&process, true);
    life(&process, &root).unwrap();
    for index in 0..root.vm.take_calls().len() {
        survives(true, Which::From(index), Status::InternalFailure.into());
    }
}

#[test]
fn a_start_survives_each_host_call_failing_in_each_way() {
    let process = Process::new();
    let vm = Vm::start(&process, TWO).unwrap().vm;
    let calls = vm.take_calls();
    for index in 0..calls.len() {
        for status in STATUSES {
            starts(Which::At(index), status);
        }
    }
    let functions: BTreeSet<&str> = calls.iter().map(|call| call.function).collect();
    for function in functions {
        for status in STATUSES {
            starts(Which::Every(function), status);
        }
    }
}

/// Starts a worker with `which` failing. It may refuse its configuration; if it
/// takes it, it serves.
fn starts(which: Which, status: Status) {
    let context = format!("{which:?} failing with {status:?} at the start");
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    vm.fail(which, status);
    let root = vm.create_root(Plugin::new(TWO));
    let root = root.in_case(&context);
    let taken = root.configure().in_case(&context);
    vm.clear_plans();
    let upstream = serve(&process, &root).in_case(&context);
    root.tick().in_case(&context);
    assert_eq!(
        upstream.is_some(),
        taken,
        "{context}: routed, and configured"
    );
    assert_eq!(total_in_flight(&process), 0, "{context}");
}

#[test]
fn a_tick_survives_each_host_call_failing_in_each_way() {
    let calls = {
        let process = Process::new();
        let root = worker(&process, true);
        process.advance(LEASE / 2);
        root.tick().unwrap();
        root.vm.take_calls().len()
    };
    assert!(calls > 0, "a tick renews the lease");
    for index in 0..calls {
        for status in STATUSES {
            let context = format!("call {index} of a tick failing with {status:?}");
            let process = Process::new();
            let root = worker(&process, true);
            let stream = root.request(GET).unwrap();
            process.advance(LEASE / 2);
            root.vm.fail(Which::At(index), status);
            root.tick().in_case(&context);
            root.vm.clear_plans();
            root.tick().in_case(&context);
            assert_eq!(total_in_flight(&process), 1, "{context}");
            stream.end().unwrap();
            assert_eq!(total_in_flight(&process), 0, "{context}");
        }
    }
}
