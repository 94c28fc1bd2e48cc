//! Whose fault refusals are: a member is compared with the others of its pool.

use crate::estimate::{Answers, Tuning};
use crate::policy::{Known, Standing};
use crate::state::DecodedMember;

/// Penalizes each of a pool's members for refusals that are its own fault. Where hardly
/// any request is refused this is one look at each member, and one that has no other
/// beside it is not blamed for anything.
pub(super) fn blame(standings: &mut [Standing], known: &Known<'_>, tuning: &Tuning) {
    let states = || known.members.iter().map(DecodedMember::state);
    if known.members.len() < 2 || !states().any(|it| it.refusals.are_many(tuning)) {
        return;
    }
    let answers = states().map(|it| it.refusals.answers());
    let pool = answers.fold(Answers::default(), |sum, it| sum + it);
    for (standing, state) in standings.iter_mut().zip(states()) {
        let elapsed = known.now.seconds_since(state.outcome_at);
        standing.penalize(state.refusals.penalty(pool, elapsed, tuning));
    }
}
