//! Workers write at the same moment.

use crate::fleet::{
    GET, Response, TWO, in_flight, pass_throughs, picked, respond, serve, total_in_flight,
};
use crate::host::{CallTable, Process, Root, Status, Stream, VM_ID, Vm, Which};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const RETRIES: &str = "paceline_transaction_retries_total";
const STATE_ERRORS: &str = "paceline_state_errors_total";
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

/// Workers that have served and hold their lanes.
fn seasoned<const N: usize>(process: &Process) -> [Root; N] {
    let roots = [(); N].map(|()| Vm::start(process, TWO).unwrap());
    for root in &roots {
        serve(process, root).unwrap();
        process.advance(Duration::from_millis(20));
    }
    roots
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

#[test]
fn a_request_in_the_middle_of_another_workers_write_costs_neither_a_retry() {
    // The pick and the end each write this worker's lane.
    for write in 0..2 {
        let process = Process::new();
        let [victim, rival] = seasoned(&process);
        let theirs = get_in_between(&victim, write, rival);
        let (mine, my_upstream) = open(&victim);
        if write == 0 {
            let upstream = theirs.borrow().as_ref().expect("opened").1.clone();
            let expected = counts(&process, &[&my_upstream, &upstream]);
            assert_eq!(in_flight(&process), expected);
        }
        respond(&process, &mine, &Response::OK).unwrap();
        mine.end().unwrap();
        let (stream, upstream) = theirs.take().expect("the rival got in between");
        assert_eq!(in_flight(&process), counts(&process, &[&upstream]));
        stream.end().unwrap();
        victim.tick().unwrap();
        assert_eq!(process.counter(RETRIES), 0, "write {write}");
        assert_eq!(total_in_flight(&process), 0, "write {write}");
        assert_eq!(pass_throughs(&process), BTreeMap::new());
    }
}

#[test]
fn what_another_worker_has_outstanding_is_seen_a_millisecond_later() {
    let process = Process::new();
    let [one, other] = seasoned(&process);
    let (open_there, theirs) = open(&other);
    let (mine, upstream) = open(&one);
    assert_ne!(upstream, theirs, "the other upstream is idle");
    mine.end().unwrap();
    open_there.end().unwrap();
}

/// What one worker learns, the others go by: this upstream is slow.
fn serve_slowly(process: &Process, root: &Root, slow: &str) {
    for _ in 0..20 {
        let (stream, upstream) = open(root);
        let latency = match upstream == slow {
            true => Duration::from_secs(4),
            false => Duration::from_millis(40),
        };
        let response = Response {
            latency,
            ..Response::OK
        };
        respond(process, &stream, &response).unwrap();
        stream.end().unwrap();
    }
}

/// How many of twenty requests one after the other go to this upstream.
fn share(process: &Process, root: &Root, upstream: &str) -> usize {
    let of = |served: Option<String>| usize::from(served.as_deref() == Some(upstream));
    (0..20).map(|_| of(serve(process, root).unwrap())).sum()
}

#[test]
fn what_was_learned_is_merged_later_where_another_worker_writes_first() {
    let process = Process::new();
    let [one, other] = seasoned(&process);
    // The merge follows the write of the lane.
    one.vm.fail(Which::Nth(WRITE, 2), Status::CasMismatch);
    let (stream, _) = open(&one);
    respond(&process, &stream, &Response::OK).unwrap();
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    process.advance(Duration::from_millis(250));
    one.tick().unwrap();
    assert_eq!(process.counter(RETRIES), 1);
    assert_eq!(process.counter(STATE_ERRORS), 0);
    serve_slowly(&process, &one, "gpu-a");
    assert!(share(&process, &other, "gpu-a") <= 4);
}

#[test]
fn a_worker_that_can_never_merge_routes_and_counts_all_the_same() {
    let process = Process::new();
    let [root] = seasoned(&process);
    for _ in 0..50 {
        let (stream, upstream) = open(&root);
        assert_eq!(in_flight(&process), counts(&process, &[&upstream]));
        root.vm.clear_plans();
        root.vm.fail(Which::Nth(WRITE, 1), Status::CasMismatch);
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
    }
    root.vm.clear_plans();
    root.tick().unwrap();
    assert_eq!(process.counter(RETRIES), 50);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn workers_that_begin_at_the_same_moment_get_lanes_of_their_own() {
    let process = Process::new();
    let [victim, rival] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let theirs = get_in_between(&victim, 0, rival);
    let (mine, my_upstream) = open(&victim);
    let (other, upstream) = theirs.take().expect("the rival got in between");
    assert_eq!(
        in_flight(&process),
        counts(&process, &[&my_upstream, &upstream])
    );
    victim.tick().unwrap();
    assert_eq!(process.counter(RETRIES), 1);
    mine.end().unwrap();
    other.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn state_that_is_lost_or_damaged_is_filled_again() {
    for damage in [&b"not a record"[..], b""] {
        let process = Process::new();
        let [root, other] = seasoned(&process);
        let (open_before, upstream) = open(&root);
        let (open_there, there) = open(&other);
        for key in process.keys(VM_ID) {
            process.write(VM_ID, &key, damage);
        }
        for _ in 0..2 {
            root.tick().unwrap();
            other.tick().unwrap();
        }
        assert_eq!(in_flight(&process), counts(&process, &[&upstream, &there]));
        open_before.end().unwrap();
        open_there.end().unwrap();
        assert_eq!(total_in_flight(&process), 0);
        assert!(serve(&process, &root).unwrap().is_some());
    }
}

#[test]
fn contention_without_end_leaves_a_request_to_envoy_and_is_counted() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
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
fn an_end_that_cannot_be_shown_is_made_good_by_the_next_tick() {
    let process = Process::new();
    let [root, other] = seasoned(&process);
    let streams = [(); 4].map(|()| root.request(GET).unwrap());
    root.vm.fail(Which::Every(WRITE), Status::InternalFailure);
    for stream in streams {
        stream.end().unwrap();
    }
    assert!(process.counter(STATE_ERRORS) >= 4);
    root.vm.clear_plans();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    assert!(serve(&process, &other).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}
