//! What a finished request teaches.

use super::{Finished, Reservation};
use crate::estimate::Tuning;
use crate::outcome::Verdict;
use crate::state::{MemberState, PoolState};
use crate::time::Timestamp;

/// Takes in what a finished request shows of its upstream and its pool.
pub(super) fn learn(
    member: &mut MemberState,
    pool: &mut PoolState,
    reservation: &Reservation,
    finished: &Finished,
    decay: f64,
    tuning: &Tuning,
    now: Timestamp,
) {
    let since_outcome = now.seconds_since(member.outcome_at);
    match finished.end.outcome().verdict() {
        Verdict::Neutral => return,
        Verdict::Failed => member
            .errors
            .fail(now, since_outcome, finished.retry_after, tuning),
        Verdict::Succeeded => member.errors.succeed(since_outcome, tuning),
    }
    member.outcome_at = member.outcome_at.max(now);
    if !finished.end.is_sample() {
        return;
    }
    let latency = now.seconds_since(reservation.picked_at);
    let silence = now.seconds_since(member.sampled_at);
    member.response_time.observe(latency, silence, decay);
    member.peak.observe(latency, silence, decay);

    let per_load = latency / reservation.load as f64;
    let work = pool.observed_work.of(finished.response_bytes);
    if member.pace.is_known() {
        let cost = per_load / member.pace.mean_log().exp();
        pool.observed_work.observe(finished.response_bytes, cost);
    }
    if let Some(residual) = member.pace.observe(per_load / work, silence, tuning) {
        pool.residuals.observe(residual);
    }
    member.sampled_at = member.sampled_at.max(now);
}
