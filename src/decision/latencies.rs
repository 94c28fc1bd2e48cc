//! Measured latencies: what one worker adds to them and what it knows of them.
//!
//! A worker sketches the latencies of the requests that it ends, and adds the
//! sketches to the pool's shared record on its tick, when it also reads what
//! the others have added. So a request costs no host call for them, a pick ranks
//! by what was known at the last tick, and a worker that traps loses what it
//! saw since.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::{Finished, Reservation};
use crate::config::{self, Config, LatencySignal, PolicyConfig};
use crate::estimate::{self, tail_paces};
use crate::host::{SetError, SharedData, Version};
use crate::pool::{MemberIndex, Topology, UpstreamIndex};
use crate::state::latency_record::{RowKey, window_at};
use crate::state::{LatencyRecord, Measure, SizeClass, StateError};
use crate::time::Timestamp;

/// A pool's members are brought up to date with so many others on a tick, or
/// in turn where there are more.
const MEMBERS_PER_TICK: usize = 256;
/// How often a write is tried on a tick. The next tick tries again.
const ATTEMPTS: u32 = 4;

/// The quantiles that are told, and their names in metrics.
pub const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// Seconds at each of [`QUANTILES`]; `None` where nothing was heard lately.
pub type Quantiles = Option<[f64; QUANTILES.len()]>;

/// The quantiles of each [`Measure`], by its index.
pub type Measured = [Quantiles; Measure::ALL.len()];

/// One worker's latencies, of all pools.
#[derive(Debug)]
pub(super) struct Latencies {
    topology: Rc<Topology>,
    pools: Vec<PoolLatencies>,
    /// Whose turn it is.
    turn: usize,
    /// How many members may still be brought up to date.
    credit: usize,
}

/// One worker's latencies of one pool.
#[derive(Debug)]
struct PoolLatencies {
    key: String,
    window: Duration,
    signal: LatencySignal,
    ranking: Option<Ranking>,
    /// What this worker has seen and the others have not been told.
    pending: LatencyRecord,
    /// The version and the window that the rest was made from.
    seen: Option<(Version, u32)>,
    measured: Vec<Measured>,
    tails: Tails,
}

/// What the policy ranks by.
#[derive(Clone, Copy, Debug)]
struct Ranking {
    q: f64,
    min_samples: u64,
}

/// Tail paces of a pool's members, in their order.
#[derive(Debug, Default)]
struct Tails {
    by_class: BTreeMap<SizeClass, Vec<f64>>,
    /// Of requests of all sizes.
    overall: Vec<f64>,
}

impl Latencies {
    /// Nothing seen. The records of the pools are at `key` and what tells them
    /// apart.
    pub(super) fn new(topology: Rc<Topology>, config: &Config, key: &str) -> Self {
        let pool = |pool: &config::Pool| PoolLatencies {
            // Sketches of other windows do not add up with these.
            key: format!(
                "{key}/latency/{}/{}",
                pool.latency.window.as_millis(),
                pool.name
            ),
            window: pool.latency.window,
            signal: pool.latency.signal,
            ranking: match pool.policy {
                PolicyConfig::LatencyPercentile { q, min_samples, .. } => Some(Ranking {
                    q,
                    min_samples: u64::from(min_samples),
                }),
                _ => None,
            },
            pending: LatencyRecord::default(),
            seen: None,
            measured: Vec::new(),
            tails: Tails::default(),
        };
        let mut latencies = Latencies {
            pools: config.pools.iter().map(pool).collect(),
            topology: Rc::clone(&topology),
            turn: 0,
            credit: 0,
        };
        latencies.set_topology(topology);
        latencies
    }

    /// Follows a change of the endpoints. What was measured of those that stay
    /// is known again with the next exchange.
    pub(super) fn set_topology(&mut self, topology: Rc<Topology>) {
        for (pool, named) in self.pools.iter_mut().zip(&topology.pools) {
            pool.measured = vec![Measured::default(); named.members.len()];
            pool.tails = Tails::default();
            pool.seen = None;
        }
        self.topology = topology;
    }

