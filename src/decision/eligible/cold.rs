//! An upstream that is cold is not forgotten.

use super::{Phases, Request, Rule};
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Now and then leaves nothing but a cold candidate that is idle.
///
/// A policy that sends each request to the best upstream would send none to one that
/// counts as ten times as busy as it is, as long as the others are not that busy; and
/// without requests it would never be warm. So it gets at least the share of the requests
/// that its warmth gives it.
pub(super) struct Cold;

impl Rule for Cold {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let all = candidates.len() as f64;
        let mut below = 0.0;
        let drawn = request.members.at(candidates).find(|candidate| {
            let warmth = candidate.standing.warmth;
            if warmth >= 1.0 {
                return false;
            }
            below += warmth / all;
            request.draw < below
        });
        if let Some(drawn) = drawn.filter(|it| it.outstanding.requests() == 0) {
            candidates.retain(|place| *place == drawn.place);
        }
        Ok(())
    }

    fn rests(&self, phases: &Phases) -> bool {
        !phases.is_cold
    }

    fn needs_all(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{
        NOW, candidates, left_of, outstanding, request, standings_of,
    };
    use super::*;

    fn left(in_flight: &[u64], draw: f64) -> Vec<usize> {
        let members = candidates(in_flight);
        let mut standings = standings_of(&members);
        (standings[1].warmth, standings[2].warmth) = (0.2, 0.4);
        let outstanding = outstanding(&members, NOW);
        let request = Request {
            draw,
            ..request(&standings, &outstanding)
        };
        left_of(&request, |places| Cold.apply(&request, places)).unwrap()
    }

    #[test]
    fn each_cold_one_gets_its_share_while_it_is_idle() {
        // A quarter of 0.2, then of 0.4.
        assert_eq!(left(&[0, 0, 0, 0], 0.0499), [1]);
        assert_eq!(left(&[0, 0, 0, 0], 0.0501), [2]);
        assert_eq!(left(&[0, 0, 0, 0], 0.1499), [2]);
        assert_eq!(left(&[0, 0, 0, 0], 0.1501), [0, 1, 2, 3]);
        assert_eq!(left(&[0, 1, 0, 0], 0.0499), [0, 1, 2, 3], "it is busy");
    }
}
