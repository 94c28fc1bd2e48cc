//! Measured latencies: what one worker adds to them and what it knows of them.
//!
//! A worker sketches the latencies of the requests that it ends, and adds the
//! sketches to the pool's shared record on its tick, when it also reads what
//! the others have added. So a request costs no host call for them, a pick ranks
//! by what was known at the last tick, and a worker that traps loses what it
//! saw since.

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
    by_class: Vec<(SizeClass, Vec<f64>)>,
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
                pool.latency.window.as_millis() as u64,
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
        pool.tails.of(class).unwrap_or(&pool.tails.overall)
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
        let mut members = vec![ByKind::new(); self.measured.len()];
        let places: hashbrown::HashMap<u64, usize> = upstreams.zip(0..).collect();
        for (key, latencies) in record.rows() {
            if let Some(member) = places.get(&key.upstream).and_then(|p| members.get_mut(*p)) {
                let kind = (key.measure, key.class);
                // The rows of a kind follow each other, one a window.
                match member.last_mut() {
                    Some((last, known)) if *last == kind => known.merge(latencies),
                    _ => member.push((kind, latencies.clone())),
                }
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

/// A member's latencies, each kind once.
type ByKind = Vec<((Measure, SizeClass), estimate::Latencies)>;

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
            by_class: Vec::new(),
            overall: tail_paces(&all, q, min_samples).unwrap_or_default(),
        };
        for ((of, class), _) in members.iter().flatten() {
            if *of != measure || tails.of(*class).is_some() {
                continue;
            }
            let of_class: Vec<_> = members
                .iter()
                .map(|member| {
                    let mut kinds = member.iter();
                    let found = kinds.find(|(kind, _)| *kind == (measure, *class))?;
                    Some(&found.1)
                })
                .collect();
            if let Some(paces) = tail_paces(&of_class, q, min_samples) {
                tails.by_class.push((*class, paces));
            }
        }
        tails
    }

    /// Of requests of one class, where enough is known of them.
    fn of(&self, class: SizeClass) -> Option<&Vec<f64>> {
        let (_, paces) = self.by_class.iter().find(|(of, _)| *of == class)?;
        Some(paces)
    }
}

#[cfg(test)]
mod tests;