    /// Takes in a request that ended, if it went well.
    pub(super) fn observe(
        &mut self,
        reservation: &Reservation,
        finished: &Finished,
        now: Timestamp,
    ) {
        let topology = &self.topology;
        let member = topology.find_member(reservation.member);
        let Some(member) = member.and_then(|member| topology.members.get(member)) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(member.pool) else {
            return;
        };
        let upstream = identity(&self.topology, member.upstream);
        let window = window_at(now, pool.window);
        let load = reservation.at_pick.load as u64;
        let mut observe = |measure, class, duration| {
            let key = RowKey {
                upstream,
                measure,
                class,
                window,
            };
            pool.pending.observe(key, duration, load);
        };
        let (class, picked_at) = (SizeClass::of(reservation.size), reservation.picked_at);
        let complete = finished.latency(LatencySignal::Complete, picked_at, now);
        if let Some(latency) = complete {
            observe(Measure::Complete, class, latency);
        }
        let first_byte = finished.latency(LatencySignal::FirstByte, picked_at, now);
        if let Some(latency) = first_byte {
            observe(Measure::FirstByte, class, latency);
        }
        if let Some(gap) = finished.chunk_gap(now) {
            // It is how long the gaps are, not how many, and nothing ranks it.
            observe(Measure::ChunkGap, SizeClass::default(), gap);
        }
    }

    /// What was measured of a member as of the last tick.
    pub(super) fn measured(&self, member: MemberIndex) -> Measured {
        self.place_of(member)
            .and_then(|(pool, place)| pool.measured.get(place))
            .copied()
            .unwrap_or_default()
    }

    /// The quantiles that the member's pool ranks by.
    pub(super) fn ranked(&self, member: MemberIndex) -> Quantiles {
        let (pool, _) = self.place_of(member)?;
        let measured = self.measured(member);
        measured.get(pool.measure().index()).copied().flatten()
    }

    fn place_of(&self, member: MemberIndex) -> Option<(&PoolLatencies, usize)> {
        let number = self.topology.members.get(member)?.pool;
        let start = self.topology.pools.get(number)?.members.start;
        Some((self.pools.get(number)?, member.checked_sub(start)?))
    }

    /// The tail paces of a pool's members, in their order, for requests of a
    /// size: those measured of requests of that size, or else of all. Empty
    /// where too little is known, or the pool's policy does not ask.
    pub(super) fn tail_paces(&self, pool: usize, class: SizeClass) -> &[f64] {
        let Some(pool) = self.pools.get(pool) else {
            return &[];
        };
        pool.tails
            .by_class
            .get(&class)
            .unwrap_or(&pool.tails.overall)
    }

