//! Two workers write the shared record at the same moment.

use crate::fleet::{
    GET, Response, TWO, in_flight, pass_throughs, picked, respond, serve, total_in_flight,
};
use crate::host::{CallTable, Process, Root, Status, Stream, VM_ID, Vm, Which};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const RETRIES: &str = "paceline_transaction_retries_total";
const STATE_ERRORS: &str = "paceline_state_errors_total";
const READ: &str = "proxy_get_shared_data";
const WRITE: &str = "proxy_set_shared_data";

/// Opens a stream, and says where it was sent.
fn open(root: &Root) -> (Stream, String) {
    let stream = root.request(GET).unwrap();
    let upstream = picked(&stream).expect("routed");
    (stream, upstream)
}

/// What the gauges must say of streams that were sent to these upstreams.
fn counts(process: &Process, upstreams: &[&str]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> =
        in_flight(process).into_keys().map(|u| (u, 0)).collect();
    for upstream in upstreams {
        *counts.entry((*upstream).into()).or_default() += 1;
    }
    counts
}

/// `rival` opens a stream just before the n-th write of `victim`.
fn get_in_between(
    victim: &Root,
    write: usize,
    rival: Root,
) -> Rc<RefCell<Option<(Stream, String)>>> {
    let opened = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&opened);
    let action = move || *slot.borrow_mut() = Some(open(&rival));
    victim.vm.interrupt(Which::Nth(WRITE, write), action);
    opened
}

/// A stream of `victim`, whose pick or release `rival` gets before: nothing is
/// lost, and it takes so many retries. Says where both were sent.
fn expect_both_to_count(
    process: &Process,
    victim: &Root,
    rival: Root,
    write: usize,
    retries: u64,
) -> [String; 2] {
    let theirs = get_in_between(victim, write, rival);
    let (mine, my_upstream) = open(victim);
    if write == 0 {
        let upstream = theirs.borrow().as_ref().expect("opened").1.clone();
        let expected = counts(process, &[&my_upstream, &upstream]);
        assert_eq!(in_flight(process), expected);
    }
    respond(process, &mine, &Response::OK).unwrap();
    mine.end().unwrap();
    let (stream, upstream) = theirs.take().expect("the rival got in between");
    let expected = counts(process, &[&upstream]);
    assert_eq!(in_flight(process), expected, "write {write}");
    assert_eq!(process.counter(RETRIES), retries, "write {write}");
    stream.end().unwrap();
    assert_eq!(total_in_flight(process), 0, "write {write}");
    assert_eq!(pass_throughs(process), BTreeMap::new());
    [my_upstream, upstream]
}

/// The two transactions of a request: its pick and its release.
const WRITES: [usize; 2] = [0, 1];

#[test]
fn a_write_between_read_and_write_is_retried_and_counted() {
    for write in WRITES {
        let process = Process::new();
        let [victim, rival] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
        for root in [&victim, &rival] {
            serve(&process, root).unwrap();
        }
        expect_both_to_count(&process, &victim, rival, write, 1);
    }
}

/// A worker that has been alone for long enough to write without reading.
fn hermit(process: &Process) -> Root {
    let root = Vm::start(process, TWO).unwrap();
    for _ in 0..4 {
        serve(process, &root).unwrap();
    }
    root.vm.take_calls();
    serve(process, &root).unwrap();
    let calls = CallTable::new(&root.vm.take_calls());
    assert_eq!([READ, WRITE].map(|f| calls.calls_of(f)), [0, 2]);
    root
}

#[test]
fn a_worker_that_writes_without_reading_overwrites_nobody() {
    for write in WRITES {
        let process = Process::new();
        let victim = hermit(&process);
        let rival = Vm::start(&process, TWO).unwrap();
        // Nothing was read that somebody else then changed.
        let [mine, theirs] = expect_both_to_count(&process, &victim, rival, write, 0);
        if write == 0 {
            assert_ne!(mine, theirs, "picked by what the rival wrote");
        }
    }
}

#[test]
fn a_write_of_another_key_is_not_taken_for_a_rival() {
    let process = Process::new();
    let root = hermit(&process);
    for _ in 0..3 {
        process.write(VM_ID, b"another", b"value");
        let (stream, upstream) = open(&root);
        assert_eq!(in_flight(&process), counts(&process, &[&upstream]));
        stream.end().unwrap();
        assert_eq!(total_in_flight(&process), 0);
    }
    assert_eq!(process.counter(RETRIES), 0);
    assert_eq!(pass_throughs(&process), BTreeMap::new());
}

#[test]
fn a_record_that_is_lost_or_damaged_under_a_worker_that_does_not_read_is_filled_again() {
    for damage in [&b"not a record"[..], b""] {
        let process = Process::new();
        let root = hermit(&process);
        let (open_before, upstream) = open(&root);
        for key in process.keys(VM_ID) {
            process.write(VM_ID, &key, damage);
        }
        root.tick().unwrap();
        root.tick().unwrap();
        assert_eq!(in_flight(&process), counts(&process, &[&upstream]));
        open_before.end().unwrap();
        assert_eq!(total_in_flight(&process), 0);
        assert!(serve(&process, &root).unwrap().is_some());
    }
}

#[test]
fn a_record_that_another_creates_at_the_same_moment_is_not_overwritten() {
    let process = Process::new();
    let [victim, rival] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let theirs = get_in_between(&victim, 0, rival);
    let (mine, my_upstream) = open(&victim);
    let (other, upstream) = theirs.take().expect("the rival got in between");
    victim.tick().unwrap();
    assert_eq!(
        in_flight(&process),
        counts(&process, &[&my_upstream, &upstream])
    );
    mine.end().unwrap();
    other.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn retries_are_counted_one_by_one() {
    for conflicts in 1..=8 {
        let process = Process::new();
        let root = Vm::start(&process, TWO).unwrap();
        serve(&process, &root).unwrap();
        root.vm.fail(Which::Nth(WRITE, 0), Status::CasMismatch);
        for write in 1..conflicts {
            root.vm.fail(Which::Nth(WRITE, write), Status::CasMismatch);
        }
        let (stream, _) = open(&root);
        assert_eq!(process.counter(RETRIES), conflicts as u64);
        stream.end().unwrap();
    }
}

#[test]
fn contention_without_end_leaves_a_request_to_envoy_and_is_counted() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    serve(&process, &root).unwrap();
    root.vm.fail(Which::Every(WRITE), Status::CasMismatch);
    root.vm.take_calls();
    let stream = root.request(GET).unwrap();
    let writes = CallTable::new(&root.vm.take_calls()).calls_of(WRITE);
    assert!((2..=64).contains(&writes), "tried {writes} times");
    assert_eq!(picked(&stream), None);
    assert_eq!(pass_throughs(&process), [("contention".into(), 1)].into());
    stream.end().unwrap();
    root.vm.clear_plans();
    assert!(serve(&process, &root).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn contention_without_end_at_a_release_is_made_good_by_the_next_tick() {
    let process = Process::new();
    let [root, other] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let streams = [(); 4].map(|()| root.request(GET).unwrap());
    root.vm.fail(Which::Every(WRITE), Status::CasMismatch);
    for stream in streams {
        stream.end().unwrap();
    }
    assert_eq!(process.counter(STATE_ERRORS), 4);
    root.vm.clear_plans();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    assert!(serve(&process, &other).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}
