//! Several workers on one shared record: counts that are exact at every step,
//! conflicts, deaths, leases and clocks.

use crate::fleet::{GET, LEASE, Response, TWO, config, in_flight, pass_throughs, picked, picks};
use crate::fleet::{respond, serve, total_in_flight};
use crate::host::{CallTable, Process, Root, Status, Stream, VM_ID, Vm, Which};
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const RETRIES: &str = "paceline_transaction_retries_total";

/// Open streams of a worker, and where each was sent.
type Open = Vec<(Stream, Option<String>)>;

/// Opens a stream that must be routed.
fn open_on(root: &Root) -> (Stream, Option<String>) {
    let stream = root.request(GET).unwrap();
    let upstream = picked(&stream);
    assert!(upstream.is_some(), "not routed");
    (stream, upstream)
}

/// What the gauges must say: open streams by upstream.
fn expected<'a>(
    process: &Process,
    open: impl IntoIterator<Item = &'a Open>,
) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> =
        in_flight(process).into_keys().map(|u| (u, 0)).collect();
    for upstream in open
        .into_iter()
        .flatten()
        .filter_map(|(_, upstream)| upstream.as_ref())
    {
        *counts.entry(upstream.clone()).or_default() += 1;
    }
    counts
}

/// Steps of a random schedule: requests begin, are answered, aborted, workers
/// tick, time passes. After each, the gauges are the open streams.
fn random_schedule(seed: u64, policy: &str) {
    let mut rng = Rng::with_seed(seed);
    let process = Process::new();
    let workers = rng.usize(2..=4);
    let configuration = config(rng.usize(1..=5), policy);
    let roots: Vec<Root> = (0..workers)
        .map(|_| Vm::start(&process, &configuration).unwrap())
        .collect();
    let mut open: Vec<Open> = roots.iter().map(|_| Open::new()).collect();
    for step in 0..400 {
        let worker = rng.usize(..workers);
        let (root, streams) = (&roots[worker], &mut open[worker]);
        match rng.u8(..10) {
            0..4 => {
                streams.push(open_on(root));
            }
            4..8 if !streams.is_empty() => {
                let (stream, _) = streams.swap_remove(rng.usize(..streams.len()));
                if rng.bool() {
                    let status = [200, 200, 200, 404, 429, 503][rng.usize(..6)];
                    respond(
                        &process,
                        &stream,
                        &Response {
                            status,
                            ..Response::OK
                        },
                    )
                    .unwrap();
                }
                stream.end().unwrap();
            }
            8 => root.tick().unwrap(),
            _ => {
                process.advance(Duration::from_millis(rng.u64(..900)));
                // Envoy ticks every worker, busy or not.
                roots.iter().for_each(|root| root.tick().unwrap());
            }
        }
        // Envoy tells a queue's consumer as soon as something is put in.
        roots
            .iter()
            .for_each(|root| root.vm.deliver_queue_items().unwrap());
        let want = expected(&process, &open);
        assert_eq!(
            in_flight(&process),
            want,
            "seed {seed}, {policy}, step {step}"
        );
    }
    for (stream, _) in open.into_iter().flatten() {
        stream.end().unwrap();
    }
    assert_eq!(
        total_in_flight(&process),
        0,
        "seed {seed}, {policy}, at the end"
    );
    assert_eq!(
        pass_throughs(&process),
        BTreeMap::new(),
        "seed {seed}, {policy}"
    );
}

#[test]
fn the_gauges_are_the_open_streams_whatever_the_schedule() {
    for (seed, policy) in (0..).zip(crate::fleet::POLICIES) {
        random_schedule(seed, policy);
        random_schedule(seed + 100, policy);
    }
}

#[test]
fn the_second_of_two_workers_sees_what_the_first_has_open() {
    let process = Process::new();
    let configuration = config(2, "least_request");
    let [first, second] = [(); 2].map(|()| Vm::start(&process, &configuration).unwrap());
    for round in 0..20 {
        let a = first.request(GET).unwrap();
        let b = second.request(GET).unwrap();
        assert_ne!(picked(&a), picked(&b), "round {round}");
        a.end().unwrap();
        b.end().unwrap();
    }
}

/// Another worker's request gets in between the reading and the writing of the
/// shared record, at the n-th write of a request's life.
fn conflict_at(write: usize) {
    let process = Process::new();
    let [victim, rival] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    for root in [&victim, &rival] {
        serve(&process, root).unwrap();
    }
    let retries = process.counter(RETRIES);
    let rivals: Rc<RefCell<Open>> = Rc::default();
    let opened = Rc::clone(&rivals);
    victim
        .vm
        .interrupt(Which::Nth("proxy_set_shared_data", write), move || {
            opened.borrow_mut().push(open_on(&rival));
        });
    let mine: Open = vec![open_on(&victim)];
    let want = expected(&process, [&mine, &*rivals.borrow()]);
    assert_eq!(in_flight(&process), want, "write {write}, both open");
    for (stream, _) in mine {
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
    }
    victim.tick().unwrap();
    let streams: Open = rivals.borrow_mut().drain(..).collect();
    assert_eq!(
        streams.len(),
        1,
        "the rival got in between at write {write}"
    );
    assert_eq!(
        in_flight(&process),
        expected(&process, [&streams]),
        "write {write}"
    );
    assert_eq!(
        process.counter(RETRIES),
        retries + 1,
        "retries at write {write}"
    );
    for (stream, _) in streams {
        stream.end().unwrap();
    }
    victim.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0, "write {write}");
}

