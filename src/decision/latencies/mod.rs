//! Measured latencies: what one worker adds to them and what it knows of them.
//!
//! A worker sketches the latencies of the requests that it ends. On its ticks it
//! takes a few members in turn, adds the sketches of each to the member's shared
//! record, and reads what the others have added. So a request costs no host call
//! for them, a pick ranks by what was known a few ticks ago, and a worker that
//! traps loses what it saw since.

use std::rc::Rc;
use std::time::Duration;

use super::{Finished, Reservation};
use crate::config::{self, Config, LatencySignal, PolicyConfig};
use crate::estimate::{self, Tail, tail_paces};
use crate::host::{SharedData, Version};
use crate::map::Map;
use crate::pool::{MemberIndex, PoolIndex, Topology};
use crate::state::cell::{self, Change};
use crate::state::latency_record::{RowKey, window_at};
use crate::state::{LatencyRecord, Measure, SizeClass, StateError};
use crate::time::Timestamp;

/// So many members are brought up to date on a tick, in turn where there are
/// more: with some tens of microseconds each, a tick keeps no request waiting.
const MEMBERS_PER_TICK: usize = 8;
/// How often a write is tried on a tick. The next turn tries again.
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
    key: String,
    pools: Vec<PoolLatencies>,
    /// Whose turn it is: a member's number.
    turn: usize,
}

/// One worker's latencies of one pool.
#[derive(Debug)]
struct PoolLatencies {
    window: Duration,
    signal: LatencySignal,
    ranking: Option<Ranking>,
    /// The pool's members, in their order.
    members: Vec<MemberLatencies>,
    tails: Tails,
}

/// One worker's latencies of one member.
#[derive(Debug, Default)]
struct MemberLatencies {
    /// The member's, which tells apart whatever says nothing about it.
    identity: u64,
    /// Where the workers share them; empty until it is needed.
    key: String,
    /// What this worker has seen and the others do not know yet.
    pending: LatencyRecord,
    /// The version and the window that the rest was made from.
    seen: Option<(Version, u32)>,
    measured: Measured,
    /// Kept where the policy ranks by them.
    tails: MemberTails,
}

/// The tails of one member's latencies, where enough is known of them.
#[derive(Debug, Default)]
struct MemberTails {
    by_class: Vec<(SizeClass, Tail)>,
    /// Of requests of all sizes.
    overall: Option<Tail>,
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
    /// Members have been exchanged since.
    is_stale: bool,
}

impl Latencies {
    /// Nothing seen. The records are at `key` and what tells them apart.
    pub(super) fn new(topology: Rc<Topology>, config: &Config, key: &str) -> Self {
        let pool = |pool: &config::Pool| PoolLatencies {
            window: pool.latency.window,
            signal: pool.latency.signal,
            ranking: match pool.policy {
                PolicyConfig::LatencyPercentile { q, min_samples, .. } => Some(Ranking {
                    q,
                    min_samples: u64::from(min_samples),
                }),
                _ => None,
            },
            members: Vec::new(),
            tails: Tails::default(),
        };
        let mut latencies = Latencies {
            pools: config.pools.iter().map(pool).collect(),
            key: key.to_owned(),
            topology: Rc::clone(&topology),
            turn: 0,
        };
        latencies.set_topology(topology);
        latencies
    }

