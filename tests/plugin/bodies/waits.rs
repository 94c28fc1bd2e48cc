//! No request waits for ever, whatever the host does, and none leaves anything
//! behind.

use std::time::Duration;

use super::{BODY, BY_BODY, Coming, post, receive, send_body, start, unknown, waiting};
use crate::faults::STATUSES;
use crate::fleet::{In, picked, picks, total_in_flight};
use crate::host::{Action, Plugin, Process, Root, Stream, VM_ID, Vm, Which};

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
    assert!(!stream.resumed(), "a filter before this one may have it");
    process.advance(Duration::from_secs(1));
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

/// Whatever has come of its body: nothing, a frame without bytes, a byte, a part,
/// spaces alone.
#[test]
fn a_request_goes_on_at_its_timeout_with_the_part_of_its_body_that_has_come() {
    for parts in [
        &[][..],
        &[&b""[..]],
        &[b"{"],
        &[b"{\"model\": ", b"\"llama"],
        &[b" ", b"  ", b" "],
    ] {
        let process = Process::new();
        let root = start(&process);
        let stream = waiting(&root).unwrap();
        for part in parts {
            assert_eq!(stream.request_body(part, false).unwrap(), Action::Pause);
            assert!(!stream.joins_body(), "it could not go on from a tick");
        }
        process.advance(Duration::from_millis(4999));
        root.tick().unwrap();
        assert!(!stream.resumed(), "{parts:?}");
        process.advance(Duration::from_millis(1));
        root.tick().unwrap();
        assert!(stream.resumed(), "{parts:?}");
        let name = "paceline_model_unknown_total";
        assert_eq!(unknown(&process, name, "late"), 1, "{parts:?}");
        // What comes later passes.
        assert_eq!(
            stream.request_body(b"more", true).unwrap(),
            Action::Continue
        );
        stream.end().unwrap();
        assert_eq!(unknown(&process, name, "late"), 1, "{parts:?}");
    }
}

#[test]
fn a_part_that_comes_late_ends_the_wait_before_the_tick_does() {
    let process = Process::new();
    let root = start(&process);
    let stream = waiting(&root).unwrap();
    assert_eq!(stream.request_body(b"{", false).unwrap(), Action::Pause);
    process.advance(Duration::from_secs(6));
    let action = stream.request_body(b"\"a\"", false).unwrap();
    assert_eq!(action, Action::Continue);
    root.tick().unwrap();
    assert!(!stream.resumed());
    stream.end().unwrap();
}

/// A filter before this one keeps a body back: what Envoy has received grows
/// before the body is shown.
#[test]
fn an_envoy_that_has_shown_a_body_is_never_taken_for_one_that_does_not() {
    let process = Process::new();
    let root = start(&process);
    let first = waiting(&root).unwrap();
    assert_eq!(first.request_body(BODY, true).unwrap(), Action::Continue);
    first.end().unwrap();
    let stream = waiting(&root).unwrap();
    receive(&stream, 100_000);
    process.advance(Duration::from_secs(4));
    root.tick().unwrap();
    assert!(!stream.resumed());
    assert_eq!(stream.request_body(BODY, true).unwrap(), Action::Continue);
    assert!(picked(&stream).is_some());
    stream.end().unwrap();
    let name = "paceline_model_unknown_total";
    assert_eq!(unknown(&process, name, "not_shown"), 0);
    assert!(root.vm.take_log().is_empty());
}

#[test]
fn a_request_that_goes_on_with_a_part_of_its_body_is_not_resumed_as_well() {
    let process = Process::new();
    let root = start(&process);
    let stream = waiting(&root).unwrap();
    receive(&stream, 300);
    root.tick().unwrap();
    process.advance(Duration::from_secs(1));
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

#[test]
fn a_tick_that_ends_waits_survives_each_host_call_failing_in_each_way() {
    // Found blind, and too late.
    for (received, elapsed) in [(300, Duration::from_secs(1)), (200, Duration::from_secs(6))] {
        let tick = |plan: &dyn Fn(&Root)| {
            let process = Process::new();
            let root = start(&process);
            let streams = [waiting(&root).unwrap(), waiting(&root).unwrap()];
            for stream in &streams {
                receive(stream, received);
            }
            root.tick().unwrap();
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
