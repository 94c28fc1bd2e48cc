//! Requests that wait for their bodies: none waits for ever, whatever the host
//! does, and none leaves anything behind.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::STATUSES;
use crate::fleet::{
    GET, In, Response, pass_throughs, picked, picks, respond, serve, total_in_flight,
};
use crate::host::{
    Action, Call, CallTable, HeaderMap, Plugin, Process, Property, Root, Stream, VM_ID, Vm,
    VmResult, Which,
};

/// Sizes and models are in the body.
const BY_BODY: &str = r#"{ "pools": [ {
    "name": "llama",
    "match": { "model": { "prefix": "llama" } },
    "request_size": "openai",
    "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ]
} ] }"#;

const BODY: &[u8] = br#"{"model": "llama-8b", "messages": [{"role": "user", "content": "hello"}]}"#;

/// A request whose client names a cluster itself.
fn post() -> HeaderMap {
    let own = [("x-upstream-cluster", "forged")];
    HeaderMap::new(GET.into_iter().chain(own))
}

/// Bytes that Envoy has received for the request.
fn receive(stream: &Stream, bytes: i64) {
    stream.set_property(&["request", "total_size"], Property::int(bytes));
}

fn start(process: &Process) -> Root {
    Vm::start(process, BY_BODY).unwrap()
}

/// A request that waits for its body.
fn waiting(root: &Root) -> VmResult<Stream> {
    let stream = root.stream()?;
    receive(&stream, 200);
    assert_eq!(stream.request_headers(post(), false)?, Action::Pause);
    Ok(stream)
}

fn unknown(process: &Process, name: &str, reason: &str) -> u64 {
    let all = process.counters(name);
    let ending = format!("reason={reason}");
    all.iter()
        .filter(|(name, _)| name.ends_with(&ending))
        .map(|(_, count)| count)
        .sum()
}

/// How a body may come.
#[derive(Clone, Copy, Debug)]
enum Coming {
    AtOnce,
    InPieces,
    WithTrailers,
}

const COMINGS: [Coming; 3] = [Coming::AtOnce, Coming::InPieces, Coming::WithTrailers];

fn send_body(stream: &Stream, coming: Coming) -> VmResult<Action> {
    match coming {
        Coming::AtOnce => stream.request_body(BODY, true),
        Coming::InPieces => {
            let mut action = Action::Pause;
            for (number, piece) in BODY.chunks(7).enumerate() {
                action = stream.request_body(piece, (number + 1) * 7 >= BODY.len())?;
            }
            Ok(action)
        }
        Coming::WithTrailers => {
            stream.request_body(BODY, false)?;
            stream.request_trailers(HeaderMap::default())
        }
    }
}

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
    for headers in [large, upgrade, form] {
        let stream = root.stream().unwrap();
        let headers = HeaderMap::new(GET.into_iter().chain(headers));
        let action = stream.request_headers(headers, false).unwrap();
        assert_eq!(action, Action::Continue);
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
        [("unknown_model".into(), 4)].into()
    );
}