#[test]
fn a_write_between_read_and_write_is_retried_and_counted() {
    // A pick and a release: the two transactions of a request.
    for write in 0..2 {
        conflict_at(write);
    }
}

#[test]
fn a_record_created_by_another_at_the_same_moment_is_not_lost() {
    let process = Process::new();
    let [victim, rival] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let rivals: Rc<RefCell<Open>> = Rc::default();
    let opened = Rc::clone(&rivals);
    victim
        .vm
        .interrupt(Which::Nth("proxy_set_shared_data", 0), move || {
            opened.borrow_mut().push(open_on(&rival));
        });
    let mine: Open = vec![open_on(&victim)];
    let theirs: Open = rivals.borrow_mut().drain(..).collect();
    assert_eq!(theirs.len(), 1);
    assert_eq!(in_flight(&process), expected(&process, [&mine, &theirs]));
    for (stream, _) in mine.into_iter().chain(theirs) {
        stream.end().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn contention_without_end_leaves_requests_to_envoy_and_is_counted() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    serve(&process, &root).unwrap();
    root.vm
        .fail(Which::Every("proxy_set_shared_data"), Status::CasMismatch);
    root.vm.take_calls();
    let stream = root.request(GET).unwrap();
    let table = CallTable::new(&root.vm.take_calls());
    let writes = table.calls_of("proxy_set_shared_data");
    assert!((2..=64).contains(&writes), "tried {writes} times");
    assert_eq!(picked(&stream), None);
    assert_eq!(pass_throughs(&process), [("contention".into(), 1)].into());
    stream.end().unwrap();
    root.vm.clear_plans();
    root.tick().unwrap();
    assert!(serve(&process, &root).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn contention_without_end_at_the_release_is_made_good() {
    let process = Process::new();
    let [root, other] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let streams = [(); 4].map(|()| root.request(GET).unwrap());
    root.vm
        .fail(Which::Every("proxy_set_shared_data"), Status::CasMismatch);
    let errors = process.counter("paceline_state_errors_total");
    for stream in streams {
        stream.end().unwrap();
    }
    assert_eq!(process.counter("paceline_state_errors_total"), errors + 4);
    root.vm.clear_plans();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    assert!(serve(&process, &other).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

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
fn name_spaces_and_plugin_names_keep_counts_apart() {
    let process = Process::new();
    let root = |vm_id: &str, name: &str| {
        let vm = Vm::boot(&process, vm_id).unwrap();
        let root = vm
            .create_root(crate::host::Plugin::new(TWO).named(name))
            .unwrap();
        assert!(root.configure().unwrap());
        root
    };
    let roots = [
        root("one", "paceline"),
        root("two", "paceline"),
        root("one", "other"),
    ];
    for root in &roots {
        assert!(serve(&process, root).unwrap().is_some());
    }
    let keys = [process.keys("one").len(), process.keys("two").len()];
    assert_eq!(
        keys,
        [2, 1],
        "one record for each name space and plugin name"
    );
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let process = Process::new();
    let [first, second] = [(); 2].map(|()| Vm::start(&process, TWO).unwrap());
    let a = first.request(GET).unwrap();
    let b = second.request(GET).unwrap();
    respond(&process, &a, &Response::OK).unwrap();
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
fn a_worker_that_cannot_define_metrics_routes_all_the_same() {
    for status in [
        Status::InternalFailure,
        Status::BadArgument,
        Status::Unimplemented,
    ] {
        let process = Process::new();
        let vm = Vm::boot(&process, VM_ID).unwrap();
        vm.fail(Which::Every("proxy_define_metric"), status);
        let root = vm.create_root(crate::host::Plugin::new(TWO)).unwrap();
        assert!(root.configure().unwrap(), "{status:?}");
        for _ in 0..5 {
            assert!(serve(&process, &root).unwrap().is_some(), "{status:?}");
        }
        root.tick().unwrap();
    }
}

#[test]
fn a_reload_keeps_what_was_learned_and_counts_old_and_new_together() {
    let process = Process::new();
    let old = Vm::start(&process, TWO).unwrap();
    let open: Vec<Stream> = (0..4).map(|_| old.request(GET).unwrap()).collect();
    let grown = r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" }, { "cluster": "gpu-c" } ] }"#;
    let new = old.vm.create_root(crate::host::Plugin::new(grown)).unwrap();
    assert!(new.configure().unwrap());
    let stream = new.request(GET).unwrap();
    assert_eq!(total_in_flight(&process), 5, "{:?}", in_flight(&process));
    assert_eq!(picks(&process), 5);
    stream.end().unwrap();
    open.into_iter().for_each(|stream| stream.end().unwrap());
    old.tick().unwrap();
    new.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0, "{:?}", in_flight(&process));
}
