//! Which upstreams are ejected: each is compared with the others of its pool, and only so
//! many may be out at the same time.

use super::balanced_pool::BalancedPool;
use super::learning::is_at_work;
use crate::config::OutlierDetection;
use crate::estimate::{Answers, Tuning};
use crate::outlier::{Event, Phase, Reason, Record};
use crate::pool::{MemberIndex, PoolIndex, Topology};
use crate::state::{Estimates, MemberState, PoolState};
use crate::time::Timestamp;

/// How probable it may be that an upstream that is no worse than the others fails so
/// often in a row.
const CHANCE: f64 = 0.01;

/// An upstream that an end, or the lack of one, has brought under suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) member: MemberIndex,
    /// What it has done. A run of failures is what this says it is.
    pub(super) of: Option<Reason>,
    /// Whether no more evidence is needed.
    pub(super) is_certain: bool,
}

impl Suspect {
    /// Of an end that may have been one of a run of failures of this kind.
    pub(super) fn of_end(member: MemberIndex, failed: Option<Reason>) -> Self {
        Suspect {
            member,
            of: failed,
            is_certain: false,
        }
    }
}

/// What is known of the upstreams of a pool together.
#[derive(Clone, Copy, Debug, Default)]
struct Peers {
    /// Those that take requests by configuration.
    members: usize,
    /// Those of them that are ejected, or half-open.
    out: usize,
    /// Those of them that are in.
    in_pool: usize,
    /// The sum of their recent rates of failures, or of answers that there is no room.
    trouble: f64,
    /// What is remembered of their outcomes, together.
    record: Record,
    refusals: Answers,
    /// The sum of their recent excesses, weighed, and of the weights.
    excess: (f64, f64),
}

impl Peers {
    fn of(
        estimates: &Estimates,
        topology: &Topology,
        pool: PoolIndex,
        now: Timestamp,
        tuning: &Tuning,
    ) -> Self {
        let mut peers = Peers::default();
        let members = topology.pool(pool).into_iter();
        for index in members.flat_map(|pool| pool.member_indexes()) {
            let weight = topology.member(index).map_or(0.0, |member| member.weight);
            let Some(state) = estimates.member(index).filter(|_| weight > 0.0) else {
                continue;
            };
            peers.members += 1;
            peers.out += usize::from(state.health.phase(now) != Phase::In);
            if state.health.phase(now) == Phase::In {
                peers.in_pool += 1;
                peers.trouble += trouble(state, now, tuning);
                let record = state.health.failures.record();
                peers.record.outcomes += record.outcomes;
                peers.record.failed += record.failed;
            }
            peers.refusals = peers.refusals + state.refusals.answers();
            let (excess, weight) = state.health.slowness.weighed();
            peers.excess.0 += excess * weight;
            peers.excess.1 += weight;
        }
        peers
    }

    /// The failure rate of all but one, whose record is `own`, by the rule of succession:
    /// recent rates start at 0, and a few outcomes of others do not show that a failure is
    /// this one's own.
    fn rate_without(&self, own: Record) -> f64 {
        let failed = (self.record.failed - own.failed).max(0.0);
        let outcomes = (self.record.outcomes - own.outcomes).max(failed);
        (failed + 1.0) / (outcomes + 2.0)
    }
}

/// The part of the last requests that failed, for which there was no room, or on which
/// clients gave up.
fn trouble(state: &MemberState, now: Timestamp, tuning: &Tuning) -> f64 {
    let elapsed = now.seconds_since(state.outcome_at);
    let full = state.health.fullness.get(elapsed, tuning);
    let run = 1.0 - (1.0 - tuning.error_step).powi(state.health.failures.in_row() as i32);
    state.errors.get(now, elapsed, tuning).max(full).max(run)
}

