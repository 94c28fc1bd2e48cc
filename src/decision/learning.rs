//! What a finished request teaches.

use super::{Finished, Reservation};
use crate::estimate::{AtPick, Sample, Tuning};
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
    let Some(latency) = finished.latency(reservation.signal, reservation.picked_at, now) else {
        return;
    };
    let latency = latency.as_secs_f64();
    let silence = now.seconds_since(member.sampled_at);
    member.response_time.observe(latency, silence, decay);
    member.peak.observe(latency, silence, decay);

    let AtPick { load, others_work } = reservation.at_pick;
    let work = reservation.work.requests();
    let per_request = latency / load;
    if let Some(size) = reservation.size
        && member.pace.is_known()
    {
        let cost = per_request / member.pace.mean_log().exp();
        pool.work.observe(size, cost, reservation.at_pick);
    }
    let sample = Sample {
        per_request,
        per_work: latency / (others_work + work),
        bytes: finished.response_bytes,
        silence,
    };
    pool.books
        .observe(&mut member.pace, &mut member.pace_of_work, &sample, tuning);
    member.sampled_at = member.sampled_at.max(now);
}
