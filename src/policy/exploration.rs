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
    let candidates = choice.members.at(choice.candidates);
    let idle = candidates.filter(|candidate| candidate.outstanding.requests() == 0);
    let silent = idle.map(|candidate| {
        let silence = now.seconds_since(candidate.standing.heard_at);
        (candidate.place, silence)
    });
    let (place, _) = silent
        .filter(|(_, silence)| *silence >= silent_seconds)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    Some(Picked {
        reason: Reason::Exploration,
        ..Picked::unranked(place)
    })
}
