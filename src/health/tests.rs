//! Workers that share a process, and elect one of them to ask the upstreams.

use std::time::Duration;

use super::prober::MOST_AT_ONCE;
use super::*;
use crate::config::Config;
use crate::host::CallId;
use crate::host::fake::{Call, Fake};
use crate::pool::{MemberIndex, Topology};
use crate::state::health_record::HealthRecord;
use crate::time::Timestamp;

const TICK: Duration = Duration::from_millis(250);

/// One worker: its part in probing, and what it knows.
struct Worker {
    prober: Prober,
    view: View,
    members: usize,
}

fn worker(json: &str, id: u64) -> Worker {
    let config = Config::parse(Some(json.as_bytes())).unwrap();
    let topology = Topology::new(&config);
    Worker {
        prober: Prober::new(&config, &topology, "key", id).unwrap(),
        view: View::new(&config, &topology, "key").unwrap(),
        members: topology.members.len(),
    }
}

impl Worker {
    fn tick(&mut self, host: &mut Fake) {
        let now = now(host);
        self.prober.tick(host, now).unwrap();
    }

    /// An upstream has answered a call.
    fn hear(&mut self, host: &mut Fake, call: CallId, status: u16) {
        host.answer(status, b"");
        self.end(host, call);
    }

    fn end(&mut self, host: &mut Fake, call: CallId) {
        let now = now(host);
        self.prober.hear(host, call, true, 0, now).unwrap();
    }

    /// Which members are ready, as it reads now.
    fn ready(&mut self, host: &mut Fake) -> Vec<bool> {
        let now = now(host);
        self.view.read(host, now).unwrap();
        let members = (0..self.members).map(MemberIndex);
        members.map(|it| self.view.of(it).is_ready).collect()
    }
}

fn now(host: &mut Fake) -> Timestamp {
    crate::host::Host::now(host).unwrap()
}