    /// Exchanges latencies with the other workers, pool by pool in turn, as far
    /// as a tick may go. `updated` is called for each member of which something
    /// new may be known.
    pub(super) fn exchange(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        mut updated: impl FnMut(MemberIndex, &Measured),
    ) -> Result<(), StateError> {
        let Latencies {
            topology,
            pools,
            turn,
            credit,
        } = self;
        let total = topology.members.len();
        *credit = (*credit + MEMBERS_PER_TICK).min(total.max(MEMBERS_PER_TICK));
        let mut result = Ok(());
        for _ in 0..pools.len() {
            *turn %= pools.len();
            let (Some(pool), Some(named)) = (pools.get_mut(*turn), topology.pools.get(*turn))
            else {
                break;
            };
            let Some(left) = credit.checked_sub(named.members.len()) else {
                break;
            };
            *credit = left;
            *turn += 1;
            let members = topology.members.get(named.members.clone());
            let upstreams = members.unwrap_or_default().iter();
            let upstreams = upstreams.map(|member| identity(topology, member.upstream));
            match pool.exchange(shared, now, upstreams) {
                Ok(false) => {}
                Ok(true) => {
                    let members = named.members.clone();
                    members
                        .zip(&pool.measured)
                        .for_each(|(member, measured)| updated(member, measured));
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

fn identity(topology: &Topology, upstream: UpstreamIndex) -> u64 {
    let upstream = topology.upstreams.get(upstream);
    upstream.map_or(0, |upstream| upstream.identity)
}

impl PoolLatencies {
    /// What the pool ranks by.
    const fn measure(&self) -> Measure {
        match self.signal {
            LatencySignal::Complete => Measure::Complete,
            LatencySignal::FirstByte => Measure::FirstByte,
        }
    }

    /// Adds what is pending to the shared record, and reads it where others may
    /// have changed it. False where nothing is new.
    fn exchange(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        upstreams: impl Iterator<Item = u64>,
    ) -> Result<bool, StateError> {
        let window = window_at(now, self.window);
        for _ in 0..ATTEMPTS {
            let found = shared.get(&self.key).map_err(StateError::Host)?;
            let version = found.as_ref().map(|found| found.version);
            let seen = version.map(|version| (version, window));
            if self.pending.is_empty() && (seen.is_none() || seen == self.seen) {
                return Ok(false);
            }
            let read = found.map(|found| LatencyRecord::decode(&found.value));
            let malformed = matches!(read, Some(None));
            let mut record = read.flatten().unwrap_or_default();
            record.merge(&self.pending);
            record.keep_recent(window);
            if malformed || !self.pending.is_empty() {
                match shared.compare_and_set(&self.key, &record.encode(), version) {
                    Ok(()) => self.pending.clear(),
                    Err(SetError::Conflict) => continue,
                    Err(SetError::Host(error)) => return Err(StateError::Host(error)),
                }
                // What the version is now the host does not say.
                self.seen = None;
            } else {
                self.seen = seen;
            }
            self.digest(&record, upstreams);
            return if malformed {
                Err(StateError::Malformed)
            } else {
                Ok(true)
            };
        }
        // Kept for the next tick, but not for ever.
        self.pending.keep_recent(window);
        Err(StateError::Contended)
    }

    fn digest(&mut self, record: &LatencyRecord, upstreams: impl Iterator<Item = u64>) {
        let mut members: Vec<BTreeMap<(Measure, SizeClass), estimate::Latencies>> =
            vec![BTreeMap::new(); self.measured.len()];
        let places: hashbrown::HashMap<u64, usize> = upstreams.zip(0..).collect();
        for (key, latencies) in record.rows() {
            if let Some(member) = places.get(&key.upstream).and_then(|p| members.get_mut(*p)) {
                let kind = (key.measure, key.class);
                member.entry(kind).or_default().merge(latencies);
            }
        }
        for (member, measured) in members.iter().zip(&mut self.measured) {
            *measured = Measure::ALL.map(|measure| quantiles(&overall(member, measure)));
        }
        if let Some(ranking) = self.ranking {
            self.tails = Tails::new(&members, self.measure(), ranking);
        }
    }
}

type ByKind = BTreeMap<(Measure, SizeClass), estimate::Latencies>;

/// A member's latencies of one kind, of requests of all sizes.
fn overall(member: &ByKind, measure: Measure) -> estimate::Latencies {
    let mut overall = estimate::Latencies::default();
    for ((of, _), latencies) in member {
        if *of == measure {
            overall.merge(latencies);
        }
    }
    overall
}

fn quantiles(latencies: &estimate::Latencies) -> Quantiles {
    let durations = latencies.durations();
    if durations.is_empty() {
        return None;
    }
    Some(QUANTILES.map(|(q, _)| durations.quantile(q).unwrap_or(0.0)))
}

impl Tails {
    fn new(members: &[ByKind], measure: Measure, ranking: Ranking) -> Self {
        let Ranking { q, min_samples } = ranking;
        let all: Vec<estimate::Latencies> = members
            .iter()
            .map(|member| overall(member, measure))
            .collect();
        let all: Vec<_> = all.iter().map(Some).collect();
        let mut tails = Tails {
            by_class: BTreeMap::new(),
            overall: tail_paces(&all, q, min_samples).unwrap_or_default(),
        };
        let classes = members.iter().flat_map(|member| member.keys());
        for (of, class) in classes {
            if *of != measure || tails.by_class.contains_key(class) {
                continue;
            }
            let of_class: Vec<_> = members
                .iter()
                .map(|member| member.get(&(measure, *class)))
                .collect();
            if let Some(paces) = tail_paces(&of_class, q, min_samples) {
                tails.by_class.insert(*class, paces);
            }
        }
        tails
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Balancer, Demand, Finished};
    use crate::host::memory::Memory;
    use crate::outcome::End;
    use crate::policy::Reason;

    const KEY: &str = "test";
    const SHARED: &str = "test/latency/60000/default";
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
            .pick(shared, &Demand { pool: 0, size }, at(start))
            .unwrap();
        let member = route.member;
        let (took, finished) = finished(member);
        balancer
            .release(shared, route.reservation, &finished, at(start + took))
            .unwrap();
        member
    }

    fn exchange(balancer: &mut Balancer, shared: &mut Memory, now: f64) -> usize {
        let mut updated = 0;
        balancer
            .exchange_latencies(shared, at(now), |_, _| updated += 1)
            .unwrap();
        updated
    }

    fn quantiles(balancer: &Balancer, measure: Measure) -> [Quantiles; 2] {
        [0, 1].map(|member| balancer.latencies.measured(member)[measure.index()])
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
        let record = shared.get(SHARED).unwrap().unwrap().value;
        let record = LatencyRecord::decode(&record).unwrap();
        let counted: u64 = record.rows().map(|(_, it)| it.durations().count()).sum();
        assert_eq!(counted, 30, "each once");
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
        assert_eq!(shared.get(SHARED).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_replaced_and_what_is_pending_is_not_lost() {
        for damage in [&b"not ours"[..], b"", b"L\x01\x00", &[0xff; 3_000]] {
            let mut shared = Memory::default();
            shared.set(SHARED, damage.to_vec());
            let mut worker = balancer("", 1);
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
        fn get(
            &mut self,
            key: &str,
        ) -> Result<Option<crate::host::Versioned>, crate::host::HostError> {
            self.0.get(key)
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
        assert_eq!(exchange(&mut worker, &mut shared.0, 3.0), 2);
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
        let rest =
            r#", "latency": {"signal": "first_byte"}, "policy": "round_robin", "explain": true"#;
        let mut shared = Memory::default();
        let mut worker = balancer(rest, 1);
        let stream = Finished {
            first_byte_at: Some(at(1.3)),
            chunks: 11,
            is_stream: true,
            ..answered()
        };
        for _ in 0..4 {
            request(&mut worker, &mut shared, None, 1.0, |_| (5.3, stream));
            let whole = Finished {
                first_byte_at: Some(at(9.0)),
                chunks: 1,
                is_stream: false,
                ..answered()
            };
            request(&mut worker, &mut shared, None, 1.0, |_| (8.0, whole));
        }
        exchange(&mut worker, &mut shared, 10.0);
        // Round robin: a got the streams.
        let [a, b] = quantiles(&worker, Measure::FirstByte);
        assert!(is_about(a, 0.3), "{a:?}");
        assert_eq!(b, None);
        let [a, b] = quantiles(&worker, Measure::Complete);
        assert!(is_about(a, 5.3) && is_about(b, 8.0), "{a:?} {b:?}");
        let [a, b] = quantiles(&worker, Measure::ChunkGap);
        assert!(is_about(a, 0.5), "ten gaps in five seconds: {a:?}");
        assert_eq!(b, None);
        let states = worker.ledger.update(&mut shared, at(10.0), |view| {
            [0, 1].map(|member| view.member(member))
        });
        let [a, b] = states.unwrap().value;
        let response_time = a.response_time.get().unwrap();
        assert!((response_time - 0.3).abs() < 1e-3, "{response_time}");
        assert_eq!(b.response_time.get(), None);

        let demand = Demand {
            pool: 0,
            size: None,
        };
        let route = worker.pick(&mut shared, &demand, at(10.0)).unwrap();
        let told = route.explanation.describe(worker.topology(), 0, None);
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
        let states = first_byte.ledger.update(&mut shared, at(9.0), |view| {
            [0, 1].map(|member| view.member(member))
        });
        for state in states.unwrap().value {
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
            let demand = Demand { pool, size: None };
            let route = worker.pick(&mut shared, &demand, at(1.0)).unwrap();
            worker
                .release(&mut shared, route.reservation, &answered(), at(2.0))
                .unwrap();
        }
        let updated: Vec<usize> = (0..4)
            .map(|tick| exchange(&mut worker, &mut shared, 2.0 + f64::from(tick)))
            .collect();
        // One pool fits into a tick, and now and then what is left over makes
        // for a second.
        assert_eq!(updated, [200, 200, 200, 400]);
    }
}
