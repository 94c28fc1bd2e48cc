//! Picks that are made to learn.
//!
//! An upstream that has become slow gets few requests, so without these nobody
//! would see that it has recovered.

use super::{Choice, Picked, Reason};

/// With this probability: the upstream that has been silent longest, if it has
/// nothing in flight and has been silent for `silent_seconds`.
pub(super) fn explore(
    choice: &mut Choice<'_>,
    probability: f64,
    silent_seconds: f64,
) -> Option<Picked> {
    // What costs more than most is not what to try a slow upstream with.
    if choice.rng.unit() >= probability || choice.work > 1.0 {
        return None;
    }
    let now = choice.now;
    let idle = choice.candidates.iter().enumerate();
    let idle = idle.filter(|(_, candidate)| candidate.in_flight == 0);
    let silent = idle.map(|(index, candidate)| {
        // An upstream that answers with errors was heard of, too.
        let heard = candidate.state.sampled_at.max(candidate.state.outcome_at);
        (index, now.seconds_since(heard))
    });
    let (index, _) = silent
        .filter(|(_, silence)| *silence >= silent_seconds)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    Some(Picked {
        reason: Reason::Exploration,
        ..Picked::unranked(index)
    })
}