/// A pool of so many upstreams.
fn pool(count: usize, check: &str) -> String {
    let upstreams: Vec<String> = (0..count)
        .map(|number| format!(r#"{{"cluster": "gpu-{number}"}}"#))
        .collect();
    let upstreams = upstreams.join(", ");
    format!(r#"{{"upstreams": [{upstreams}], "health_check": {check}}}"#)
}

/// Lets time pass, with a tick of all workers four times a second; each call is
/// answered at once, with the status that `answer` gives its cluster.
fn run(
    host: &mut Fake,
    workers: &mut [Worker],
    time: Duration,
    answer: impl Fn(&str) -> Option<u16>,
) {
    let mut heard = host.calls().count();
    for _ in 0..time.as_millis() / TICK.as_millis() {
        host.advance(TICK);
        for worker in &mut *workers {
            worker.tick(host);
            loop {
                let next = host.calls().nth(heard);
                let Some((id, cluster)) = next.map(|(id, sent)| (id, sent.cluster.clone())) else {
                    break;
                };
                heard += 1;
                if let Some(status) = answer(&cluster) {
                    worker.hear(host, id, status);
                }
            }
        }
    }
}

fn leaders(workers: &[Worker]) -> Vec<usize> {
    let leads = |it: &usize| workers[*it].prober.leads();
    (0..workers.len()).filter(leads).collect()
}

#[test]
fn without_a_health_check_there_is_nothing() {
    let config = Config::parse(Some(br#"{"upstreams": [{"cluster": "a"}]}"#)).unwrap();
    let topology = Topology::new(&config);
    assert!(Prober::new(&config, &topology, "key", 1).is_none());
    assert!(View::new(&config, &topology, "key").is_none());
}

#[test]
fn one_of_many_workers_asks_and_all_know() {
    let host = &mut Fake::new();
    let json = pool(3, r#"{"preset": "vllm", "cluster_suffix": "-servers"}"#);
    let mut workers: Vec<_> = (1..=4).map(|id| worker(&json, id)).collect();
    run(host, &mut workers, Duration::from_secs(10), |cluster| {
        Some(if cluster == "gpu-1-servers" { 503 } else { 200 })
    });
    assert_eq!(leaders(&workers), [0]);
    for worker in &mut workers {
        assert_eq!(worker.ready(host), [true, false, true]);
    }
    // Three upstreams, ten seconds, an interval of one that varies by a tenth and is
    // rounded up to ticks.
    let calls: Vec<_> = host.calls().map(|(_, sent)| sent.clone()).collect();
    assert!((3 * 7..=3 * 11).contains(&calls.len()), "{}", calls.len());
    let sent = &calls[0];
    assert_eq!(sent.timeout, Duration::from_millis(500));
    for (name, value) in [
        (":method", "GET"),
        (":path", "/health"),
        (":authority", "gpu-0"),
        (":scheme", "http"),
    ] {
        assert_eq!(sent.headers[name], value);
    }
}

#[test]
fn an_endpoint_is_asked_by_its_address() {
    let host = &mut Fake::new();
    let json = r#"{"cluster": "gpus", "endpoints": ["10.0.0.1:80", "10.0.0.2:80"],
        "health_check": "vllm"}"#;
    worker(json, 1).tick(host);
    let asked: Vec<_> = host
        .calls()
        .map(|(_, sent)| {
            (
                &*sent.cluster,
                &*sent.headers["x-gateway-destination-endpoint"],
            )
        })
        .collect();
    assert_eq!(asked, [("gpus", "10.0.0.1:80"), ("gpus", "10.0.0.2:80")]);
}

#[test]
fn a_dead_prober_is_replaced_within_its_lease_and_a_tick() {
    let host = &mut Fake::new();
    let json = pool(2, r#""vllm""#);
    let mut workers: Vec<_> = (1..=3).map(|id| worker(&json, id)).collect();
    let well = |cluster: &str| Some(if cluster == "gpu-0" { 200 } else { 503 });
    run(host, &mut workers, Duration::from_secs(5), well);
    let is_ready_since = |worker: &Worker| worker.view.of(MemberIndex(0)).since;
    workers[2].ready(host);
    let since = is_ready_since(&workers[2]);
    // It dies with calls under way.
    drop(workers.remove(0));
    let asked = host.calls().count();
    for _ in 0..7 {
        run(host, &mut workers, TICK, well);
        assert!(leaders(&workers).is_empty());
        assert_eq!(workers[1].ready(host), [true, false], "what is known holds");
    }
    run(host, &mut workers, Duration::from_millis(500), well);
    assert_eq!(leaders(&workers), [0]);
    assert_eq!(
        host.calls().count(),
        asked,
        "known ones wait for their turn"
    );
    run(host, &mut workers, Duration::from_secs(1), well);
    assert_eq!(host.calls().count(), asked + 2);
    assert_eq!(workers[1].ready(host), [true, false]);
    assert!(since.is_some());
    assert_eq!(is_ready_since(&workers[1]), since);
}

#[test]
fn a_prober_that_was_stalled_and_replaced_asks_no_more() {
    let host = &mut Fake::new();
    let json = pool(1, r#""vllm""#);
    let mut stalled = worker(&json, 1);
    stalled.tick(host);
    host.advance(Duration::from_secs(3));
    let mut other = [worker(&json, 2)];
    run(host, &mut other, TICK, |_| Some(503));
    assert!(other[0].prober.leads());
    // The answer to what it asked says nothing to anybody.
    let (call, _) = host.calls().next().unwrap();
    stalled.hear(host, call, 200);
    assert_eq!(other[0].ready(host), [false]);
    let asked = host.calls().count();
    stalled.tick(host);
    assert!(!stalled.prober.leads());
    assert_eq!(host.calls().count(), asked);
}

#[test]
fn a_stalled_prober_that_nobody_replaced_goes_on() {
    let host = &mut Fake::new();
    let mut workers = [worker(&pool(1, r#""vllm""#), 1)];
    run(host, &mut workers, Duration::from_secs(1), |_| Some(200));
    host.advance(Duration::from_secs(3600));
    assert_eq!(workers[0].ready(host), [false], "nobody vouches for it");
    workers[0].tick(host);
    assert_eq!(workers[0].ready(host), [true]);
}

#[test]
fn who_leaves_is_replaced_at_once_and_what_it_knew_holds() {
    let host = &mut Fake::new();
    let json = pool(2, r#""vllm""#);
    let mut workers = vec![worker(&json, 1), worker(&json, 2)];
    run(host, &mut workers, Duration::from_secs(2), |_| Some(200));
    let mut left = workers.remove(0);
    let at = now(host);
    left.prober.leave(host, at).unwrap();
    assert_eq!(workers[0].ready(host), [true, true]);
    host.advance(TICK);
    workers[0].tick(host);
    assert!(workers[0].prober.leads());
    assert_eq!(workers[0].ready(host), [true, true]);
    // Who does not probe has nothing to leave.
    let before = stored(host);
    worker(&json, 3).prober.leave(host, at).unwrap();
    assert_eq!(stored(host), before);
}

fn stored(host: &mut Fake) -> Option<HealthRecord> {
    use crate::host::SharedData as _;
    let stored = host.get("key/health/1").unwrap()?;
    HealthRecord::parse(&stored.value)
}

#[test]
fn an_upstream_is_never_asked_twice_at_once() {
    let host = &mut Fake::new();
    let check = r#"{"preset": "vllm", "interval": "250ms", "timeout": "10s"}"#;
    let mut workers = [worker(&pool(2, check), 1)];
    run(host, &mut workers, Duration::from_secs(9), |_| None);
    assert_eq!(host.calls().count(), 2);
    // The proxy never says how they ended: they are forgotten.
    run(host, &mut workers, Duration::from_secs(7), |_| None);
    assert_eq!(host.calls().count(), 4);
    assert_eq!(workers[0].ready(host), [false, false]);
    // A late end is nobody's.
    let (call, _) = host.calls().next().unwrap();
    workers[0].hear(host, call, 200);
    assert_eq!(workers[0].ready(host), [false, false]);
}

#[test]
fn many_upstreams_are_asked_a_few_at_a_time_and_spread_over_the_interval() {
    let host = &mut Fake::new();
    let json = pool(256, r#"{"preset": "vllm", "interval": "10s"}"#);
    let mut workers = [worker(&json, 1)];
    workers[0].tick(host);
    assert_eq!(host.calls().count(), MOST_AT_ONCE);
    // Each that answers makes room for one more.
    let mut answered = 0;
    while answered < host.calls().count() {
        workers[0].hear(host, CallId(answered as u32), 200);
        answered += 1;
        assert!(host.calls().count() - answered <= MOST_AT_ONCE);
    }
    assert_eq!(answered, 256);
    assert_eq!(workers[0].ready(host), vec![true; 256]);
    run(host, &mut workers, Duration::from_secs(20), |_| Some(200));
    let mut most = 0;
    for _ in 0..40 {
        let before = host.calls().count();
        run(host, &mut workers, TICK, |_| Some(200));
        most = most.max(host.calls().count() - before);
    }
    // 6.4 a tick; five standard deviations of a random spread more would be 19.
    assert!(most <= 25, "{most} in one tick");
}

#[test]
fn all_have_their_turn_though_some_never_answer() {
    let host = &mut Fake::new();
    let json = pool(
        200,
        r#"{"preset": "vllm", "interval": "250ms", "timeout": "10ms"}"#,
    );
    let mut workers = [worker(&json, 1)];
    // Hung ones are forgotten after five seconds, and there are more of them than may
    // be asked at once.
    let answer = |cluster: &str| {
        let number: usize = cluster.strip_prefix("gpu-").unwrap().parse().unwrap();
        (number >= 100).then_some(200)
    };
    run(host, &mut workers, Duration::from_secs(30), answer);
    let ready = workers[0].ready(host);
    assert_eq!(ready.iter().filter(|it| **it).count(), 100);
    let asked: std::collections::BTreeSet<_> =
        host.calls().map(|(_, sent)| sent.cluster.clone()).collect();
    assert_eq!(asked.len(), 200);
}

#[test]
fn the_first_that_is_ready_is_not_told_before_the_others_have_answered() {
    let host = &mut Fake::new();
    let mut workers = [worker(&pool(3, r#""vllm""#), 1)];
    workers[0].tick(host);
    workers[0].hear(host, CallId(0), 200);
    workers[0].hear(host, CallId(1), 200);
    assert_eq!(workers[0].ready(host), [false; 3]);
    workers[0].hear(host, CallId(2), 503);
    assert_eq!(workers[0].ready(host), [true, true, false]);
}

#[test]
fn one_that_never_answers_holds_the_others_up_for_a_tick_only() {
    let host = &mut Fake::new();
    let mut workers = [worker(&pool(2, r#""vllm""#), 1)];
    workers[0].tick(host);
    workers[0].hear(host, CallId(0), 200);
    assert_eq!(workers[0].ready(host), [false; 2]);
    host.advance(TICK);
    workers[0].tick(host);
    assert_eq!(workers[0].ready(host), [true, false]);
}

#[test]
fn a_new_configuration_goes_on_with_what_the_old_one_knew() {
    let host = &mut Fake::new();
    let mut old = [worker(&pool(2, r#""vllm""#), 1)];
    let loads = |cluster: &str| Some(if cluster == "gpu-0" { 200 } else { 503 });
    run(host, &mut old, Duration::from_secs(3), loads);
    // One upstream more, and another path: what is known of the upstreams holds, and
    // the new one is not ready.
    let mut new = [worker(&pool(3, r#"{"path": "/ready"}"#), 2)];
    assert_eq!(new[0].ready(host), [true, false, false]);
    run(host, &mut new, TICK, |_| Some(503));
    assert!(new[0].prober.leads() && old[0].prober.leads());
    assert_eq!(new[0].ready(host), [true, false, false]);
    run(host, &mut new, Duration::from_secs(3), |_| Some(200));
    assert_eq!(new[0].ready(host), [true, true, true]);
    // The old one still asks in its own way, and drains by that.
    run(host, &mut old, Duration::from_secs(2), loads);
    assert_eq!(old[0].ready(host), [true, false]);
    assert_eq!(new[0].ready(host), [true, true, true]);
}

#[test]
fn what_two_configurations_ask_alike_is_asked_once() {
    let host = &mut Fake::new();
    let mut old = worker(&pool(2, r#""vllm""#), 1);
    old.tick(host);
    for call in 0..2 {
        old.hear(host, CallId(call), 200);
    }
    old.tick(host);
    let mut new = worker(&pool(3, r#""vllm""#), 2);
    new.tick(host);
    let asked: Vec<_> = host.calls().map(|(_, sent)| sent.cluster.clone()).collect();
    assert_eq!(asked, ["gpu-0", "gpu-1", "gpu-2"]);
    new.hear(host, CallId(2), 200);
    assert_eq!(new.ready(host), [true, true, true]);
    assert_eq!(old.ready(host), [true, true]);
    // When the old one is gone, the new one has all.
    let at = now(host);
    old.prober.leave(host, at).unwrap();
    let mut new = [new];
    run(host, &mut new, Duration::from_secs(3), |cluster| {
        Some(if cluster == "gpu-1" { 503 } else { 200 })
    });
    assert_eq!(new[0].ready(host), [true, false, true]);
}

#[test]
fn an_upstream_that_comes_back_after_long_starts_anew() {
    let host = &mut Fake::new();
    let mut workers = [worker(&pool(2, r#""vllm""#), 1)];
    run(host, &mut workers, Duration::from_secs(2), |_| Some(200));
    let at = now(host);
    workers[0].prober.leave(host, at).unwrap();
    let mut one = [worker(&pool(1, r#""vllm""#), 2)];
    run(host, &mut one, Duration::from_secs(20), |_| Some(200));
    assert_eq!(
        stored(host).unwrap().rows.len(),
        1,
        "rows of what is gone go"
    );
    let at = now(host);
    one[0].prober.leave(host, at).unwrap();
    let mut back = worker(&pool(2, r#""vllm""#), 3);
    assert_eq!(back.ready(host), [true, false]);
}

#[test]
fn damage_and_loss_of_the_record_are_repaired_from_memory() {
    use crate::host::SharedData as _;
    let host = &mut Fake::new();
    let mut workers = vec![
        worker(&pool(2, r#""vllm""#), 1),
        worker(&pool(2, r#""vllm""#), 2),
    ];
    let loads = |cluster: &str| Some(if cluster == "gpu-0" { 200 } else { 503 });
    run(host, &mut workers, Duration::from_secs(2), loads);
    for damage in [&b""[..], b"nonsense"] {
        host.set("key/health/1", damage).unwrap();
        assert_eq!(workers[1].ready(host), [false, false]);
        workers[0].tick(host);
        host.advance(TICK);
        workers[0].tick(host);
        assert_eq!(workers[1].ready(host), [true, false]);
        assert_eq!(leaders(&workers), [0]);
    }
}

#[test]
fn a_clock_that_goes_back_or_ahead_ends_nothing() {
    let host = &mut Fake::new();
    let json = pool(1, r#""vllm""#);
    let mut workers = [worker(&json, 1)];
    run(host, &mut workers, Duration::from_secs(2), |_| Some(200));
    let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
    for moment in [
        at(3),
        at(3_600),
        at(9_000),
        at(3_601),
        Timestamp::from_nanos(u64::MAX),
        at(3_602),
    ] {
        let prober = &mut workers[0].prober;
        prober.tick(host, moment).unwrap();
        for (call, _) in host
            .calls()
            .map(|(id, sent)| (id, sent.clone()))
            .collect::<Vec<_>>()
        {
            host.answer(200, b"");
            prober.hear(host, call, true, 0, moment).unwrap();
        }
        prober.tick(host, moment).unwrap();
        workers[0].view.read(host, moment).unwrap();
        assert!(workers[0].view.of(MemberIndex(0)).is_ready, "{moment:?}");
    }
}

#[test]
fn a_host_that_fails_is_tried_again() {
    let host = &mut Fake::new();
    let mut workers = [worker(&pool(2, r#""vllm""#), 1)];
    for call in [Call::Get, Call::Set] {
        host.fail(call);
        let now = now(host);
        assert!(workers[0].prober.tick(host, now).is_err());
        assert_eq!(host.calls().count(), 0, "who has no lease asks nobody");
        host.heal();
        host.advance(TICK);
    }
    run(host, &mut workers, Duration::from_secs(2), |_| Some(200));
    assert_eq!(workers[0].ready(host), [true, true]);
    let verdicts = workers[0].prober.take_ended();
    assert!(verdicts.iter().all(|it| it.verdict == Verdict::Success));
    // No call gets through: not ready, after as many as the threshold says.
    host.fail(Call::Dispatch);
    run(host, &mut workers, Duration::from_secs(4), |_| Some(200));
    host.heal();
    assert_eq!(workers[0].ready(host), [false, false]);
    let verdicts = workers[0].prober.take_ended();
    assert!(verdicts.iter().all(|it| it.verdict == Verdict::Unreachable));
    run(host, &mut workers, Duration::from_secs(2), |_| Some(200));
    assert_eq!(workers[0].ready(host), [true, true]);
}

/// How a probe ends that is answered so.
fn verdict(check: &str, answer: impl Fn(&mut Fake) -> (bool, usize)) -> Verdict {
    let host = &mut Fake::new();
    let mut worker = worker(&pool(1, check), 1);
    worker.tick(host);
    let (has_headers, size) = answer(host);
    let now = now(host);
    worker
        .prober
        .hear(host, CallId(0), has_headers, size, now)
        .unwrap();
    worker.prober.take_ended()[0].verdict
}

#[test]
fn an_answer_says_how_a_probe_ended() {
    let plain = |answer: fn(&mut Fake)| {
        verdict(r#""vllm""#, |host| {
            answer(host);
            (true, 0)
        })
    };
    assert_eq!(plain(|host| host.answer(200, b"")), Verdict::Success);
    for status in [204, 301, 302, 404, 429, 500, 503, 504] {
        let status = verdict(r#""vllm""#, |host| {
            host.answer(status, b"");
            (true, 0)
        });
        assert_eq!(status, Verdict::Status);
    }
    // What the proxy says itself.
    assert_eq!(plain(|host| host.answer_locally(504)), Verdict::Timeout);
    assert_eq!(plain(|host| host.answer_locally(503)), Verdict::Unreachable);
    // No status, or none that can be read.
    assert_eq!(plain(|_| ()), Verdict::Unreachable);
    assert_eq!(
        plain(|host| host.fail(Call::AnswerHeader)),
        Verdict::Unreachable
    );
    // No answer.
    assert_eq!(verdict(r#""vllm""#, |_| (false, 0)), Verdict::Unreachable);
    let late = verdict(r#""vllm""#, |host| {
        host.advance(Duration::from_millis(500));
        (false, 0)
    });
    assert_eq!(late, Verdict::Timeout);
}

#[test]
fn a_body_is_read_if_the_check_asks_for_it_and_it_is_not_too_large() {
    let check = r#"{"path": "/h", "json_pointer": "/status", "equals": "ready"}"#;
    let ready = br#"{"status": "ready"}"#;
    let of = |body: &[u8], size| {
        verdict(check, |host| {
            host.answer(200, body);
            (true, size)
        })
    };
    assert_eq!(of(ready, ready.len()), Verdict::Success);
    assert_eq!(of(ready, MAX_BODY), Verdict::Success);
    assert_eq!(of(ready, MAX_BODY + 1), Verdict::BodyTooLarge);
    for body in [&b""[..], b"loading", br#"{"status": "loading"}"#, b"\xff"] {
        assert_eq!(of(body, body.len()), Verdict::Body);
    }
    let unreadable = verdict(check, |host| {
        host.answer(200, ready);
        host.fail(Call::AnswerBody);
        (true, ready.len())
    });
    assert_eq!(unreadable, Verdict::Body);
    // Where the check does not ask for it, it may be any size.
    let huge = verdict(r#""vllm""#, |host| {
        host.answer(200, b"");
        (true, usize::MAX)
    });
    assert_eq!(huge, Verdict::Success);
}
