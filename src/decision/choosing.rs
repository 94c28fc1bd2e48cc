//! The choice inside a transaction, and whom to try after the winner.

use super::Demand;
use crate::estimate::Basis;
use crate::policy::{Candidate, Choice, Picked, Policy};
use crate::pool::MemberIndex;
use crate::random::Rng;
use crate::state::{View, Work};
use crate::time::Timestamp;

/// How many endpoints are named besides the picked one: one for each of the
/// shipped retries, and one for an endpoint that the proxy knows no more.
const ALTERNATIVES: usize = 3;

/// A pick as the transaction made it.
pub(super) struct Decided {
    pub(super) picked: Picked,
    pub(super) work: Work,
    pub(super) basis: Option<Basis>,
}

/// Asks the policy, counts the request and keeps what the policy changed.
pub(super) fn decide(
    policy: &dyn Policy,
    candidates: &mut [Candidate],
    view: &mut View<'_>,
    demand: &Demand,
    now: Timestamp,
    rng: &mut Rng,
) -> Option<Decided> {
    let mut pool_state = view.pool(demand.pool);
    let work = Work::of_requests(pool_state.work.of(demand.size));
    let basis = policy.basis(&pool_state);
    let picked = policy.pick(&mut Choice {
        candidates,
        pool: &mut pool_state,
        work: work.requests(),
        now,
        rng,
    })?;
    let winner = candidates.get(picked.best.index)?;
    view.reserve(winner.upstream, work);
    pool_state.used_at = now;
    view.set_pool(demand.pool, &pool_state);
    if policy.changes_candidates() {
        for candidate in candidates.iter() {
            view.set_member(candidate.member, &candidate.state);
        }
    }
    Some(Decided {
        picked,
        work,
        basis,
    })
}

/// Whom to try after the winner: the second best, and others drawn at random.
pub(super) fn alternatives(
    candidates: &[Candidate],
    picked: &Picked,
    rng: &mut Rng,
) -> Vec<MemberIndex> {
    let len = candidates.len();
    let start = if len > 0 { rng.below(len) } else { 0 };
    let second = picked.runner_up.map(|scored| scored.index);
    let others = (0..len).map(|step| (start + step) % len);
    let mut order = Vec::with_capacity(ALTERNATIVES);
    for index in second.into_iter().chain(others) {
        let Some(candidate) = candidates.get(index) else {
            continue;
        };
        if index != picked.best.index && !order.contains(&candidate.member) {
            order.push(candidate.member);
        }
        if order.len() == ALTERNATIVES {
            break;
        }
    }
    order
}

/// Brings `count` elements, drawn at random, to the front.
pub(super) fn shuffle_to_front(order: &mut [MemberIndex], count: usize, rng: &mut Rng) {
    let len = order.len();
    for place in 0..count.min(len) {
        order.swap(place, place + rng.below(len - place));
    }
}
