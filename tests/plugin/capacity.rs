//! Caps: what has no room waits, whoever makes room, and nothing is lost.

use crate::fleet::{GET, LEASE, Response, address, picked, respond, total_in_flight};
use crate::host::{Action, HeaderMap, Plugin, Process, Property, Root, Stream, VM_ID, Vm};
use std::collections::VecDeque;
use std::time::Duration;

/// One upstream that takes `cap` requests.
pub(crate) fn capped(cap: u32) -> String {
    format!(
        r#"{{ "explain": true, "upstreams": [ {{ "cluster": "gpu-a", "max_in_flight": {cap} }} ] }}"#
    )
}

/// A request whose headers have come.
pub(crate) fn request(root: &Root) -> Stream {
    root.request(GET).unwrap()
}

/// Whether the request has been sent somewhere: at once, or by being resumed.
pub(crate) fn is_sent(stream: &Stream) -> bool {
    picked(stream).is_some()
}

pub(crate) fn finish(process: &Process, stream: Stream) {
    respond(process, &stream, &Response::OK).unwrap();
    stream.end().unwrap();
}

/// What the filter answered itself: status and reason.
pub(crate) fn rejection(stream: &Stream) -> Option<(u32, String)> {
    let response = stream.local_response()?;
    let reason = response.headers.get(b"x-paceline-reject-reason").unwrap();
    Some((
        response.status,
        String::from_utf8_lossy(reason).into_owned(),
    ))
}

