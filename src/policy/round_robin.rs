//! `round_robin`: each upstream in turn.
//!
//! Whoever has waited longest gets the request. With all upstreams to choose from
//! that is each in turn; where some may not take a request, because of its size,
//! each gets its turn among those that may. Each worker goes round by itself, as
//! Envoy's do, in an order of its own: a turn that all workers share would be a key
//! that every request competes for. O(n).

use super::{Choice, Picked, Place, Policy};

/// Each upstream in turn, weights aside.
#[derive(Debug)]
pub(super) struct RoundRobin;

impl Policy for RoundRobin {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let mut longest: Option<(Place, i64)> = None;
        let mut ties = 1;
        for place in choice.candidates.iter() {
            let Some(own) = choice.turns.of.get(place.0).copied() else {
                continue;
            };
            let wins = match longest {
                Some((_, turn)) if own == turn => {
                    // Who has had no turn yet: all equally likely.
                    ties += 1;
                    choice.rng.below(ties) == 0
                }
                Some((_, turn)) => own < turn,
                None => true,
            };
            if wins {
                longest = Some((*place, own));
            }
        }
        let (place, _) = longest?;
        choice.turns.taken = choice.turns.taken.saturating_add(1);
        *choice.turns.of.get_mut(place.0)? = choice.turns.taken;
        Some(Picked::unranked(place))
    }

    fn needs_all(&self) -> bool {
        true
    }

    fn heeds_penalties(&self) -> bool {
        false
    }

    fn ranks(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::state::PoolState;

    #[test]
    fn takes_each_in_turn() {
        let (mut rng, pool, mut turns) = (Rng::new(1), PoolState::default(), 0);
        let mut all = candidates(&[9, 0, 4]);
        let picks: Vec<_> = (0..9)
            .map(|_| pick_in_turn(&RoundRobin, &mut all, &pool, &mut turns, &mut rng))
            .collect();
        let (first, rest) = picks.split_at(3);
        assert!((0..3).all(|member| first.contains(&member)), "{picks:?}");
        assert!(rest.chunks(3).all(|round| round == first), "{picks:?}");
    }

    #[test]
    fn workers_begin_with_different_upstreams() {
        let pool = PoolState::default();
        let mut firsts = [0; 3];
        for seed in 0..300 {
            let mut all = candidates(&[0; 3]);
            firsts[pick(&RoundRobin, &mut all, &pool, &mut Rng::new(seed))] += 1;
        }
        // Binomial, mean 100, deviation 8.2: outside with probability 1e-6 each.
        assert!(firsts.iter().all(|n| (60..140).contains(n)), "{firsts:?}");
    }

    #[test]
    fn whoever_may_take_less_often_gets_its_turns_too() {
        let (mut rng, pool, mut turns) = (Rng::new(1), PoolState::default(), 0);
        let mut all = candidates(&[0; 4]);
        let mut large = [0_usize; 4];
        // Every second request is one that only members 2 and 3 may take.
        for request in 0..400 {
            let may = if request % 2 == 0 { 0 } else { 2 };
            let some = &mut all[may..];
            let member = pick_in_turn(&RoundRobin, some, &pool, &mut turns, &mut rng);
            large[may + member] += usize::from(may == 2);
        }
        assert_eq!(large[..2], [0, 0]);
        assert!(large[2].abs_diff(large[3]) <= 2, "{large:?}");
    }
}
