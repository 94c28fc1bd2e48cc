//! Upstreams that are ejected, that come back, and that are only full.

use crate::fleet::{GET, Response, config, picked, respond, total_in_flight};
use crate::host::{HeaderMap, Plugin, Process, Property, Root, Stream, VM_ID, Vm};
use std::collections::BTreeMap;
use std::time::Duration;

/// Policies that send each upstream its share, whatever it makes of it.
const BLIND: [&str; 3] = ["round_robin", "weighted_round_robin", "random"];

/// How long the first ejection lasts by default.
const BASE: Duration = Duration::from_secs(10);

/// Two workers of one Envoy.
struct Gateway {
    process: Process,
    workers: Vec<Root>,
    turn: usize,
}

impl Gateway {
    fn new(configuration: &str) -> Self {
        let process = Process::new();
        let worker = |_| {
            let vm = Vm::boot(&process, VM_ID).unwrap();
            let root = vm.create_root(Plugin::new(configuration)).unwrap();
            assert!(root.configure().unwrap(), "{configuration}");
            root
        };
        let workers = (0..2).map(worker).collect();
        Gateway {
            process,
            workers,
            turn: 0,
        }
    }

    fn request(&mut self) -> Stream {
        self.turn += 1;
        self.workers[self.turn % 2].request(GET).unwrap()
    }

    /// Sends so many requests, one after the other, answered as the upstream does; how
    /// many each upstream got.
    fn run(
        &mut self,
        requests: usize,
        answer: impl Fn(&str) -> Response,
    ) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..requests {
            let stream = self.request();
            let upstream = picked(&stream).expect("it is routed");
            respond(&self.process, &stream, &answer(&upstream)).unwrap();
            stream.end().unwrap();
            *shares.entry(upstream).or_default() += 1;
        }
        shares
    }

    /// The decision header of one more request that goes well.
    fn decision(&mut self) -> String {
        let stream = self.request();
        respond(&self.process, &stream, &Response::OK).unwrap();
        let headers = stream.received_headers();
        let decision = headers.get_all(b"x-paceline-decision").next();
        let decision = String::from_utf8_lossy(decision.unwrap()).into_owned();
        stream.end().unwrap();
        decision
    }

    /// The workers' ticks come.
    fn tick(&self) {
        self.workers.iter().for_each(|root| root.tick().unwrap());
    }

    /// Who is ejected and why, as the gauges show it.
    fn ejected(&self) -> Vec<(String, String)> {
        self.tick();
        let gauges = self.process.gauges("paceline_ejected;").into_iter();
        let out = gauges.filter(|(_, level)| *level == 1);
        out.map(|(name, _)| (label(&name, "upstream"), label(&name, "reason")))
            .collect()
    }

    /// Ejections so far.
    fn ejections(&self) -> u64 {
        self.tick();
        let counters = self.process.counters("paceline_ejections_total;");
        counters.values().sum()
    }
}

/// A label in a metric's name.
fn label(name: &str, label: &str) -> String {
    let parts = name.split(';').filter_map(|part| part.split_once('='));
    let mut values = parts.filter(|(it, _)| *it == label).map(|(_, value)| value);
    values.next().expect("the label").to_owned()
}

fn answered(status: u16) -> Response {
    Response {
        status,
        ..Response::OK
    }
}

/// What `upstream` answers if `broken` has this status and the others are well.
fn if_one_is(broken: &'static str, status: u16) -> impl Fn(&str) -> Response {
    move |upstream| answered(if upstream == broken { status } else { 200 })
}

fn of(shares: &BTreeMap<String, usize>, upstream: &str) -> usize {
    shares.get(upstream).copied().unwrap_or(0)
}

