//! What a finished request teaches of how many its upstream should have at once.

use super::batch::Ended;
use super::learning::{is_at_work, seen_work};
use crate::config::LatencySignal;
use crate::outcome::{Outcome, Verdict};
use crate::pool::{Member, MemberIndex, Topology};
use crate::state::Estimates;

/// Takes in what a request, which was picked for `member`, shows of the limit of its
/// upstream, inside [`Estimates::merge`].
pub(super) fn learn_limit(
    estimates: &mut Estimates,
    topology: &Topology,
    (member, configured): (MemberIndex, &Member),
    ended: &Ended,
) {
    let Some(learner) = topology.learner(configured.upstream) else {
        return;
    };
    let Ended {
        reservation,
        finished,
        at: now,
        in_flight,
    } = ended;
    let pool = estimates.pool(configured.pool);
    let (Some(pool), Some(state)) = (pool, estimates.member(member)) else {
        return;
    };
    let load = reservation.at_pick.load;
    let end = &finished.end;
    let is_overload = finished.has_queue
        || match end.verdict() {
            Verdict::Full => true,
            // After a retry nobody knows what the first answer was.
            Verdict::FullOrFailed => {
                end.outcome() == Outcome::UpstreamError || is_at_work(state, pool, *now)
            }
            _ => end.outcome() == Outcome::Timeout,
        };
    if is_overload {
        // A report is about the moment of the answer; all else about that of the pick.
        let load = match finished.has_queue {
            true => *in_flight as f64,
            false => load,
        };
        estimates.change_member(learner, |state, _| {
            state.limit.overload(load, reservation.picked_at, *now);
        });
        return;
    }
    // A request takes a place until its answer is complete, whatever the pool measures.
    let latency = finished.latency(LatencySignal::Complete, reservation.picked_at, *now);
    let Some(latency) = latency else {
        return;
    };
    let work = seen_work(pool, reservation.work.requests(), finished.response_bytes);
    // What a request of one pool takes says nothing of those of another, but that both
    // take longer at a greater load.
    let own_mean = pool.latency.get();
    let learners = topology.member(learner).map(|it| it.pool);
    let mean = learners.and_then(|pool| estimates.pool(pool)?.latency.get());
    let scale = match (mean, own_mean) {
        (Some(mean), Some(own_mean)) => mean / own_mean,
        _ => 1.0,
    };
    let seconds = latency.as_secs_f64() / work * scale;
    estimates.change_member(learner, |state, _| {
        state.limit.succeed(load, *in_flight as f64, seconds, *now);
    });
}
