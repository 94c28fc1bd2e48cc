//! What the health of a pool's members means for its picks: who is in, how much of its
//! weight each gets, and whether the pool panics.

use crate::config::{OutlierDetection, SlowStart};
use crate::estimate::Tuning;
use crate::outlier::Phase;
use crate::policy::{Known, Members, Place, Standing};
use crate::random::Rng;
use crate::state::MemberState;
use crate::time::Timestamp;

/// Seconds between two trials of half-open members by one worker: by then it knows what
/// came of the last one, if that was quick.
const TRIALS_APART: f64 = 0.1;

/// What the phases of a pool's members come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phases {
    /// All are in, warm and not full.
    pub(super) is_plain: bool,
    /// Some are cold.
    pub(super) is_cold: bool,
    /// So many are out that health decides nothing.
    pub(super) panics: bool,
}

impl Default for Phases {
    fn default() -> Self {
        Phases {
            is_plain: true,
            is_cold: false,
            panics: false,
        }
    }
}

/// What a pool makes of its members' health.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// When they are ejected; `None` is never.
    pub(super) detection: Option<&'a OutlierDetection>,
    /// How the load of new ones grows; `None` is at once.
    pub(super) slow_start: Option<&'a SlowStart>,
    /// Whether the policy goes by weights.
    pub(super) heeds_weights: bool,
    /// Whether the policy goes by penalties.
    pub(super) heeds_penalties: bool,
    /// The constants.
    pub(super) tuning: &'a Tuning,
}

impl<'a> Rules<'a> {
    /// Those of who wants to know how members stand wherever their phases are.
    pub(super) fn of_none(tuning: &'a Tuning) -> Self {
        Rules {
            detection: None,
            slow_start: None,
            heeds_weights: false,
            heeds_penalties: true,
            tuning,
        }
    }
}

/// Tells the members' standings what their health means. Where all are in, warm and not
/// full, this is one look at each.
pub(super) fn assess(standings: &mut [Standing], known: &Known<'_>, rules: &Rules<'_>) -> Phases {
    let states = || known.members.iter().map(|it| it.state());
    let needs_no_look = |state: &MemberState| {
        state.health.is_plain() && (rules.heeds_penalties || !is_backing_off(state, known))
    };
    if states().all(needs_no_look) {
        return Phases::default();
    }
    let (mut members, mut out, mut warm) = (0, 0, 0);
    for (standing, state) in standings.iter_mut().zip(states()) {
        if rules.detection.is_some() {
            standing.phase = state.health.phase(known.now);
            standing.out_until = state.health.out_until();
        }
        if let Some(slow_start) = rules.slow_start {
            standing.warmth = state.health.warmth(slow_start, known.now);
        }
        if standing.full_weight > 0.0 {
            let is_in = standing.phase == Phase::In;
            members += 1;
            out += usize::from(!is_in);
            warm += usize::from(is_in && standing.warmth >= 1.0);
        }
    }
    let mut is_cold = false;
    for (standing, state) in standings.iter_mut().zip(states()) {
        // Where nobody is warm there is nobody to spare the cold ones.
        if warm == 0 || standing.phase != Phase::In {
            standing.warmth = 1.0;
        }
        is_cold |= standing.warmth < 1.0;
        let mut share = standing.warmth;
        if !rules.heeds_penalties {
            share *= room(state, known, rules.tuning);
        }
        match rules.heeds_weights {
            true => standing.lighten(share),
            false => standing.share = share,
        }
    }
    let most = rules.detection.map(|it| it.most_out(members));
    Phases {
        is_plain: false,
        is_cold,
        panics: most.is_some_and(|most| out > most),
    }
}

/// Whether the member asked to be left alone.
fn is_backing_off(state: &MemberState, known: &Known<'_>) -> bool {
    state.errors.is_backing_off(known.now)
}

/// The part of its usual requests for which the member has room, above 0.
fn room(state: &MemberState, known: &Known<'_>, tuning: &Tuning) -> f64 {
    const LEAST: f64 = 0.01;
    if is_backing_off(state, known) {
        return LEAST;
    }
    let elapsed = known.now.seconds_since(state.outcome_at);
    (1.0 - state.health.fullness.get(elapsed, tuning)).max(LEAST)
}

/// Whether a worker may try a half-open member again that did so last at `tried_at`.
pub(super) fn may_try_again(tried_at: Timestamp, now: Timestamp) -> bool {
    now.seconds_since(tried_at) >= TRIALS_APART
}

/// Leaves each candidate that gets only a share of its requests out of the choice in the
/// other cases: for policies that do not go by weights.
#[inline(never)]
pub(super) fn thin_out(candidates: &mut Vec<Place>, members: Members<'_>, rng: &mut Rng) {
    let share = |place: Place| members.get(place).map_or(1.0, |it| it.standing.share);
    if candidates.iter().all(|place| share(*place) >= 1.0) {
        return;
    }
    let mut kept = candidates.clone();
    kept.retain(|place| {
        let share = share(*place);
        share >= 1.0 || rng.unit() < share
    });
    if !kept.is_empty() {
        *candidates = kept;
    }
}