#[test]
fn what_has_no_room_waits_for_its_turn() {
    let process = Process::new();
    let root = Vm::start(&process, capped(2)).unwrap();
    let mut open: Vec<Stream> = (0..5).map(|_| request(&root)).collect();
    let sent = |open: &[Stream]| open.iter().map(is_sent).collect::<Vec<_>>();
    assert_eq!(sent(&open), [true, true, false, false, false]);
    assert_eq!(total_in_flight(&process), 2, "who waits is nowhere");
    process.advance(Duration::from_millis(70));
    finish(&process, open.remove(0));
    assert_eq!(
        sent(&open),
        [true, false, false, false],
        "not within another's end"
    );
    root.vm.deliver_queue_items().unwrap();
    assert_eq!(sent(&open), [true, true, false, false]);
    assert!(open[1].resumed());
    assert_eq!(total_in_flight(&process), 2);
    let response = HeaderMap::new([(":status", "200")]);
    open[1].response_headers(response, true).unwrap();
    let headers = open[1].received_headers();
    let explained = headers.get(b"x-paceline-decision").unwrap();
    let explained = String::from_utf8_lossy(explained).into_owned();
    assert!(explained.contains("; held=9"), "{explained}");
    assert!(explained.contains("; held_for=room"), "{explained}");
    while !open.is_empty() {
        finish(&process, open.remove(0));
        root.vm.deliver_queue_items().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
    let waited = process.histograms("paceline_held_milliseconds;pool=default");
    assert_eq!(waited.values().flatten().count(), 3);
}

#[test]
fn room_goes_to_who_waits_longest_on_any_worker() {
    let process = Process::new();
    let roots = [(); 3].map(|()| Vm::start(&process, capped(1)).unwrap());
    let deliver = || {
        for root in &roots {
            root.vm.deliver_queue_items().unwrap();
        }
    };
    let mut running = request(&roots[0]);
    let mut waiting: VecDeque<Stream> = [1, 2, 0, 1]
        .map(|worker: usize| request(&roots[worker]))
        .into();
    while let Some(next) = waiting.pop_front() {
        // One that comes now is behind them, wherever it comes.
        let newcomer = request(&roots[0]);
        assert!(!is_sent(&newcomer));
        newcomer.end().unwrap();
        finish(&process, running);
        assert!(!is_sent(&next), "nobody was called yet");
        deliver();
        assert!(is_sent(&next), "in the order of their arrival");
        assert!(!waiting.iter().any(is_sent));
        running = next;
    }
    finish(&process, running);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn who_leaves_is_forgotten_and_what_remains_is_served() {
    let process = Process::new();
    let roots = [(); 2].map(|()| Vm::start(&process, capped(1)).unwrap());
    let running = request(&roots[0]);
    let gone = request(&roots[1]);
    let waits = request(&roots[1]);
    gone.end().unwrap();
    finish(&process, running);
    roots[1].vm.deliver_queue_items().unwrap();
    assert!(is_sent(&waits));
    finish(&process, waits);
    assert_eq!(total_in_flight(&process), 0);
    let alone = request(&roots[0]);
    assert!(is_sent(&alone), "nobody is waited for");
    finish(&process, alone);
}

#[test]
fn a_call_that_is_lost_is_made_up_for_by_a_tick() {
    let process = Process::new();
    let roots = [(); 2].map(|()| Vm::start(&process, capped(1)).unwrap());
    let running = request(&roots[0]);
    let waits = request(&roots[1]);
    let period = roots[1].tick_period().unwrap();
    assert!(period <= Duration::from_millis(10), "{period:?}");
    finish(&process, running);
    roots[1].tick().unwrap();
    assert!(is_sent(&waits));
    finish(&process, waits);
    roots[1].tick().unwrap();
    assert_eq!(roots[1].tick_period(), Some(Duration::from_millis(250)));
}

#[test]
fn who_has_waited_enough_is_answered() {
    let process = Process::new();
    let root = Vm::start(&process, capped(1)).unwrap();
    let running = request(&root);
    let waits = request(&root);
    for _ in 0..118 {
        process.advance(Duration::from_millis(250));
        root.tick().unwrap();
    }
    assert_eq!(rejection(&waits), None);
    process.advance(Duration::from_secs(1));
    root.tick().unwrap();
    assert_eq!(rejection(&waits), Some((503, "max_wait".into())));
    assert!(!waits.resumed());
    waits.end().unwrap();
    finish(&process, running);
    root.vm.deliver_queue_items().unwrap();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    let rejected = process.counter("paceline_rejections_total;pool=default;reason=max_wait");
    assert_eq!(rejected, 1);
}

#[test]
fn too_many_that_wait_are_answered_at_once() {
    let process = Process::new();
    let root = Vm::start(&process, capped(1)).unwrap();
    let open: Vec<Stream> = (0..1001).map(|_| request(&root)).collect();
    let stream = root.stream().unwrap();
    let action = stream.request_headers(HeaderMap::new(GET), true).unwrap();
    assert_eq!(action, Action::Pause);
    assert_eq!(rejection(&stream), Some((503, "queue_full".into())));
    let response = stream.local_response().unwrap();
    let body = String::from_utf8(response.body).unwrap();
    assert!(
        body.contains(r#""reason":"queue_full","pool":"default""#),
        "{body}"
    );
    let after = response.headers.get(b"retry-after").unwrap();
    let after: u64 = std::str::from_utf8(after).unwrap().parse().unwrap();
    assert!((1..=120).contains(&after), "{after}");
    stream.end().unwrap();
    for stream in open {
        stream.end().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn what_a_dead_worker_had_is_free_after_its_lease() {
    let process = Process::new();
    let survivor = Vm::start(&process, capped(2)).unwrap();
    let victim = Vm::start(&process, capped(2)).unwrap();
    let lost = [(); 2].map(|()| request(&victim));
    let waits = request(&survivor);
    let also_lost = request(&victim);
    drop((lost, also_lost, victim));
    let mut waited = Duration::ZERO;
    while waited + Duration::from_secs(1) < LEASE {
        process.advance(Duration::from_millis(250));
        waited += Duration::from_millis(250);
        survivor.tick().unwrap();
        assert!(!is_sent(&waits), "after {waited:?}");
    }
    process.advance(Duration::from_secs(2));
    survivor.tick().unwrap();
    assert!(is_sent(&waits));
    let second = request(&survivor);
    assert!(is_sent(&second));
    let third = request(&survivor);
    assert!(!is_sent(&third));
    for stream in [waits, second, third] {
        stream.end().unwrap();
        survivor.vm.deliver_queue_items().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_worker_that_traps_keeps_no_room_from_the_others_that_wait() {
    // Its waiter would be the first; that it has gone is known within a second.
    let process = Process::new();
    let [survivor, victim] = [(); 2].map(|()| Vm::start(&process, capped(1)).unwrap());
    let running = request(&survivor);
    let lost = request(&victim);
    let waits = request(&survivor);
    drop((lost, victim));
    finish(&process, running);
    survivor.vm.deliver_queue_items().unwrap();
    assert!(!is_sent(&waits), "the other was called");
    survivor.tick().unwrap();
    assert!(is_sent(&waits), "which did not answer");
    process.advance(Duration::from_millis(1500));
    let next = request(&survivor);
    finish(&process, waits);
    survivor.vm.deliver_queue_items().unwrap();
    assert!(is_sent(&next), "at once");
    finish(&process, next);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn caps_and_waiters_outlive_a_change_of_the_configuration() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let configured = |cap| -> Root {
        let root = vm.create_root(Plugin::new(capped(cap))).unwrap();
        assert!(root.configure().unwrap());
        root
    };
    let before = configured(2);
    let old = [(); 2].map(|()| request(&before));
    let waits = request(&before);
    let after = configured(3);
    let new = request(&after);
    assert!(!is_sent(&new), "another was there before");
    vm.deliver_queue_items().unwrap();
    // Where there is room now, it is for whoever the new configuration serves.
    after.tick().unwrap();
    assert!(is_sent(&new));
    assert_eq!(total_in_flight(&process), 3);
    for stream in old {
        finish(&process, stream);
        vm.deliver_queue_items().unwrap();
    }
    assert!(is_sent(&waits), "the old one's waiters go on");
    finish(&process, waits);
    finish(&process, new);
    before.tick().unwrap();
    before.shut_down().unwrap();
    after.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_pool_has_a_cap_of_its_own() {
    let process = Process::new();
    let configuration = r#"{ "max_in_flight": 3,
        "upstreams": [ { "cluster": "gpu-a", "max_in_flight": 2 }, { "cluster": "gpu-b" } ] }"#;
    let roots = [(); 2].map(|()| Vm::start(&process, configuration).unwrap());
    let open: Vec<Stream> = (0..4).map(|n| request(&roots[n % 2])).collect();
    let sent: Vec<bool> = open.iter().map(is_sent).collect();
    assert_eq!(sent, [true, true, true, false]);
    roots[0].tick().unwrap();
    assert_eq!(
        process
            .gauges("paceline_pool_in_flight;pool=default")
            .values()
            .sum::<u64>(),
        3
    );
    for stream in open {
        stream.end().unwrap();
        roots
            .iter()
            .for_each(|root| root.vm.deliver_queue_items().unwrap());
    }
    roots[0].tick().unwrap();
    assert_eq!(
        process
            .gauges("paceline_pool_in_flight;pool=default")
            .values()
            .sum::<u64>(),
        0
    );
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_body_that_comes_while_its_request_waits_is_kept() {
    let process = Process::new();
    let root = Vm::start(&process, capped(1)).unwrap();
    let running = request(&root);
    let stream = root.stream().unwrap();
    let headers = HeaderMap::new(GET);
    assert_eq!(
        stream.request_headers(headers, false).unwrap(),
        Action::Pause
    );
    assert_eq!(stream.request_body(b"part", false).unwrap(), Action::Pause);
    let trailers = HeaderMap::new([("x-end", "1")]);
    assert_eq!(stream.request_trailers(trailers).unwrap(), Action::Pause);
    assert!(!stream.resumed());
    finish(&process, running);
    root.vm.deliver_queue_items().unwrap();
    assert!(is_sent(&stream) && stream.resumed());
    finish(&process, stream);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_learned_cap_is_the_same_for_all_workers_and_kept() {
    let process = Process::new();
    let config = capped(0).replace(": 0", ": \"auto\"");
    let roots = [(); 4].map(|()| Vm::start(&process, config.clone()).unwrap());
    let mut caps = Vec::new();
    for _ in 0..60 {
        process.advance(Duration::from_millis(300));
        for root in &roots {
            root.tick().unwrap();
        }
        let shown = process.gauges("paceline_max_in_flight;");
        // Before the first request a worker takes no part, and nothing is shown.
        let shown = shown.values().copied().next();
        let burst: Vec<Stream> = (0..20).map(|number| request(&roots[number % 4])).collect();
        let (sent, waiting): (Vec<_>, Vec<_>) = burst.into_iter().partition(is_sent);
        if let Some(cap) = shown {
            // What the first of them merges may change it by one.
            let off = cap.min(20).abs_diff(sent.len() as u64);
            assert!(off <= 1, "{} sent, {caps:?} and {cap}", sent.len());
            caps.push(cap);
        }
        for stream in waiting {
            stream.end().unwrap();
        }
        process.advance(Duration::from_millis(100));
        // The server does three at once, and refuses the others.
        for (number, stream) in sent.into_iter().enumerate() {
            let status = if number < 3 { 200 } else { 429 };
            let response = Response {
                status,
                ..Response::OK
            };
            respond(&process, &stream, &response).unwrap();
            stream.end().unwrap();
        }
    }
    assert_eq!(total_in_flight(&process), 0);
    let late = &caps[20..];
    assert!(late.iter().all(|cap| (2..=5).contains(cap)), "{caps:?}");
    assert!(late.contains(&3), "{caps:?}");
}

/// The caps that are shown while a server that does `slots` at once answers bursts, and
/// reports what stands in line there in this form.
fn caps_by_report(slots: usize, report: impl Fn(usize) -> String) -> Vec<u64> {
    let process = Process::new();
    let config = capped(0).replace(": 0", ": \"auto\"");
    let root = Vm::start(&process, config).unwrap();
    let mut caps = Vec::new();
    for _ in 0..40 {
        process.advance(Duration::from_millis(300));
        root.tick().unwrap();
        let burst: Vec<Stream> = (0..12).map(|_| request(&root)).collect();
        let (sent, waiting): (Vec<_>, Vec<_>) = burst.into_iter().partition(is_sent);
        for stream in waiting {
            stream.end().unwrap();
        }
        let all = sent.len();
        process.advance(Duration::from_millis(100));
        for (number, stream) in sent.into_iter().enumerate() {
            let served_by = Property::text(&address(&stream));
            stream.set_property(&["upstream", "address"], served_by);
            stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
            stream.set_property(&["response", "code"], Property::int(200));
            stream.set_property(&["xds", "cluster_name"], Property::text("gpu-a"));
            // Those that are left when this one ends.
            let report = report((all - number - 1).saturating_sub(slots));
            let headers = [(":status", "200"), ("endpoint-load-metrics", &report)];
            stream
                .response_headers(HeaderMap::new(headers), true)
                .unwrap();
            stream.end().unwrap();
        }
        caps.extend(process.gauges("paceline_max_in_flight;").values());
    }
    assert_eq!(total_in_flight(&process), 0);
    caps
}

#[test]
fn a_reported_queue_lowers_a_learned_cap_until_none_is_reported() {
    let text = |waiting| {
        format!(
            "TEXT named_metrics.kv_cache_usage_perc=0.9, named_metrics.num_requests_waiting={waiting}.0"
        )
    };
    let json = |waiting| {
        format!(
            r#"JSON {{"named_metrics": {{"num_requests_waiting": {waiting}.0, "kv_cache_usage_perc": 0.9}}}}"#
        )
    };
    let others = |_| "TEXT cpu_utilization=0.9, named_metrics.num_requests_running=9".to_owned();
    let (by_text, by_json) = (caps_by_report(3, text), caps_by_report(3, json));
    for caps in [&by_text, &by_json] {
        let late = &caps[20..];
        assert!(late.iter().all(|cap| (3..=5).contains(cap)), "{caps:?}");
    }
    let never = caps_by_report(100, text);
    let silent = caps_by_report(3, others);
    for caps in [never, silent] {
        assert!(caps.iter().all(|cap| *cap >= 200), "{caps:?}");
    }
}
