//! Bodies that come, and what is read of them.

use std::collections::BTreeSet;

use super::{BODY, COMINGS, Coming, life, post, send_body, start, unknown, waiting};
use crate::faults::STATUSES;
use crate::fleet::{
    GET, In, Response, pass_throughs, picked, picks, respond, serve, total_in_flight,
};
use crate::host::{Action, Call, CallTable, HeaderMap, Process, Vm, Which};

#[test]
fn a_request_is_routed_once_its_body_is_whole() {
    for coming in COMINGS {
        let process = Process::new();
        let root = start(&process);
        let stream = waiting(&root).unwrap();
        assert_eq!(picked(&stream), None, "the client's own choice");
        assert_eq!(picks(&process), 0);
        assert_eq!(send_body(&stream, coming).unwrap(), Action::Continue);
        let upstream = picked(&stream);
        assert!(
            upstream.is_some_and(|name| name.starts_with("gpu-")),
            "{coming:?}"
        );
        assert_eq!(total_in_flight(&process), 1);
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
        assert_eq!(total_in_flight(&process), 0);
        assert!(pass_throughs(&process).is_empty());
    }
}

#[test]
fn trailers_without_a_body_are_the_end_of_it() {
    let process = Process::new();
    let root = start(&process);
    let stream = waiting(&root).unwrap();
    let action = stream.request_trailers(HeaderMap::default()).unwrap();
    assert_eq!(action, Action::Continue);
    assert_eq!(
        pass_throughs(&process),
        [("unknown_model".into(), 1)].into()
    );
    assert_eq!(picked(&stream), None);
    stream.end().unwrap();
}

#[test]
fn a_request_that_cannot_have_a_body_does_not_wait() {
    let process = Process::new();
    let root = start(&process);
    let large = [("content-length", "1000001")];
    let upgrade = [("upgrade", "websocket")];
    let form = [("content-type", "multipart/form-data; boundary=x")];
    let connect = [(":method", "CONNECT")];
    // Its client sends the body once it is asked to, after the request went on.
    let expects = [("expect", "100-continue")];
    for headers in [large, upgrade, form, connect, expects] {
        let stream = root.stream().unwrap();
        let [(name, _)] = headers;
        let others = GET.into_iter().filter(|(other, _)| *other != name);
        let headers = HeaderMap::new(others.chain(headers));
        let action = stream.request_headers(headers, false).unwrap();
        assert_eq!(action, Action::Continue, "{name}");
        stream.end().unwrap();
    }
    let stream = root.stream().unwrap();
    assert_eq!(
        stream.request_headers(post(), true).unwrap(),
        Action::Continue
    );
    stream.end().unwrap();
    assert_eq!(
        pass_throughs(&process),
        [("unknown_model".into(), 6)].into()
    );
    let name = "paceline_model_unknown_total";
    assert_eq!(unknown(&process, name, "held_back"), 1);
}

#[test]
fn a_body_is_complete_with_its_last_brace() {
    let process = Process::new();
    let root = start(&process);
    for size in [1, 7, BODY.len()] {
        let stream = waiting(&root).unwrap();
        let pieces = BODY.chunks(size);
        let actions: Vec<Action> = pieces
            .map(|piece| stream.request_body(piece, false).unwrap())
            .collect();
        let goes_on = actions.iter().position(|it| *it == Action::Continue);
        assert_eq!(goes_on, Some(actions.len() - 1), "in pieces of {size}");
        assert!(picked(&stream).is_some());
        assert_eq!(stream.request_body(b"", true).unwrap(), Action::Continue);
        stream.end().unwrap();
    }
}