/// Ejects those of the suspects that are to blame, as long as not too many of their pool
/// are out. Returns who and why.
#[inline(never)]
pub(super) fn judge(
    estimates: &mut Estimates,
    topology: &Topology,
    pools: &[BalancedPool],
    suspects: &[Suspect],
    now: Timestamp,
    tuning: &Tuning,
) -> Vec<(MemberIndex, Event)> {
    let mut ejected = Vec::new();
    let mut known: Option<(PoolIndex, Peers)> = None;
    for suspect in suspects {
        let Some(pool) = topology.member(suspect.member).map(|member| member.pool) else {
            continue;
        };
        let detection = pools.get(pool.0).and_then(|pool| pool.detection.as_ref());
        let is_in = |state: &&MemberState| state.health.phase(now) == Phase::In;
        let state = estimates.member(suspect.member).filter(is_in);
        let (Some(detection), Some(state), Some(pool_state)) =
            (detection, state, estimates.pool(pool))
        else {
            continue;
        };
        let peers = match known {
            Some((of, peers)) if of == pool => peers,
            _ => Peers::of(estimates, topology, pool, now, tuning),
        };
        known = Some((pool, peers));
        if peers.out >= detection.most_out(peers.members) {
            continue;
        }
        let reason = match suspect.is_certain {
            true => suspect.of,
            false => blame(
                state, suspect.of, &peers, detection, pool_state, now, tuning,
            ),
        };
        let Some(reason) = reason else {
            continue;
        };
        known = None;
        estimates.change_member(suspect.member, |member, _| {
            let event = member.health.eject(reason, now, detection);
            ejected.push((suspect.member, event));
        });
    }
    ejected
}

/// Whether it is worth while to compare the upstream with the others: hardly ever.
pub(super) fn is_suspicious(state: &MemberState, detection: &OutlierDetection) -> bool {
    /// The logarithm of the least factor that can be configured.
    const LEAST_EXCESS: f64 = 0.4;
    let failures = state.health.failures;
    let (Record { outcomes, failed }, run) = (failures.record(), failures.in_row());
    let most_failures = f64::from(detection.failure_rate_percent) / 100.0 * outcomes;
    (run > 0 && run >= detection.consecutive_failures)
        || failed > most_failures
        || state.refusals.are_many(&Tuning::DEFAULT)
        || state.health.slowness.recent() > LEAST_EXCESS
}

/// What the upstream is to be ejected for, if anything.
fn blame(
    state: &MemberState,
    run_of: Option<Reason>,
    peers: &Peers,
    detection: &OutlierDetection,
    pool: &PoolState,
    now: Timestamp,
    tuning: &Tuning,
) -> Option<Reason> {
    let (failures, slowness) = (state.health.failures, state.health.slowness);
    let others = match peers.in_pool {
        0 | 1 => 0.0,
        in_pool => {
            let troubles = peers.trouble - trouble(state, now, tuning);
            peers
                .rate_without(failures.record())
                .max(troubles / (in_pool - 1) as f64)
        }
    };
    // What fails everywhere, or is full everywhere, is not this one's fault.
    let run = failures.in_row();
    let is_run = run >= detection.consecutive_failures && detection.consecutive_failures > 0;
    if is_run && others.powi(run as i32) <= CHANCE {
        return run_of.or(Some(Reason::ConsecutiveFailures));
    }
    let limit = f64::from(detection.failure_rate_percent) / 100.0;
    let is_limited = detection.failure_rate_percent > 0;
    if is_limited && (failures.record().rate_at_least() - others) / (1.0 - others) > limit {
        return Some(Reason::FailureRate);
    }
    // One that still serves others has only got the wrong requests of some client.
    let share = state.refusals.own_share(peers.refusals, tuning);
    if is_limited && share > limit && !is_at_work(state, pool, now) {
        return Some(Reason::Refusals);
    }
    let own = slowness.weighed();
    let weight = peers.excess.1 - own.1;
    let others = match weight > 0.0 {
        true => (peers.excess.0 - own.0 * own.1) / weight,
        false => 0.0,
    };
    let factor = detection.latency_factor;
    let excess = slowness.excess_at_least(&pool.typical, (others, weight));
    (factor > 0.0 && excess > factor.ln()).then_some(Reason::Latency)
}

#[cfg(test)]
mod tests;
