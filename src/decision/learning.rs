//! What a finished request teaches.

use super::batch::Ended;
use super::{Finished, Reservation};
use crate::config::{LatencySignal, OutlierDetection, SlowStart};
use crate::estimate::{AtPick, Basis, Credit, Evidence, Pace, Refusals, Sample, Tuning};
use crate::outcome::{Outcome, Verdict};
use crate::outlier::{self, Event, Phase, Reason};
use crate::state::{MemberState, PoolState};
use crate::time::Timestamp;

/// How a pool learns from what has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Seconds in which a response time loses its weight by a factor of e.
    pub(super) decay: f64,
    /// When upstreams are ejected; `None` is never.
    pub(super) detection: Option<&'a OutlierDetection>,
    /// How the load of new upstreams grows; `None` is at once.
    pub(super) slow_start: Option<&'a SlowStart>,
    /// The constants.
    pub(super) tuning: &'a Tuning,
}

/// What an end means for the phase of its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// It has changed.
    pub(super) event: Option<Event>,
    /// It may have to be ejected: for this reason, if for a run of failures.
    pub(super) failed: Option<Reason>,
}

/// Takes in what a finished request shows of its upstream and its pool.
pub(super) fn learn(
    member: &mut MemberState,
    pool: &mut PoolState,
    ended: &Ended,
    rules: &Rules<'_>,
) -> Meaning {
    let Ended {
        reservation,
        finished,
        at: now,
        ..
    } = ended;
    let now = *now;
    let tuning = rules.tuning;
    pool.used_at = pool.used_at.max(now);
    let elapsed = now.seconds_since(member.outcome_at);
    let over = outlier::Ended {
        picked_at: reservation.picked_at,
        now,
        elapsed,
        detection: rules.detection,
    };
    let verdict = match finished.end.verdict() {
        Verdict::FullOrFailed if is_at_work(member, pool, now) => Verdict::Full,
        other => other,
    };
    let mut meaning = Meaning::default();
    match verdict {
        Verdict::Neutral => {
            if !learn_from_wait(member, pool, reservation, finished, rules, now) {
                return meaning;
            }
            meaning.failed = Some(Reason::NoAnswer);
        }
        // It has not answered others lately.
        Verdict::Failed | Verdict::FullOrFailed => {
            let retry_after = finished.retry_after;
            member.errors.fail(now, elapsed, retry_after, tuning);
            meaning.failed = Some(Reason::ConsecutiveFailures);
        }
        Verdict::Full => {
            member.errors.age(elapsed, tuning);
            member.errors.back_off(now, finished.retry_after);
            member.health.fullness.observe(true, elapsed, tuning);
        }
        Verdict::Succeeded => {
            member.errors.succeed(elapsed, tuning);
            member.refusals.serve(elapsed, tuning);
            member.health.fullness.observe(false, elapsed, tuning);
        }
        Verdict::Refused => {
            member.errors.age(elapsed, tuning);
            member.refusals.refuse(elapsed, tuning);
            let refuses = Phase::HalfOpen(Reason::Refusals);
            match member.health.phase(now) == refuses {
                true => meaning.failed = Some(Reason::Refusals),
                false => member.health.answer(&over),
            }
        }
    }
    if !matches!(verdict, Verdict::Succeeded | Verdict::Refused) {
        member.refusals.age(elapsed, tuning);
    }
    if !matches!(verdict, Verdict::Succeeded | Verdict::Full) {
        member.health.fullness.age(elapsed, tuning);
    }
    if meaning.failed.is_some() {
        meaning.event = member.health.fail(&over);
    }
    if verdict == Verdict::Succeeded {
        learn_speed(member, pool, ended, &over, rules);
        let before = member.health.phase(now);
        meaning.event = member.health.succeed(&over);
        if let (Phase::HalfOpen(reason), Some(Event::Returned)) = (before, meaning.event) {
            forgive(member, reason);
        }
        member.health.settle(rules.slow_start, now);
    }
    member.outcome_at = member.outcome_at.max(now);
    meaning
}

/// Forgets what the member was ejected for, now that it is back.
fn forgive(member: &mut MemberState, reason: Reason) {
    member.errors.forgive();
    member.refusals = Refusals::default();
    if reason.is_slowness() {
        // How fast it was while it was slow, or tried by one request at a time, says
        // nothing: it counts as the pool's mean again.
        (member.pace, member.pace_of_work) = (Pace::UNKNOWN, Pace::UNKNOWN);
        member.evidence = Evidence::default();
    }
}

/// Whether the member has answered others well lately.
pub(super) fn is_at_work(member: &MemberState, pool: &PoolState, now: Timestamp) -> bool {
    member.health.answers_others(now, patience(member, pool))
}

