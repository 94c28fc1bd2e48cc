//! Several workers and several plugins: what they share and what they do not.

use crate::fleet::{GET, Response, TWO};
use crate::fleet::{config, in_flight, picked, picks, respond, serve, total_in_flight};
use crate::host::{Plugin, Process, Root, Status, Stream, VM_ID, Vm, Which};
use std::time::Duration;

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

#[test]
fn name_spaces_and_plugin_names_keep_counts_apart() {
    let process = Process::new();
    let root = |vm_id: &str, name: &str| {
        let vm = Vm::boot(&process, vm_id).unwrap();
        let root = vm.create_root(Plugin::new(TWO).named(name)).unwrap();
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
        keys[0],
        2 * keys[1],
        "each name space and plugin name has keys of its own"
    );
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
        let root = vm.create_root(Plugin::new(TWO)).unwrap();
        assert!(root.configure().unwrap(), "{status:?}");
        for _ in 0..5 {
            assert!(serve(&process, &root).unwrap().is_some(), "{status:?}");
        }
        root.tick().unwrap();
    }
}

#[test]
fn requests_from_before_and_after_a_reload_are_counted_together() {
    let process = Process::new();
    let old = Vm::start(&process, config(2, "least_request")).unwrap();
    let open: Vec<Stream> = (0..4).map(|_| old.request(GET).unwrap()).collect();
    let grown = Plugin::new(config(3, "least_request"));
    let new = old.vm.create_root(grown).unwrap();
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

#[test]
fn what_was_learned_of_an_upstream_survives_a_reload() {
    let process = Process::new();
    let configuration = config(2, "least_response_time");
    let old = Vm::start(&process, &configuration).unwrap();
    for _ in 0..40 {
        let stream = old.request(GET).unwrap();
        let slow = picked(&stream).as_deref() == Some("gpu-0");
        let latency = Duration::from_millis(if slow { 500 } else { 10 });
        let response = Response {
            latency,
            ..Response::OK
        };
        respond(&process, &stream, &response).unwrap();
        stream.end().unwrap();
    }
    // Each new worker is asked once, so that it can have learned nothing itself.
    // Without memory, 18 of 20 are less likely than 1 in 1000.
    let fast = (0..20).filter(|_| {
        let new = Vm::start(&process, configuration.replace('{', "{ ")).unwrap();
        let stream = new.request(GET).unwrap();
        let upstream = picked(&stream);
        stream.end().unwrap();
        upstream.as_deref() == Some("gpu-1")
    });
    let fast = fast.count();
    assert!(
        fast >= 18,
        "{fast} of 20 went to the upstream that is faster"
    );
}

#[test]
fn pools_that_share_an_upstream_are_counted_there_together() {
    let process = Process::new();
    let configuration = r#"{ "pools": [
        { "name": "small",
          "match": { "path_prefix": "/small" },
          "upstreams": [ { "cluster": "gpu-a" } ] },
        { "name": "rest", "upstreams": [ { "cluster": "gpu-a" } ] }
    ] }"#;
    let root = Vm::start(&process, configuration).unwrap();
    let small = [
        (":method", "GET"),
        (":path", "/small/1"),
        (":authority", "a"),
    ];
    let streams = [
        root.request(small).unwrap(),
        root.request(GET).unwrap(),
        root.request(GET).unwrap(),
    ];
    assert_eq!(in_flight(&process), [("gpu-a".into(), 3)].into());
    for (pool, count) in [("small", 1), ("rest", 2)] {
        let name = format!("paceline_picks_total;pool={pool};upstream=gpu-a");
        assert_eq!(process.counter(&name), count, "{name}");
    }
    streams.into_iter().for_each(|stream| stream.end().unwrap());
    assert_eq!(total_in_flight(&process), 0);
}

/// Two workers start with some host functions failing. Those that take their
/// configuration then serve in good order: what is open is counted over both.
fn count_together_after_a_bad_start(failing: &[&'static str]) {
    let process = Process::new();
    let roots = [(); 2].map(|()| {
        process.advance(Duration::from_nanos(1));
        let vm = Vm::boot(&process, VM_ID).unwrap();
        for function in failing {
            vm.fail(Which::Every(function), Status::InternalFailure);
        }
        let root = vm.create_root(Plugin::new(TWO)).unwrap();
        let taken = root.configure().unwrap();
        vm.clear_plans();
        taken.then_some(root)
    });
    let roots: Vec<Root> = roots.into_iter().flatten().collect();
    let open: Vec<Stream> = roots
        .iter()
        .map(|root| root.request(GET).unwrap())
        .collect();
    roots.iter().for_each(|root| root.tick().unwrap());
    let counted = total_in_flight(&process);
    assert_eq!(counted, open.len() as u64, "started without {failing:?}");
    open.into_iter().for_each(|stream| stream.end().unwrap());
    roots.iter().for_each(|root| root.tick().unwrap());
    assert_eq!(total_in_flight(&process), 0, "started without {failing:?}");
}

#[test]
fn workers_that_started_badly_are_still_told_apart() {
    count_together_after_a_bad_start(&["random_get"]);
    count_together_after_a_bad_start(&["clock_time_get"]);
    count_together_after_a_bad_start(&["random_get", "clock_time_get"]);
    count_together_after_a_bad_start(&["proxy_get_property"]);
    count_together_after_a_bad_start(&["proxy_define_metric"]);
    count_together_after_a_bad_start(&["proxy_set_tick_period_milliseconds"]);
}

#[test]
fn gauges_of_two_plugins_do_not_overwrite_each_other() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let root = |name: &str| {
        let root = vm.create_root(Plugin::new(TWO).named(name)).unwrap();
        assert!(root.configure().unwrap());
        root
    };
    let (one, other) = (root("chat"), root("images"));
    let held: Vec<_> = (0..3).map(|_| one.request(GET).unwrap()).collect();
    let at_other = other.request(GET).unwrap();
    for root in [&one, &other, &one] {
        root.tick().unwrap();
        assert_eq!(total_in_flight(&process), 4, "added up over the plugins");
    }
    let of = |plugin: &str| -> u64 {
        let gauges = process.gauges("paceline_in_flight;").into_iter();
        let own = gauges.filter(|(name, _)| name.ends_with(&format!(";plugin={plugin}")));
        own.map(|(_, value)| value).sum()
    };
    assert_eq!([of("chat"), of("images")], [3, 1]);
    for stream in held.into_iter().chain([at_other]) {
        stream.end().unwrap();
    }
    process.observe();
    assert_eq!([of("chat"), of("images")], [0, 0]);
    // Counters are everybody's.
    assert_eq!(picks(&process), 4);
}
