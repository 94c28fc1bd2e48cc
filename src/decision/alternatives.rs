//! Whom to try after the winner.

use crate::policy::{Picked, Place};
use crate::random::Rng;

/// How many endpoints are named besides the picked one: one for each of the
/// shipped retries, and one for an endpoint that the proxy knows no more.
const ALTERNATIVES: usize = 3;

/// Whom to try after the winner: the second best, and others drawn at random.
pub(super) fn alternatives(candidates: &[Place], picked: &Picked, rng: &mut Rng) -> Vec<Place> {
    let len = candidates.len();
    let start = if len > 0 { rng.below(len) } else { 0 };
    let second = picked.runner_up.map(|scored| scored.place);
    let others = (0..len).filter_map(|step| candidates.get((start + step) % len).copied());
    let mut order = Vec::with_capacity(ALTERNATIVES);
    for place in second.into_iter().chain(others) {
        if place != picked.best.place && !order.contains(&place) {
            order.push(place);
        }
        if order.len() == ALTERNATIVES {
            break;
        }
    }
    order
}