#[test]
fn failures_in_a_row_eject_under_policies_that_do_not_look_at_them() {
    for policy in BLIND {
        let mut gateway = Gateway::new(&config(4, policy));
        gateway.run(80, |_| Response::OK);
        assert_eq!(gateway.ejected(), []);
        let broken = gateway.run(400, if_one_is("gpu-1", 500));
        // Five, and what the other worker sends before it knows.
        assert!(
            (5..=6).contains(&of(&broken, "gpu-1")),
            "{policy}: {broken:?}"
        );
        let why = ("gpu-1".to_owned(), "consecutive_failures".to_owned());
        assert_eq!(gateway.ejected(), [why], "{policy}");
        assert_eq!(gateway.ejections(), 1, "{policy}");

        // One request tries it, and it is out for twice as long.
        gateway.process.advance(BASE);
        let tried = gateway.run(400, if_one_is("gpu-1", 500));
        assert_eq!(of(&tried, "gpu-1"), 1, "{policy}: {tried:?}");
        assert_eq!(gateway.ejections(), 2, "{policy}");
        gateway.process.advance(BASE / 2);
        let out = gateway.run(100, |_| Response::OK);
        assert_eq!(of(&out, "gpu-1"), 0, "{policy}: {out:?}");

        // It is well again, and gets its share.
        gateway.process.advance(BASE);
        gateway.run(100, |_| Response::OK);
        assert_eq!(gateway.ejected(), [], "{policy}");
        let back = gateway.run(400, |_| Response::OK);
        assert!(
            (60..140).contains(&of(&back, "gpu-1")),
            "{policy}: {back:?}"
        );
        assert_eq!(total_in_flight(&gateway.process), 0);
    }
}

#[test]
fn all_kinds_of_failures_cost_few_requests_under_every_policy() {
    for policy in crate::fleet::POLICIES {
        for status in [500, 503, 404, 401] {
            let mut gateway = Gateway::new(&config(4, policy));
            gateway.run(200, |_| Response::OK);
            let broken = gateway.run(600, if_one_is("gpu-2", status));
            // A quarter, were it not for what has been learned.
            let lost = of(&broken, "gpu-2");
            assert!(lost <= 50, "{policy}, {status}: {lost}");
        }
    }
}

#[test]
fn never_more_than_the_configured_part_is_out() {
    let half = config(6, "round_robin");
    let most = half.replacen(
        '{',
        r#"{ "outlier_detection": { "max_ejection_percent": 34 }, "#,
        1,
    );
    for (configuration, most) in [(half, 3), (most, 2)] {
        let mut gateway = Gateway::new(&configuration);
        gateway.run(120, |_| Response::OK);
        // One after the other, so that each is worse than the others when it begins.
        for broken in 1..=5 {
            let is_broken = |upstream: &str| upstream[4..].parse::<usize>().unwrap() < broken;
            gateway.run(200, |it| answered(if is_broken(it) { 500 } else { 200 }));
            let out = gateway.ejected().len();
            assert_eq!(out, broken.min(most), "{configuration}");
        }
    }
}

#[test]
fn what_fails_everywhere_ejects_nobody() {
    for policy in BLIND {
        let mut gateway = Gateway::new(&config(4, policy));
        gateway.run(80, |_| Response::OK);
        gateway.run(400, |_| answered(500));
        assert_eq!(gateway.ejections(), 0, "{policy}");
    }
}