/// For so many seconds after its last success an upstream that says that there is no room
/// is full, and not broken. A full server ends others meanwhile, one in each time that its
/// pace tells: seconds per request and per request in flight.
fn patience(member: &MemberState, pool: &PoolState) -> f64 {
    let requests = 3.0 * pool.latency.get().unwrap_or(0.0);
    let ends = match member.pace.is_known() {
        true => 10.0 * member.pace.mean_log().exp(),
        false => requests,
    };
    ends.min(requests).clamp(1.0, 30.0)
}

/// Takes in how long the answer to a request took.
fn learn_speed(
    member: &mut MemberState,
    pool: &mut PoolState,
    ended: &Ended,
    over: &outlier::Ended<'_>,
    rules: &Rules<'_>,
) {
    let Ended {
        reservation,
        finished,
        at: now,
        ..
    } = ended;
    let (now, decay, tuning) = (*now, rules.decay, rules.tuning);
    let Some(latency) = finished.latency(reservation.signal, reservation.picked_at, now) else {
        return;
    };
    let latency = latency.as_secs_f64();
    let silence = now.seconds_since(member.sampled_at);
    member.response_time.observe(latency, silence, decay);
    member.peak.observe(latency, silence, decay);

    pool.latency.observe(latency);
    let pool_mean = pool.latency.get();
    let credit = Credit::of(latency, member.evidence, pool_mean, tuning);
    let memory = tuning.evidence_memory;
    member.evidence.observe(latency, pool_mean, memory);

    let AtPick { load, others_work } = reservation.at_pick;
    let work = reservation.work.requests();
    if rules.detection.is_some() && member.health.counts(over) {
        let seconds = latency / seen_work(pool, work, finished.response_bytes);
        member.health.slowness.observe(&mut pool.typical, seconds);
        let load = reservation.at_pick.load;
        pool.typical
            .observe_silence(over.elapsed.min(latency), load);
    }
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
        credit,
    };
    pool.books
        .observe(&mut member.pace, &mut member.pace_of_work, &sample, tuning);
    member.sampled_at = member.sampled_at.max(now);
}

/// The work that a request turned out to be, in mean requests: as its size told, if the
/// pool goes by that, and as its answer shows.
pub(super) fn seen_work(pool: &PoolState, work: f64, bytes: u64) -> f64 {
    match pool.books.basis() {
        Basis::Requests => pool.books.requests.observed.of(bytes),
        Basis::Work => work * pool.books.work.observed.of(bytes),
    }
}

/// A client that gives up after so many times the latency to expect had reason to. One
/// such end says little; several in a row, without an answer in between, say that the
/// upstream hangs.
const LONG_WAIT: f64 = 1.5;

/// Takes in how long a client waited that went away. Its request would have taken at
/// least that long: a censored sample. Where that is longer than was to be expected
/// it is evidence of a slow upstream, as if the answer had come at that moment;
/// where it is not, it says nothing. Who hangs is found out so, and where clients
/// have little patience with a healthy upstream nobody is blamed. Returns whether it was
/// so much longer that it counts as a failure.
fn learn_from_wait(
    member: &mut MemberState,
    pool: &PoolState,
    reservation: &Reservation,
    finished: &Finished,
    rules: &Rules<'_>,
    now: Timestamp,
) -> bool {
    let (end, tuning) = (&finished.end, rules.tuning);
    if end.outcome() != Outcome::ClientAbort || !end.request_complete || end.is_moved {
        return false;
    }
    // The first byte that came is no bound on itself.
    let is_over = reservation.signal == LatencySignal::FirstByte;
    if is_over && finished.first_byte_at.is_some() {
        return false;
    }
    let waited = now.since(reservation.picked_at).as_secs_f64();
    let AtPick { load, others_work } = reservation.at_pick;
    let work = reservation.work.requests();
    let silence = now.seconds_since(member.sampled_at);
    let credit = Credit {
        part: 1.0,
        doubt: member.evidence.doubt(1.0, pool.latency.get()),
    };
    let mut is_evidence = false;
    for (pace, sample) in [
        (&mut member.pace, waited / load),
        (&mut member.pace_of_work, waited / (others_work + work)),
    ] {
        if pace.is_known() && sample > pace.mean_log().exp() {
            pace.observe_in_part(sample, credit, silence, tuning);
            is_evidence = true;
        }
    }
    if is_evidence {
        member.sampled_at = member.sampled_at.max(now);
    }
    let is_watched = rules.detection.is_some_and(|it| it.latency_factor > 0.0);
    let work = match pool.books.basis() {
        Basis::Requests => 1.0,
        Basis::Work => work,
    };
    let seconds = pool.typical.expected(member.health.slowness);
    is_watched && waited > LONG_WAIT * seconds * work
}