    /// Follows a change of the endpoints. What is known of those that stay is
    /// kept.
    pub(super) fn set_topology(&mut self, topology: Rc<Topology>) {
        for (pool, named) in self.pools.iter_mut().zip(&topology.pools) {
            let members = topology.members.get(named.members.clone());
            let members = members.unwrap_or_default().iter();
            let known = std::mem::take(&mut pool.members).into_iter();
            let mut known: Map<u64, MemberLatencies> =
                known.map(|member| (member.identity, member)).collect();
            let mut member = |identity| {
                known.remove(&identity).unwrap_or_else(|| MemberLatencies {
                    identity,
                    ..MemberLatencies::default()
                })
            };
            pool.members = members.map(|it| member(it.identity)).collect();
            pool.rank();
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
        let Some((pool, place)) = self
            .topology
            .find_member(reservation.member)
            .and_then(|member| place_of(&self.topology, member))
        else {
            return;
        };
        let Some(pool) = self.pools.get_mut(pool.0) else {
            return;
        };
        let window = window_at(now, pool.window);
        // Nothing but the policy asks for sizes.
        let class = match pool.ranking {
            Some(_) => SizeClass::of(reservation.size),
            None => SizeClass::default(),
        };
        let Some(member) = pool.members.get_mut(place) else {
            return;
        };
        let load = reservation.at_pick.load as u64;
        let mut observe = |measure, class, duration| {
            let key = RowKey {
                measure,
                class,
                window,
            };
            member.pending.observe(key, duration, load);
        };
        let picked_at = reservation.picked_at;
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

    /// What was measured of a member as of its last exchange.
    pub(super) fn measured(&self, member: MemberIndex) -> Measured {
        self.member(member)
            .map(|(_, member)| member.measured)
            .unwrap_or_default()
    }

    /// The quantiles that the member's pool ranks by.
    pub(super) fn ranked(&self, member: MemberIndex) -> Quantiles {
        let (pool, member) = self.member(member)?;
        member.measured.get(pool.measure().index()).copied()?
    }

    fn member(&self, member: MemberIndex) -> Option<(&PoolLatencies, &MemberLatencies)> {
        let (pool, place) = place_of(&self.topology, member)?;
        let pool = self.pools.get(pool.0)?;
        Some((pool, pool.members.get(place)?))
    }

    /// The tail paces of a pool's members, in their order, for requests of a
    /// size: those measured of requests of that size, or else of all. Empty
    /// where too little is known, or the pool's policy does not ask.
    pub(super) fn tail_paces(&self, pool: PoolIndex, class: SizeClass) -> &[f64] {
        let Some(pool) = self.pools.get(pool.0) else {
            return &[];
        };
        pool.tails.of(class).unwrap_or(&pool.tails.overall)
    }

    /// Exchanges latencies with the other workers, member by member in turn, as
    /// far as a tick may go. `updated` is called for each member about which
    /// something new may be known.
    pub(super) fn exchange(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        mut updated: impl FnMut(MemberIndex, &Measured),
    ) -> Result<(), StateError> {
        let Latencies {
            topology,
            key,
            pools,
            turn,
        } = self;
        let total = topology.pools.last().map_or(0, |pool| pool.members.end);
        let mut result = Ok(());
        for _ in 0..total.min(MEMBERS_PER_TICK) {
            *turn %= total;
            let index = MemberIndex(*turn);
            *turn += 1;
            let Some((number, place)) = place_of(topology, index) else {
                continue;
            };
            let (Some(pool), Some(named)) = (pools.get_mut(number.0), topology.pool(number)) else {
                continue;
            };
            let is_last = *turn == named.members.end;
            match pool.exchange(shared, key, place, now) {
                Ok(false) => {}
                Ok(true) => {
                    pool.tails.is_stale = true;
                    if let Some(member) = pool.members.get(place) {
                        updated(index, &member.measured);
                    }
                }
                Err(error) => result = Err(error),
            }
            if is_last && pool.tails.is_stale {
                pool.rank();
            }
        }
        result
    }
}

/// A member's pool, and its place among that pool's members.
fn place_of(topology: &Topology, member: MemberIndex) -> Option<(PoolIndex, usize)> {
    let pool = topology.member(member)?.pool;
    let members = &topology.pool(pool)?.members;
    members
        .contains(&member.0)
        .then(|| (pool, member.0 - members.start))
}

impl PoolLatencies {
    /// What the pool ranks by.
    const fn measure(&self) -> Measure {
        match self.signal {
            LatencySignal::Complete => Measure::Complete,
            LatencySignal::FirstByte => Measure::FirstByte,
        }
    }

    /// Adds what is pending of a member to its shared record, and reads that
    /// where others may have changed it. False where nothing is new.
    fn exchange(
        &mut self,
        shared: &mut impl SharedData,
        key: &str,
        place: usize,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let (length, ranking, measure) = (self.window, self.ranking, self.measure());
        let Some(member) = self.members.get_mut(place) else {
            return Ok(false);
        };
        if member.key.is_empty() {
            // Sketches of other windows do not add up with these.
            let (length, identity) = (length.as_millis() as u64, member.identity);
            member.key = format!("{key}/latency/{length}/{identity:016x}");
        }
        let window = window_at(now, length);
        let MemberLatencies {
            key,
            pending,
            seen,
            measured,
            tails,
            ..
        } = member;
        let changed = cell::change(shared, key, ATTEMPTS, |_, found| {
            let seen_now = found.version.map(|version| (version, window));
            if pending.is_empty() && (seen_now.is_none() || seen_now == *seen) {
                return Ok(Change::Keep(None));
            }
            let read = found.bytes.map(LatencyRecord::decode);
            let is_malformed = matches!(read, Some(None));
            let mut record = read.flatten().unwrap_or_default();
            record.merge(pending);
            record.keep_recent(window);
            if is_malformed || !pending.is_empty() {
                return Ok(Change::Write(record.encode(), Some((record, is_malformed))));
            }
            Ok(Change::Keep(Some((record, false))))
        });
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                // Kept for the next time, but not for ever.
                pending.keep_recent(window);
                return Err(error);
            }
        };
        let Some((record, is_malformed)) = changed.value else {
            return Ok(false);
        };
        pending.clear();
        *seen = changed.version.map(|version| (version, window));
        let by_kind = by_kind(&record);
        *measured = Measure::ALL.map(|measure| quantiles(&overall(&by_kind, measure)));
        if let Some(ranking) = ranking {
            *tails = MemberTails::new(&by_kind, measure, ranking);
        }
        if is_malformed {
            return Err(StateError::Malformed);
        }
        Ok(true)
    }

