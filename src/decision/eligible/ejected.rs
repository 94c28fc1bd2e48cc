//! An upstream that is ejected gets nothing, and one that is half-open a request now and
//! then.

use super::{Phases, Request, Rule};
use crate::decision::pass_through::PassThrough;
use crate::outlier::Phase;
use crate::policy::Place;

/// Leaves the candidates that are in. This rule always leaves one: if none is in, or the
/// pool panics because too many are out, it leaves all.
///
/// A candidate that is half-open is tried by one request at a time. That request is left
/// no other choice, whatever the policy, or one that was slow, say, would never be tried.
pub(super) struct Ejected;

/// What costs more than most requests do is not what to try an upstream with, unless
/// nothing else has come for so many seconds.
const PATIENCE: f64 = 10.0;

impl Rule for Ejected {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let is_in = |place: &Place| {
            let candidate = request.members.get(*place);
            candidate.is_some_and(|it| it.standing.phase == Phase::In)
        };
        if request.phases.panics || candidates.iter().all(is_in) {
            return Ok(());
        }
        if request.may_try
            && let Some(tried) = to_try(request, candidates)
        {
            candidates.retain(|place| *place == tried);
            return Ok(());
        }
        if candidates.iter().any(is_in) {
            candidates.retain(is_in);
        }
        Ok(())
    }

    fn rests(&self, phases: &Phases) -> bool {
        phases.is_plain || phases.panics
    }

    fn needs_all(&self) -> bool {
        false
    }
}

/// The candidate that has been half-open for the longest time, if its turn has come.
fn to_try(request: &Request<'_>, candidates: &[Place]) -> Option<Place> {
    let idle = request.members.at(candidates);
    let idle = idle.filter(|it| it.outstanding.requests() == 0);
    let half_open = idle.filter(|it| matches!(it.standing.phase, Phase::HalfOpen(_)));
    let tried = half_open.min_by_key(|it| it.standing.out_until)?;
    let waited = request.now.seconds_since(tried.standing.out_until);
    (request.work <= 1.0 || waited >= PATIENCE).then_some(tried.place)
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{
        NOW, candidates, left_of, outstanding, request, standings_of,
    };
    use super::*;
    use crate::outlier::Reason;
    use std::time::Duration;

    const IN: Phase = Phase::In;
    const EJECTED: Phase = Phase::Ejected(Reason::Latency);
    const HALF_OPEN: Phase = Phase::HalfOpen(Reason::Latency);

    /// Who is left of members in these phases, with so many in flight each.
    fn left(
        phases: &[Phase],
        in_flight: &[u64],
        change: impl FnOnce(&mut Request<'_>),
    ) -> Vec<usize> {
        let members = candidates(in_flight);
        let mut standings = standings_of(&members);
        for (standing, phase) in standings.iter_mut().zip(phases) {
            (standing.phase, standing.out_until) = (*phase, NOW);
        }
        let outstanding = outstanding(&members, NOW);
        let mut request = request(&standings, &outstanding);
        change(&mut request);
        left_of(&request, |places| Ejected.apply(&request, places)).unwrap()
    }

    #[test]
    fn what_is_ejected_gets_nothing_as_long_as_another_is_in() {
        assert_eq!(left(&[IN, EJECTED, IN], &[0; 3], |_| {}), [0, 2]);
        assert_eq!(
            left(&[EJECTED, EJECTED], &[0; 2], |_| {}),
            [0, 1],
            "it leaves one"
        );
        let panics = |request: &mut Request<'_>| request.phases.panics = true;
        assert_eq!(left(&[IN, EJECTED], &[0; 2], panics), [0, 1]);
    }

    #[test]
    fn one_request_at_a_time_tries_what_is_half_open() {
        let all = [IN, HALF_OPEN, EJECTED];
        assert_eq!(left(&all, &[0; 3], |_| {}), [1]);
        assert_eq!(left(&all, &[0, 1, 0], |_| {}), [0], "it is busy");
        assert_eq!(left(&all, &[0; 3], |it| it.may_try = false), [0]);
        assert_eq!(left(&all, &[0; 3], |it| it.work = 2.0), [0]);
    }

    #[test]
    fn a_dear_request_tries_what_has_waited_long() {
        let dear_after = |seconds| {
            move |request: &mut Request<'_>| {
                request.work = 2.0;
                request.now = NOW.after(Duration::from_secs(seconds));
            }
        };
        assert_eq!(left(&[IN, HALF_OPEN], &[0; 2], dear_after(9)), [0]);
        assert_eq!(left(&[IN, HALF_OPEN], &[0; 2], dear_after(10)), [1]);
    }
}