#[test]
fn a_body_that_is_kept_back_is_noticed_once_a_part_of_it_has_come() {
    let process = Process::new();
    let root = start(&process);
    let stream = waiting(&root).unwrap();
    assert_eq!(root.tick_period(), Some(Duration::from_millis(10)));
    for _ in 0..5 {
        process.advance(Duration::from_millis(10));
        root.tick().unwrap();
    }
    assert!(!stream.resumed(), "nothing of the body has come yet");
    receive(&stream, 300);
    root.tick().unwrap();
    assert!(stream.resumed());
    assert_eq!(picked(&stream), None);
    assert_eq!(root.tick_period(), Some(Duration::from_millis(250)));
    // What was kept back comes now, and passes.
    assert_eq!(stream.request_body(BODY, true).unwrap(), Action::Continue);
    stream.end().unwrap();
    let name = "paceline_model_unknown_total";
    assert_eq!(unknown(&process, name, "not_shown"), 1);

    // No further request waits, until one tries again.
    for _ in 0..3 {
        let next = root.stream().unwrap();
        let action = next.request_headers(post(), false).unwrap();
        assert_eq!(action, Action::Continue);
        next.end().unwrap();
    }
    process.advance(Duration::from_secs(61));
    let one = waiting(&root).unwrap();
    let other = root.stream().unwrap();
    let action = other.request_headers(post(), false).unwrap();
    assert_eq!(action, Action::Continue, "one at a time");
    assert_eq!(one.request_body(BODY, true).unwrap(), Action::Continue);
    assert!(picked(&one).is_some());
    // Bodies are shown again: requests wait as before, and ticks are rare.
    let next = waiting(&root).unwrap();
    root.tick().unwrap();
    assert_eq!(root.tick_period(), Some(Duration::from_millis(250)));
    for stream in [one, other, next] {
        stream.end().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_wait_is_over_after_its_time() {
    // With a host that tells what it has received, and with one that does not.
    for tells in [true, false] {
        let process = Process::new();
        let root = start(&process);
        let stream = root.stream().unwrap();
        if tells {
            receive(&stream, 200);
        }
        let action = stream.request_headers(post(), false).unwrap();
        assert_eq!(action, Action::Pause);
        process.advance(Duration::from_millis(4999));
        root.tick().unwrap();
        assert!(!stream.resumed());
        process.advance(Duration::from_millis(1));
        root.tick().unwrap();
        assert!(stream.resumed());
        assert_eq!(picked(&stream), None);
        let reason = if tells { "late" } else { "not_shown" };
        let name = "paceline_model_unknown_total";
        assert_eq!(unknown(&process, name, reason), 1, "{reason}");
        stream.end().unwrap();
    }
}

/// A filter in an Envoy 1 of this minor version.
fn start_in(process: &Process, minor_version: u64) -> Root {
    let plugin = Plugin {
        minor_version: Some(minor_version),
        ..Plugin::new(BY_BODY)
    };
    let vm = Vm::boot(process, VM_ID).unwrap();
    let root = vm.create_root(plugin).unwrap();
    assert!(root.configure().unwrap());
    root
}

#[test]
fn a_body_of_no_declared_length_is_complete_with_its_last_brace() {
    let process = Process::new();
    for root in [start(&process), start_in(&process, 36)] {
        let stream = waiting(&root).unwrap();
        assert_eq!(stream.request_body(BODY, false).unwrap(), Action::Continue);
        assert!(picked(&stream).is_some());
        assert_eq!(stream.request_body(b"", true).unwrap(), Action::Continue);
        stream.end().unwrap();
    }
    let name = "paceline_model_unknown_total";
    assert_eq!(unknown(&process, name, "undeclared"), 0);
}

/// Before 1.37 Envoy's buffer is the default one while a request waits, and over
/// HTTP/1 one more part of a body may be larger than that.
#[test]
fn an_old_envoy_is_given_nothing_to_keep_that_might_outgrow_its_buffer() {
    for (version, protocol, declared, expected) in [
        (36, "HTTP/1.1", false, Action::Continue),
        (36, "HTTP/2", false, Action::Pause),
        (36, "HTTP/1.1", true, Action::Pause),
        (37, "HTTP/1.1", false, Action::Pause),
    ] {
        let process = Process::new();
        let root = start_in(&process, version);
        let stream = root.stream().unwrap();
        stream.set_property(&["request", "protocol"], Property::text(protocol));
        let length = BODY.len().to_string();
        let length = declared.then_some(("content-length", length.as_str()));
        let headers = HeaderMap::new(GET.into_iter().chain(length));
        let action = stream.request_headers(headers, false).unwrap();
        assert_eq!(action, Action::Pause);
        let (first, rest) = BODY.split_at(30);
        let case = format!("1.{version}, {protocol}, declared {declared}");
        let action = stream.request_body(first, false).unwrap();
        assert_eq!(action, expected, "{case}");
        let action = stream.request_body(rest, true).unwrap();
        assert_eq!(action, Action::Continue, "{case}");
        assert_eq!(picked(&stream).is_some(), expected == Action::Pause);
        stream.end().unwrap();
        let name = "paceline_model_unknown_total";
        let undeclared = u64::from(expected == Action::Continue);
        assert_eq!(unknown(&process, name, "undeclared"), undeclared, "{case}");
    }
}

/// Envoy loses or repeats a part of the body of a request that goes on from a
/// tick after a part of it was shown.
#[test]
fn a_request_of_whose_body_a_part_was_shown_goes_on_with_the_next_part() {
    for (rest, end, reason) in [("more", false, "late"), ("}", true, "missing")] {
        let process = Process::new();
        let root = start(&process);
        let stream = waiting(&root).unwrap();
        assert_eq!(stream.request_body(b"{", false).unwrap(), Action::Pause);
        process.advance(Duration::from_secs(6));
        receive(&stream, 300);
        for _ in 0..3 {
            root.tick().unwrap();
        }
        assert!(!stream.resumed());
        let action = stream.request_body(rest.as_bytes(), end).unwrap();
        assert_eq!(action, Action::Continue);
        let name = "paceline_model_unknown_total";
        assert_eq!(unknown(&process, name, reason), 1, "{reason}");
        stream.end().unwrap();
    }
}

#[test]
fn a_request_that_goes_on_with_a_part_of_its_body_is_not_resumed_as_well() {
    let process = Process::new();
    let root = start(&process);
    let stream = waiting(&root).unwrap();
    receive(&stream, 300);
    let resume = Which::Every("proxy_continue_stream");
    root.vm.fail(resume, STATUSES[0]);
    root.tick().unwrap();
    assert!(!stream.resumed());
    root.vm.clear_plans();
    assert_eq!(stream.request_body(b"{", false).unwrap(), Action::Continue);
    root.tick().unwrap();
    assert!(!stream.resumed());
    stream.end().unwrap();
}

#[test]
fn a_request_that_ends_while_it_waits_leaves_nothing_behind() {
    let process = Process::new();
    let root = start(&process);
    let abort = |how: usize| {
        let stream = waiting(&root).unwrap();
        if how.is_multiple_of(2) {
            stream.request_body(b"{", false).unwrap();
        }
        match how % 3 {
            0 => stream.end().unwrap(),
            1 => stream.delete().unwrap(),
            _ => {
                stream.done().unwrap();
                stream.delete().unwrap();
            }
        }
        root.tick().unwrap();
    };
    for how in 0..60 {
        abort(how);
    }
    let before = root.vm.memory_size();
    for how in 0..600 {
        abort(how);
    }
    assert_eq!(root.vm.memory_size(), before);
    assert_eq!(picks(&process), 0);
    assert_eq!(total_in_flight(&process), 0);
    // The ticks of what is gone have ended, too.
    root.tick().unwrap();
    assert_eq!(root.tick_period(), Some(Duration::from_millis(250)));
}

#[test]
fn the_lease_is_renewed_while_ticks_are_short() {
    let process = Process::new();
    let root = start(&process);
    let counted = waiting(&root).unwrap();
    send_body(&counted, Coming::AtOnce).unwrap();
    // In a worker that has seen no body yet, a slow client brings short ticks.
    let other = start(&process);
    let own = waiting(&other).unwrap();
    for _ in 0..2_000 {
        process.advance(Duration::from_millis(10));
        other.tick().unwrap();
        root.tick().unwrap();
    }
    assert!(own.resumed(), "20 s are longer than it waits");
    assert_eq!(total_in_flight(&process), 1);
    counted.end().unwrap();
    own.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

/// A request from its headers to its end; whether it was routed.
fn life(process: &Process, root: &Root, coming: Coming) -> VmResult<bool> {
    let stream = root.stream()?;
    receive(&stream, 200);
    let mut action = stream.request_headers(post(), false)?;
    if action == Action::Pause {
        action = send_body(&stream, coming)?;
    }
    assert_eq!(action, Action::Continue, "the request does not go on");
    let routed = picked(&stream).is_some_and(|name| name.starts_with("gpu-"));
    respond(process, &stream, &Response::OK)?;
    stream.end()?;
    Ok(routed)
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
fn a_tick_that_ends_waits_survives_each_host_call_failing_in_each_way() {
    // Found blind, and too late.
    for (received, elapsed) in [(300, Duration::ZERO), (200, Duration::from_secs(6))] {
        let tick = |plan: &dyn Fn(&Root)| {
            let process = Process::new();
            let root = start(&process);
            let streams = [waiting(&root).unwrap(), waiting(&root).unwrap()];
            for stream in &streams {
                receive(stream, received);
            }
            process.advance(elapsed);
            root.vm.take_calls();
            plan(&root);
            (process, root, streams)
        };
        let calls = {
            let (_process, root, streams) = tick(&|_| {});
            root.tick().unwrap();
            assert!(streams.iter().all(Stream::resumed));
            root.vm.take_calls().len()
        };
        for index in 0..calls {
            for status in STATUSES {
                let case = format!("call {index} failing with {status:?}");
                let (process, root, streams) = tick(&|root| root.vm.fail(Which::At(index), status));
                root.tick().in_case(&case);
                root.vm.clear_plans();
                process.advance(Duration::from_secs(6));
                root.tick().in_case(&case);
                assert!(streams.iter().all(Stream::resumed), "{case}");
                for stream in streams {
                    stream.end().in_case(&case);
                }
                assert_eq!(total_in_flight(&process), 0, "{case}");
            }
        }
    }
}

#[test]
fn a_root_that_is_shut_down_lets_its_streams_end() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let root = vm.create_root(Plugin::new(BY_BODY)).unwrap();
    assert!(root.configure().unwrap());
    let stream = waiting(&root).unwrap();
    assert!(root.configure().unwrap());
    // The old configuration's request still gets its body.
    assert_eq!(
        send_body(&stream, Coming::AtOnce).unwrap(),
        Action::Continue
    );
    stream.end().unwrap();
    root.shut_down().unwrap();
    assert_eq!(total_in_flight(&process), 0);
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
    // upgrade, content-type, content-length
    assert_eq!(asked(&calls), 3, "{table}");
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