    /// Ranks the members by what is known of them.
    fn rank(&mut self) {
        self.tails = match self.ranking {
            Some(_) => Tails::new(&self.members),
            None => Tails::default(),
        };
    }
}

/// The record's latencies, with the windows of each kind put together.
fn by_kind(record: &LatencyRecord) -> ByKind {
    let mut kinds = ByKind::new();
    for (key, latencies) in record.rows() {
        let kind = (key.measure, key.class);
        // The rows of a kind follow each other, one a window.
        match kinds.last_mut() {
            Some((last, known)) if *last == kind => known.merge(latencies),
            _ => kinds.push((kind, latencies.clone())),
        }
    }
    kinds
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

impl MemberTails {
    fn new(kinds: &ByKind, measure: Measure, ranking: Ranking) -> Self {
        let Ranking { q, min_samples } = ranking;
        let of_measure = kinds.iter().filter(|((of, _), _)| *of == measure);
        let by_class = of_measure
            .filter_map(|((_, class), latencies)| Some((*class, latencies.tail(q, min_samples)?)));
        MemberTails {
            by_class: by_class.collect(),
            overall: overall(kinds, measure).tail(q, min_samples),
        }
    }

    fn of(&self, class: SizeClass) -> Option<Tail> {
        let (_, tail) = self.by_class.iter().find(|(of, _)| *of == class)?;
        Some(*tail)
    }
}

fn quantiles(latencies: &estimate::Latencies) -> Quantiles {
    let durations = latencies.durations();
    if durations.is_empty() {
        return None;
    }
    Some(QUANTILES.map(|(q, _)| durations.quantile(q).unwrap_or(0.0)))
}

impl Tails {
    fn new(members: &[MemberLatencies]) -> Self {
        let mut classes: Vec<SizeClass> = Vec::new();
        for (class, _) in members.iter().flat_map(|member| &member.tails.by_class) {
            if !classes.contains(class) {
                classes.push(*class);
            }
        }
        let overall: Vec<_> = members.iter().map(|member| member.tails.overall).collect();
        let of_class = |class| {
            let tail = |member: &MemberLatencies| member.tails.of(class);
            let tails: Vec<_> = members.iter().map(tail).collect();
            Some((class, tail_paces(&tails)?))
        };
        Tails {
            by_class: classes.into_iter().filter_map(of_class).collect(),
            overall: tail_paces(&overall).unwrap_or_default(),
            is_stale: false,
        }
    }

    /// Of requests of one class, where enough is known of them.
    fn of(&self, class: SizeClass) -> Option<&Vec<f64>> {
        let (_, paces) = self.by_class.iter().find(|(of, _)| *of == class)?;
        Some(paces)
    }
}

#[cfg(test)]
mod tests;
