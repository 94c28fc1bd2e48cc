use super::*;
use crate::decision::{Balancer, Demand, Finished};
use crate::host::SetError;
use crate::host::memory::Memory;
use crate::outcome::End;
use crate::policy::Reason;

const KEY: &str = "test";
const POOL: &str = r#""upstreams": [{"cluster": "a"}, {"cluster": "b"}]"#;

fn balancer(rest: &str, seed: u64) -> Balancer {
    let config = Config::parse(Some(format!("{{{POOL}{rest}}}").as_bytes())).unwrap();
    Balancer::new(&config, KEY.to_owned(), seed)
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

fn answered() -> Finished {
    Finished {
        end: End {
            status: Some(200),
            attempts: 1,
            request_complete: true,
            response_complete: true,
            ..End::default()
        },
        ..Finished::default()
    }
}

/// One request of a size that starts at `start` and ends as `finished` says,
/// `took` seconds later; the member that got it.
fn request(
    balancer: &mut Balancer,
    shared: &mut Memory,
    size: Option<f64>,
    start: f64,
    finished: impl Fn(usize) -> (f64, Finished),
) -> usize {
    let route = balancer
        .decide(
            shared,
            &Demand {
                pool: PoolIndex(0),
                size,
                ..Demand::default()
            },
            at(start),
        )
        .routed()
        .unwrap();
    let member = route.member.0;
    let (took, finished) = finished(member);
    balancer
        .release(shared, route.reservation, &finished, at(start + took))
        .unwrap();
    member
}

/// Where the latencies of a member are shared.
fn key_of(balancer: &Balancer, member: usize) -> String {
    let identity = balancer.topology().members[member].identity;
    format!("{KEY}/latency/60000/{identity:016x}")
}

fn exchange(balancer: &mut Balancer, shared: &mut Memory, now: f64) -> usize {
    let mut updated = 0;
    balancer
        .exchange_latencies(shared, at(now), |_, _| updated += 1)
        .unwrap();
    updated
}

fn quantiles(balancer: &Balancer, measure: Measure) -> [Quantiles; 2] {
    [0, 1].map(|member| balancer.latencies.measured(MemberIndex(member))[measure.index()])
}

fn is_about(told: Quantiles, seconds: f64) -> bool {
    told.is_some_and(|q| q.iter().all(|told| (told / seconds - 1.0).abs() < 0.0626))
}

#[test]
fn all_workers_know_what_each_has_measured() {
    let mut shared = Memory::default();
    let mut workers: Vec<Balancer> = (1..=3)
        .map(|seed| balancer(r#", "policy": "round_robin""#, seed))
        .collect();
    for round in 0..30 {
        let worker = &mut workers[round % 3];
        let seconds = |member| ([0.1, 0.4][member], answered());
        request(worker, &mut shared, None, 1.0, seconds);
    }
    for worker in &mut workers {
        assert_eq!(quantiles(worker, Measure::Complete), [None, None]);
        exchange(worker, &mut shared, 2.0);
    }
    for worker in &mut workers {
        exchange(worker, &mut shared, 2.3);
        let [a, b] = quantiles(worker, Measure::Complete);
        assert!(is_about(a, 0.1) && is_about(b, 0.4), "{a:?} {b:?}");
        assert_eq!(quantiles(worker, Measure::FirstByte), [None, None]);
        assert_eq!(exchange(worker, &mut shared, 2.6), 0, "nothing new");
    }
    let counted = [0, 1].map(|member| -> u64 {
        let record = shared.get(&key_of(&workers[0], member)).unwrap().unwrap();
        let record = LatencyRecord::decode(&record.value).unwrap();
        let counts = record.rows().iter().map(|(_, it)| it.durations().count());
        counts.sum()
    });
    assert_eq!(counted[0] + counted[1], 30, "each once");
}

#[test]
fn a_change_of_configuration_and_a_new_worker_find_what_was_measured() {
    let mut shared = Memory::default();
    let mut old = balancer(r#", "policy": "round_robin""#, 1);
    for _ in 0..10 {
        request(&mut old, &mut shared, None, 1.0, |_| (0.2, answered()));
    }
    exchange(&mut old, &mut shared, 2.0);
    let mut new = balancer(r#", "policy": "latency_percentile""#, 2);
    assert_eq!(exchange(&mut new, &mut shared, 2.0), 2);
    let [a, b] = quantiles(&new, Measure::Complete);
    assert!(is_about(a, 0.2) && is_about(b, 0.2), "{a:?} {b:?}");
    let mut other_window = balancer(r#", "latency": {"window": "5s"}"#, 3);
    assert_eq!(exchange(&mut other_window, &mut shared, 2.0), 0);
}

#[test]
fn what_is_older_than_two_windows_is_forgotten() {
    let mut shared = Memory::default();
    let mut worker = balancer(r#", "policy": "round_robin""#, 1);
    for second in [10.0, 70.0] {
        let seconds = move |_| (second / 100.0, answered());
        for _ in 0..2 {
            request(&mut worker, &mut shared, None, second, seconds);
        }
        exchange(&mut worker, &mut shared, second + 1.0);
    }
    let told = |worker: &Balancer| quantiles(worker, Measure::Complete)[0];
    let [p50, _, p99] = told(&worker).unwrap();
    assert!(p50 < 0.11 && p99 > 0.65, "both windows: {p50} {p99}");
    exchange(&mut worker, &mut shared, 130.0);
    assert!(is_about(told(&worker), 0.7), "{:?}", told(&worker));
    exchange(&mut worker, &mut shared, 190.0);
    assert_eq!(told(&worker), None);
}

#[test]
fn failures_and_what_was_nobodys_fault_are_not_measured() {
    let mut shared = Memory::default();
    let mut worker = balancer("", 1);
    for status in [503, 429, 404] {
        let mut finished = answered();
        finished.end.status = Some(status);
        request(&mut worker, &mut shared, None, 1.0, |_| (0.01, finished));
    }
    let mut gone = answered();
    gone.end.flags = 1 << 14;
    request(&mut worker, &mut shared, None, 1.0, |_| (0.01, gone));
    assert_eq!(exchange(&mut worker, &mut shared, 2.0), 0);
    assert_eq!(shared.get(&key_of(&worker, 0)).unwrap(), None);
}

#[test]
fn a_damaged_record_is_replaced_and_what_is_pending_is_not_lost() {
    for damage in [&b"not ours"[..], b"L\x02\x00", &[0xff; 3_000]] {
        let mut shared = Memory::default();
        let mut worker = balancer("", 1);
        for member in 0..2 {
            shared.set(&key_of(&worker, member), damage).unwrap();
        }
        request(&mut worker, &mut shared, None, 1.0, |_| (0.2, answered()));
        let exchanged = worker.exchange_latencies(&mut shared, at(2.0), |_, _| {});
        assert_eq!(exchanged, Err(StateError::Malformed));
        exchange(&mut worker, &mut shared, 3.0);
        let told = quantiles(&worker, Measure::Complete);
        assert!(told.iter().any(|told| is_about(*told, 0.2)), "{told:?}");
    }
}

/// Shared data that another worker always writes first.
#[derive(Default)]
struct Contended(Memory);

impl SharedData for Contended {
    fn get(&mut self, key: &str) -> Result<Option<crate::host::Versioned>, crate::host::HostError> {
        self.0.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), crate::host::HostError> {
        self.0.set(key, value)
    }

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        if key.contains("/latency/") {
            return Err(SetError::Conflict);
        }
        self.0.compare_and_set(key, value, expected)
    }
}

#[test]
fn what_could_not_be_written_is_written_by_the_next_tick() {
    let mut shared = Contended::default();
    let mut worker = balancer("", 1);
    request(&mut worker, &mut shared.0, None, 1.0, |_| (0.2, answered()));
    let contended = worker.exchange_latencies(&mut shared, at(2.0), |_, _| {});
    assert_eq!(contended, Err(StateError::Contended));
    assert_eq!(exchange(&mut worker, &mut shared.0, 3.0), 1);
}

#[test]
fn each_size_is_ranked_by_its_own_latencies() {
    // a is quick with small requests, b with large ones.
    let policy =
        r#", "policy": {"name": "latency_percentile", "min_samples": 30, "exploration": 0}"#;
    let mut shared = Memory::default();
    let mut worker = balancer(policy, 1);
    let seconds = |size: f64| {
        move |member| {
            let is_good = (member == 0) == (size < 100.0);
            (if is_good { 0.1 } else { 0.9 }, answered())
        }
    };
    let mut now = 1.0;
    let mut last = Vec::new();
    for round in 0..400 {
        let size = [10.0, 10_000.0][round % 2];
        let member = request(&mut worker, &mut shared, Some(size), now, seconds(size));
        now += 0.05;
        exchange(&mut worker, &mut shared, now);
        if round >= 300 {
            last.push((round % 2, member));
        }
    }
    let fitting = last.iter().filter(|(size, member)| size == member).count();
    assert_eq!(fitting, last.len(), "{last:?}");
}

#[test]
fn streams_are_ranked_by_their_first_byte_and_other_answers_are_left_out() {
    let rest = r#", "latency": {"signal": "first_byte"}, "policy": "round_robin", "explain": true"#;
    let mut shared = Memory::default();
    let mut worker = balancer(rest, 1);
    let stream = Finished {
        first_byte_at: Some(at(1.3)),
        chunks: 11,
        is_stream: true,
        ..answered()
    };
    for _ in 0..4 {
        let whole = Finished {
            first_byte_at: Some(at(9.0)),
            chunks: 1,
            is_stream: false,
            ..answered()
        };
        // Round robin: each gets one of the two.
        for _ in 0..2 {
            request(&mut worker, &mut shared, None, 1.0, |server| match server {
                0 => (5.3, stream),
                _ => (8.0, whole),
            });
        }
    }
    exchange(&mut worker, &mut shared, 10.0);
    let [a, b] = quantiles(&worker, Measure::FirstByte);
    assert!(is_about(a, 0.3), "{a:?}");
    assert_eq!(b, None);
    let [a, b] = quantiles(&worker, Measure::Complete);
    assert!(is_about(a, 5.3) && is_about(b, 8.0), "{a:?} {b:?}");
    let [a, b] = quantiles(&worker, Measure::ChunkGap);
    assert!(is_about(a, 0.5), "ten gaps in five seconds: {a:?}");
    assert_eq!(b, None);
    worker.renew(&mut shared, at(10.0)).unwrap();
    let [a, b] = [0, 1].map(|member| *worker.estimates.member(MemberIndex(member)).unwrap());
    let response_time = a.response_time.get().unwrap();
    assert!((response_time - 0.3).abs() < 1e-3, "{response_time}");
    assert_eq!(b.response_time.get(), None);

    let demand = Demand {
        pool: PoolIndex(0),
        ..Demand::default()
    };
    let mut pick = || {
        worker
            .decide(&mut shared, &demand, at(10.0))
            .routed()
            .unwrap()
    };
    let route = [pick(), pick()]
        .into_iter()
        .find(|route| route.member == MemberIndex(0));
    let route = route.unwrap();
    let told = route
        .explanation
        .describe(worker.topology(), MemberIndex(0), None);
    let latency = "; p50=285.2ms; p90=285.2ms; p99=285.2ms; reason=policy";
    assert!(told.ends_with(latency), "{told}");
    assert_eq!(route.explanation.reason, Reason::Policy);
}

#[test]
fn one_signal_learns_nothing_from_the_other() {
    let mut shared = Memory::default();
    let mut complete = balancer("", 1);
    for _ in 0..10 {
        request(&mut complete, &mut shared, None, 1.0, |_| (7.0, answered()));
    }
    let mut first_byte = balancer(r#", "latency": {"signal": "first_byte"}"#, 2);
    first_byte.renew(&mut shared, at(9.0)).unwrap();
    first_byte.estimates.read(&mut shared, at(9.0)).unwrap();
    for state in [0, 1].map(|member| *first_byte.estimates.member(MemberIndex(member)).unwrap()) {
        assert!(!state.pace.is_known());
        assert_eq!(state.response_time.get(), None);
    }
}

#[test]
fn large_configurations_are_brought_up_to_date_in_turn() {
    let pool = |name: &str| {
        let upstreams: Vec<String> = (0..200)
            .map(|n| format!(r#"{{"cluster": "{name}{n}"}}"#))
            .collect();
        format!(
            r#"{{"name": "{name}", "match": {{"path_prefix": "/{name}"}}, "upstreams": [{}]}}"#,
            upstreams.join(",")
        )
    };
    let pools = ["x", "y", "z"].map(pool).join(",");
    let json = format!(r#"{{"pools": [{pools}]}}"#);
    let config = Config::parse(Some(json.as_bytes())).unwrap();
    let mut worker = Balancer::new(&config, KEY.to_owned(), 1);
    let mut shared = Memory::default();
    for pool in 0..3 {
        let demand = Demand {
            pool: PoolIndex(pool),
            ..Demand::default()
        };
        let route = worker
            .decide(&mut shared, &demand, at(1.0))
            .routed()
            .unwrap();
        worker
            .release(&mut shared, route.reservation, &answered(), at(2.0))
            .unwrap();
    }
    // Eight of six hundred a tick; three of them have served.
    let tick = |tick: u32| exchange(&mut worker, &mut shared, 2.0 + f64::from(tick));
    let updated: usize = (0..75).map(tick).sum();
    assert_eq!(updated, 3);
}
