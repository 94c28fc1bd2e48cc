//! Workers that die, stall or stay quiet, and clocks that do what none should.

use crate::fleet::{GET, LEASE, Response, TWO, config, respond, serve, total_in_flight};
use crate::host::{Process, Status, Stream, VM_ID, Vm, Which};
use std::time::Duration;

#[test]
fn the_counts_of_a_worker_that_died_end_with_its_lease_and_not_before() {
    let process = Process::new();
    let survivor = Vm::start(&process, TWO).unwrap();
    serve(&process, &survivor).unwrap();
    let victim = Vm::start(&process, TWO).unwrap();
    let lost: Vec<Stream> = (0..5).map(|_| victim.request(GET).unwrap()).collect();
    let open = survivor.request(GET).unwrap();
    assert_eq!(total_in_flight(&process), 6);
    drop((lost, victim));
    // Half a second short of the lease, in steps of a tick.
    let mut waited = Duration::ZERO;
    while waited + Duration::from_millis(500) < LEASE {
        process.advance(Duration::from_millis(500));
        waited += Duration::from_millis(500);
        survivor.tick().unwrap();
        assert_eq!(total_in_flight(&process), 6, "{waited:?} after the death");
    }
    process.advance(Duration::from_secs(2));
    survivor.tick().unwrap();
    assert_eq!(total_in_flight(&process), 1, "after the lease");
    open.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_quiet_worker_keeps_its_counts_as_long_as_it_ticks() {
    let process = Process::new();
    let [quiet, busy] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let open: Vec<Stream> = (0..3).map(|_| quiet.request(GET).unwrap()).collect();
    let period = quiet
        .tick_period()
        .expect("a worker renews its lease by ticks");
    assert!(
        period <= LEASE / 3,
        "ticks every {period:?} against a lease of {LEASE:?}"
    );
    let mut waited = Duration::ZERO;
    while waited < LEASE * 4 {
        process.advance(period);
        waited += period;
        quiet.tick().unwrap();
        busy.tick().unwrap();
        serve(&process, &busy).unwrap();
        assert_eq!(total_in_flight(&process), 3, "{waited:?} later");
    }
    open.into_iter().for_each(|stream| stream.end().unwrap());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_worker_that_stalled_beyond_its_lease_comes_back_with_exact_counts() {
    let process = Process::new();
    let [stalled, other] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let mut open: Vec<Stream> = (0..3).map(|_| stalled.request(GET).unwrap()).collect();
    process.advance(LEASE * 3);
    other.tick().unwrap();
    let theirs = other.request(GET).unwrap();
    assert_eq!(
        total_in_flight(&process),
        1,
        "the stalled worker's lane has lapsed"
    );
    stalled.tick().unwrap();
    assert_eq!(total_in_flight(&process), 4, "it publishes again");
    open.pop().unwrap().end().unwrap();
    assert_eq!(total_in_flight(&process), 3);
    open.into_iter().for_each(|stream| stream.end().unwrap());
    theirs.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn lanes_of_the_dead_are_used_again() {
    let process = Process::new();
    let size = |process: &Process| -> usize {
        let keys = process.keys(VM_ID);
        keys.iter()
            .filter_map(|key| process.read(VM_ID, key))
            .map(|value| value.len())
            .sum()
    };
    let generation = || {
        for _ in 0..3 {
            let root = Vm::start(&process, TWO).unwrap();
            drop(root.request(GET).unwrap());
        }
        process.advance(LEASE * 2);
    };
    generation();
    let after_one = size(&process);
    for _ in 0..5 {
        generation();
    }
    assert_eq!(
        size(&process),
        after_one,
        "bytes of shared state after six generations"
    );
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let process = Process::new();
    let [first, second] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let a = first.request(GET).unwrap();
    let b = second.request(GET).unwrap();
    respond(&process, &a, &Response::OK).unwrap();
    assert_eq!(total_in_flight(&process), 2);
    process.turn_back(Duration::from_secs(1_800));
    a.end().unwrap();
    first.tick().unwrap();
    second.tick().unwrap();
    assert_eq!(total_in_flight(&process), 1);
    assert!(serve(&process, &first).unwrap().is_some());
    b.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    for (name, values) in process.histograms("paceline_") {
        let largest = values.iter().max().copied().unwrap_or(0);
        assert!(largest < 60_000, "{name} has {largest} ms");
    }
}

#[test]
fn a_clock_that_fails_does_no_harm() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let open = root.request(GET).unwrap();
    root.vm
        .fail(Which::Every("clock_time_get"), Status::Unimplemented);
    for _ in 0..3 {
        let stream = root.request(GET).unwrap();
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
    }
    open.end().unwrap();
    root.tick().unwrap();
    root.vm.clear_plans();
    root.tick().unwrap();
    assert!(serve(&process, &root).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_lane_that_is_used_again_forgets_upstreams_that_its_new_holder_does_not_know() {
    let process = Process::new();
    let three = config(3, "round_robin");
    let victim = Vm::start(&process, &three).unwrap();
    let lost = [(); 6].map(|()| victim.request(GET).unwrap());
    drop((lost, victim));
    process.advance(LEASE * 2);
    let heir = Vm::start(&process, config(2, "round_robin")).unwrap();
    let open = heir.request(GET).unwrap();
    let observer = Vm::start(&process, &three).unwrap();
    observer.tick().unwrap();
    assert_eq!(total_in_flight(&process), 1);
    open.end().unwrap();
    observer.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}