#[test]
fn the_last_ones_that_are_left_are_picked_though_they_are_ejected() {
    let two = r#""upstreams": [ { "cluster": "gpu-0" }, { "cluster": "gpu-1" } ]"#;
    let four = two.replace(']', r#", { "cluster": "gpu-2" }, { "cluster": "gpu-3" } ]"#);
    let with =
        |upstreams: &str| format!(r#"{{ "explain": true, "policy": "round_robin", {upstreams} }}"#);
    let mut gateway = Gateway::new(&with(&four));
    gateway.run(80, |_| Response::OK);
    let are_broken = |it: &str| it == "gpu-0" || it == "gpu-1";
    gateway.run(400, |it| answered(if are_broken(it) { 500 } else { 200 }));
    assert_eq!(gateway.ejected().len(), 2);
    let decision = gateway.decision();
    let left_out = "left_out=gpu-0:ejected(consecutive_failures),\
                    gpu-1:ejected(consecutive_failures)";
    assert!(decision.contains(left_out), "{decision}");

    // The good ones are taken out of the configuration.
    let vm = Vm::boot(&gateway.process, VM_ID).unwrap();
    let root = vm.create_root(Plugin::new(with(two))).unwrap();
    assert!(root.configure().unwrap());
    gateway.workers = vec![vm.create_root(Plugin::new(with(two))).unwrap(), root];
    assert!(gateway.workers[0].configure().unwrap());
    let shares = gateway.run(20, |_| Response::OK);
    assert_eq!((of(&shares, "gpu-0"), of(&shares, "gpu-1")), (10, 10));
    assert!(gateway.decision().contains("reason=panic"));
    assert_eq!(
        gateway
            .process
            .counter("paceline_panic_picks_total;pool=default"),
        21
    );
}

#[test]
fn it_can_be_switched_off() {
    let off = config(4, "round_robin").replacen('{', r#"{ "outlier_detection": "off", "#, 1);
    let mut gateway = Gateway::new(&off);
    gateway.run(80, |_| Response::OK);
    let broken = gateway.run(400, if_one_is("gpu-1", 500));
    assert_eq!(of(&broken, "gpu-1"), 100);
    assert_eq!(gateway.ejections(), 0);
}

#[test]
fn one_that_becomes_slow_is_ejected_and_one_that_always_was_is_not() {
    let mut gateway = Gateway::new(&config(4, "round_robin"));
    let taking = |upstream: &str, slow: &[&str]| Response {
        latency: match upstream {
            "gpu-3" => Duration::from_millis(200),
            it if slow.contains(&it) => Duration::from_millis(2_000),
            _ => Duration::from_millis(20),
        },
        ..Response::OK
    };
    gateway.run(400, |it| taking(it, &[]));
    assert_eq!(gateway.ejected(), []);
    let mut slow = 0;
    while gateway.ejected().is_empty() {
        slow += of(&gateway.run(4, |it| taking(it, &["gpu-0"])), "gpu-0");
        assert!(slow < 20, "{slow}");
    }
    let why = ("gpu-0".to_owned(), "latency".to_owned());
    assert_eq!(gateway.ejected(), [why]);
    // It is tried, and is still slow; then it has recovered.
    gateway.process.advance(BASE);
    let tried = gateway.run(40, |it| taking(it, &["gpu-0"]));
    assert_eq!(of(&tried, "gpu-0"), 3, "{tried:?}");
    gateway.process.advance(2 * BASE);
    gateway.run(100, |it| taking(it, &[]));
    assert_eq!(gateway.ejected(), []);
}

#[test]
fn one_that_takes_requests_and_answers_none_is_ejected() {
    let mut gateway = Gateway::new(&config(4, "round_robin"));
    gateway.run(400, |_| Response::OK);
    gateway.process.advance(Duration::from_secs(60));
    let mut hanging = Vec::new();
    let mut reached = 0;
    for _ in 0..1_000 {
        let stream = gateway.request();
        if picked(&stream).as_deref() == Some("gpu-2") {
            hanging.push(stream);
            reached += 1;
        } else {
            respond(&gateway.process, &stream, &Response::OK).unwrap();
            stream.end().unwrap();
        }
        gateway.tick();
    }
    assert!(reached < 50, "{reached}");
    let why = ("gpu-2".to_owned(), "no_answer".to_owned());
    assert_eq!(gateway.ejected(), [why]);
    assert_eq!(total_in_flight(&gateway.process), reached);
    for stream in hanging {
        stream.end().unwrap();
    }
    assert_eq!(total_in_flight(&gateway.process), 0);
}

#[test]
fn clients_that_give_up_on_one_upstream_eject_it() {
    let mut gateway = Gateway::new(&config(4, "random"));
    gateway.run(400, |_| Response::OK);
    for _ in 0..200 {
        let stream = gateway.request();
        if picked(&stream).as_deref() == Some("gpu-2") {
            stream.request_body(b"", true).unwrap();
            gateway.process.advance(Duration::from_secs(1));
            // The client has gone.
            stream.set_property(&["response", "flags"], Property::int(1 << 14));
            stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
        } else {
            respond(&gateway.process, &stream, &Response::OK).unwrap();
        }
        stream.end().unwrap();
    }
    let why = ("gpu-2".to_owned(), "no_answer".to_owned());
    assert_eq!(gateway.ejected(), [why]);
}

/// A 429, or another answer, that asks to be left alone for so many seconds.
fn asks_for(gateway: &mut Gateway, status: &str, seconds: &str, broken: &str) -> bool {
    let stream = gateway.request();
    let is_it = picked(&stream).as_deref() == Some(broken);
    if is_it {
        stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
        let headers = HeaderMap::new([(":status", status), ("retry-after", seconds)]);
        stream.response_headers(headers, true).unwrap();
    } else {
        respond(&gateway.process, &stream, &Response::OK).unwrap();
    }
    stream.end().unwrap();
    is_it
}

#[test]
fn one_that_is_full_gets_less_and_is_never_ejected() {
    for policy in BLIND {
        for status in [429, 503] {
            let mut gateway = Gateway::new(&config(4, policy));
            gateway.run(200, |_| Response::OK);
            // It serves every other request.
            let turn = std::cell::Cell::new(0);
            let answer = |upstream: &str| {
                turn.set(turn.get() + usize::from(upstream == "gpu-1"));
                let is_full = upstream == "gpu-1" && turn.get() % 2 == 1;
                answered(if is_full { status } else { 200 })
            };
            let shares = gateway.run(1_000, answer);
            let case = format!("{policy}, {status}: {shares:?}");
            assert_eq!(gateway.ejections(), 0, "{case}");
            assert!((60..200).contains(&of(&shares, "gpu-1")), "{case}");
            // A minute later nobody remembers.
            gateway.process.advance(Duration::from_secs(60));
            gateway.run(40, |_| Response::OK);
            let shares = gateway.run(1_000, |_| Response::OK);
            assert!(of(&shares, "gpu-1") > 200, "{policy}: {shares:?}");
        }
    }
}

#[test]
fn retry_after_is_kept_under_every_policy() {
    for policy in crate::fleet::POLICIES {
        let mut gateway = Gateway::new(&config(4, policy));
        gateway.run(200, |_| Response::OK);
        let asked = (0..100).any(|_| asks_for(&mut gateway, "429", "20", "gpu-1"));
        assert!(asked, "{policy}");
        let shares = gateway.run(400, |_| Response::OK);
        assert!(of(&shares, "gpu-1") <= 10, "{policy}: {shares:?}");
        assert_eq!(gateway.ejections(), 0, "{policy}");
        gateway.process.advance(Duration::from_secs(60));
        let shares = gateway.run(400, |_| Response::OK);
        assert!(of(&shares, "gpu-1") > 20, "{policy}: {shares:?}");
    }
}

#[test]
fn a_pool_whose_servers_are_all_full_ejects_none() {
    for policy in crate::fleet::POLICIES {
        for status in [429, 503] {
            let mut gateway = Gateway::new(&config(4, policy));
            gateway.run(100, |_| Response::OK);
            let turn = std::cell::Cell::new(0u32);
            let answer = |_: &str| {
                turn.set(turn.get() + 1);
                answered(if turn.get() % 10 < 7 { status } else { 200 })
            };
            gateway.run(1_000, answer);
            assert_eq!(gateway.ejections(), 0, "{policy}, {status}");
            let shares = gateway.run(400, |_| Response::OK);
            assert!(shares.values().all(|it| *it > 20), "{policy}: {shares:?}");
        }
    }
}

#[test]
fn a_clock_that_goes_back_ejects_nobody_for_ever() {
    let mut gateway = Gateway::new(&config(4, "round_robin"));
    gateway.run(80, |_| Response::OK);
    gateway.run(100, if_one_is("gpu-1", 500));
    assert_eq!(gateway.ejected().len(), 1);
    gateway.process.turn_back(Duration::from_secs(60));
    gateway.run(100, |_| Response::OK);
    gateway.process.advance(Duration::from_secs(60) + BASE);
    let shares = gateway.run(100, |_| Response::OK);
    assert!(of(&shares, "gpu-1") > 0, "{shares:?}");
    assert_eq!(gateway.ejected(), []);
}

/// Shares of so many requests, of which twelve are open at a time. An upstream takes a
/// tenth of a second for each that it has.
fn closed_loop(gateway: &mut Gateway, requests: usize) -> BTreeMap<String, usize> {
    closed_loop_of(gateway, requests, |load| load * Duration::from_millis(100))
}

/// The same, where a request takes so long at an upstream that has so many, itself included.
fn closed_loop_of(
    gateway: &mut Gateway,
    requests: usize,
    takes: impl Fn(u32) -> Duration,
) -> BTreeMap<String, usize> {
    const AT_ONCE: Response = Response {
        latency: Duration::ZERO,
        ..Response::OK
    };
    let mut now = Duration::ZERO;
    let mut shares = BTreeMap::new();
    let mut open: Vec<(Duration, String, Stream)> = Vec::new();
    for number in 0..requests + 12 {
        if number >= 12 {
            let (next, _) = open.iter().enumerate().min_by_key(|(_, it)| it.0).unwrap();
            let (end, _, stream) = open.swap_remove(next);
            gateway.process.advance(end.saturating_sub(now));
            now = now.max(end);
            respond(&gateway.process, &stream, &AT_ONCE).unwrap();
            stream.end().unwrap();
        }
        if number < requests {
            let stream = gateway.request();
            let upstream = picked(&stream).expect("it is routed");
            let load = 1 + open.iter().filter(|(_, it, _)| *it == upstream).count() as u32;
            *shares.entry(upstream.clone()).or_default() += 1;
            open.push((now + takes(load), upstream, stream));
        }
        if number % 10 == 0 {
            gateway.tick();
        }
    }
    shares
}

/// Lets both workers go on with another configuration.
fn reconfigure(gateway: &mut Gateway, config: &str) {
    let worker = |_| {
        let vm = Vm::boot(&gateway.process, VM_ID).unwrap();
        let root = vm.create_root(Plugin::new(config)).unwrap();
        assert!(root.configure().unwrap());
        root
    };
    gateway.workers = (0..2).map(worker).collect();
}

/// Where a request takes as long with one other beside it as with nine, what a cold upstream
/// shows with its few looks slow. It is not held against it.
#[test]
fn a_newcomer_reaches_its_share_where_load_costs_no_time() {
    let policy = "shortest_expected_delay";
    let slow_start = r#"{ "slow_start": { "window": "10s" }, "#;
    let with = |count| config(count, policy).replacen('{', slow_start, 1);
    let mut gateway = Gateway::new(&with(3));
    let always = |_| Duration::from_millis(100);
    closed_loop_of(&mut gateway, 1_300, always);
    reconfigure(&mut gateway, &with(4));
    // A second each.
    let shares: Vec<f64> = (0..12)
        .map(|_| of(&closed_loop_of(&mut gateway, 120, always), "gpu-3") as f64 / 120.0)
        .collect();
    println!("{shares:?}");
    assert!(shares[0] < 0.15, "{shares:?}");
    assert!((0.225..0.35).contains(&shares[11]), "{shares:?}");
}

#[test]
fn a_newcomer_gets_a_growing_share() {
    for policy in ["least_request", "shortest_expected_delay", "round_robin"] {
        let with = |count| config(count, policy).replacen('{', r#"{ "slow_start": {}, "#, 1);
        let mut gateway = Gateway::new(&with(3));
        closed_loop(&mut gateway, 1_200);
        assert_eq!(gateway.process.gauges("paceline_warming;").len(), 0);

        // Another is added to the configuration.
        reconfigure(&mut gateway, &with(4));
        // About ten seconds each.
        let shares: Vec<f64> = (0..5)
            .map(|_| of(&closed_loop(&mut gateway, 330), "gpu-3") as f64 / 330.0)
            .collect();
        println!("{policy}: {shares:?}");
        assert!((0.01..0.15).contains(&shares[0]), "{policy}: {shares:?}");
        assert!(shares[1] > shares[0], "{policy}: {shares:?}");
        assert!((0.18..0.32).contains(&shares[4]), "{policy}: {shares:?}");
        let warming = gateway.process.gauges("paceline_warming;");
        assert!(warming.values().all(|level| *level == 0), "{warming:?}");
        assert_eq!(total_in_flight(&gateway.process), 0, "{policy}");
    }
}

#[test]
fn a_pool_that_grows_and_shrinks_under_load_loses_no_count() {
    let with = |count| config(count, "least_request").replacen('{', r#"{ "slow_start": {}, "#, 1);
    let mut gateway = Gateway::new(&with(3));
    closed_loop(&mut gateway, 300);
    for count in [30, 3] {
        // Requests of the old configuration end while the new one serves.
        let held: Vec<Stream> = (0..20).map(|_| gateway.request()).collect();
        let old = std::mem::take(&mut gateway.workers);
        let worker = |_| {
            let vm = Vm::boot(&gateway.process, VM_ID).unwrap();
            let root = vm.create_root(Plugin::new(with(count))).unwrap();
            assert!(root.configure().unwrap());
            root
        };
        gateway.workers = (0..2).map(worker).collect();
        let shares = closed_loop(&mut gateway, 1_500);
        assert_eq!(shares.len(), count, "nobody starves: {shares:?}");
        for stream in held {
            respond(&gateway.process, &stream, &Response::OK).unwrap();
            stream.end().unwrap();
        }
        old.iter().for_each(|root| root.tick().unwrap());
        gateway.tick();
        assert_eq!(total_in_flight(&gateway.process), 0);
    }
    assert_eq!(gateway.ejections(), 0);
}