/// Clients that speak both ways at once wait for an answer to what cannot be
/// JSON: an envelope of Connect, a message of Protocol Buffers, lines of JSON.
#[test]
fn a_request_whose_body_cannot_be_an_object_goes_on_at_once() {
    let process = Process::new();
    let root = start(&process);
    let mut expected = 0;
    for parts in [
        &[&b"\0\0\0\0\x0a{\"a\": 1}\n"[..]][..],
        &[b"\x0a\x05hello"],
        &[b"hello"],
        &[b" \n", b"17"],
        &[b"{\"a\": 1}\n{\"b\": 2}\n"],
        &[b"{\"a\"", b" 1"],
    ] {
        let stream = waiting(&root).unwrap();
        for (number, part) in parts.iter().enumerate() {
            let action = stream.request_body(part, false).unwrap();
            let is_last = number + 1 == parts.len();
            assert_eq!(action == Action::Continue, is_last, "{parts:?}");
        }
        expected += 1;
        let name = "paceline_model_unknown_total";
        assert_eq!(unknown(&process, name, "malformed"), expected, "{parts:?}");
        stream.end().unwrap();
    }
}

#[test]
fn a_request_with_a_body_survives_each_host_call_failing_in_each_way() {
    for coming in COMINGS {
        let calls = {
            let process = Process::new();
            let root = start(&process);
            root.vm.take_calls();
            life(&process, &root, coming).unwrap();
            root.vm.take_calls()
        };
        let functions: BTreeSet<&str> = calls.iter().map(|call| call.function).collect();
        let each = (0..calls.len()).map(Which::At);
        let every = functions.into_iter().map(Which::Every);
        for which in each.chain(every).chain((0..calls.len()).map(Which::From)) {
            for status in STATUSES {
                let case = format!("{which:?} failing with {status:?}, body {coming:?}");
                let process = Process::new();
                let root = start(&process);
                root.vm.fail(which, status);
                life(&process, &root, coming).in_case(&case);
                root.vm.clear_plans();
                root.tick().in_case(&case);
                assert_eq!(total_in_flight(&process), 0, "{case}");
                assert!(life(&process, &root, coming).in_case(&case), "{case}");
            }
        }
    }
}

#[test]
fn a_body_costs_few_host_calls_and_those_without_one_none() {
    let process = Process::new();
    let root = start(&process);
    for _ in 0..20 {
        life(&process, &root, Coming::AtOnce).unwrap();
    }
    root.vm.take_calls();
    life(&process, &root, Coming::AtOnce).unwrap();
    let calls = root.vm.take_calls();
    let table = CallTable::new(&calls);
    println!("host calls of a request with a model and a size in its body:\n{table}\n");
    let asked = |calls: &[Call]| {
        let of_request = |call: &&Call| call.callback.starts_with("proxy_on_request");
        let headers = |call: &&Call| call.function == "proxy_get_header_map_value";
        calls.iter().filter(of_request).filter(headers).count()
    };
    // upgrade, :method, content-type, content-length, expect
    assert_eq!(asked(&calls), 5, "{table}");
    assert_eq!(table.calls_of("proxy_get_buffer_bytes"), 1, "{table}");

    let plain = Vm::start(&process, crate::fleet::TWO).unwrap();
    for _ in 0..20 {
        serve(&process, &plain).unwrap();
    }
    plain.vm.take_calls();
    serve(&process, &plain).unwrap();
    assert_eq!(
        asked(&plain.vm.take_calls()),
        0,
        "the smallest configuration"
    );
    // What it does not tell is nothing to be counted.
    let unknown = process.counters("paceline_size_unknown_total;pool=default");
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn any_bytes_in_a_body_leave_the_vm_alive() {
    let process = Process::new();
    let root = start(&process);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let mut body = BODY.to_vec();
        for _ in 0..random.usize(0..6) {
            let place = random.usize(0..body.len());
            body[place] = random.u8(..);
        }
        body.truncate(random.usize(0..=body.len()));
        let stream = waiting(&root).unwrap();
        assert_eq!(stream.request_body(&body, true).unwrap(), Action::Continue);
        stream.end().unwrap();
    }
    let deep = format!("{{\"messages\":{}", "[{\"content\":".repeat(50_000));
    let stream = waiting(&root).unwrap();
    assert_eq!(
        stream.request_body(deep.as_bytes(), true).unwrap(),
        Action::Continue
    );
    stream.end().unwrap();
    assert!(life(&process, &root, Coming::AtOnce).unwrap());
    assert_eq!(total_in_flight(&process), 0);
}
