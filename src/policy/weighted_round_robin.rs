//! `weighted_round_robin`: each upstream in turn, in proportion to its weight
//! and evenly spread.
//!
//! Nginx's smooth weighted round robin (2012): at each pick every upstream's
//! turn grows by its weight, the greatest turn wins and is lowered by the sum
//! of the weights. With weights 5, 1, 1 the sequence is a a b a c a a rather
//! than a a a a a b c. Each worker takes turns by itself. O(n).

use super::{Choice, Picked, Place, Policy};

/// Turns are counted in parts of a weight of 1: an upstream that is cold has fewer.
const PARTS: f64 = 1024.0;

/// Each upstream in turn, in proportion to its weight and evenly spread.
#[derive(Debug)]
pub(super) struct WeightedRoundRobin;

impl Policy for WeightedRoundRobin {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let mut total = 0i64;
        let mut winner: Option<(Place, i64)> = None;
        for candidate in choice.members.at(choice.candidates) {
            let Some(turn) = choice.turns.of.get_mut(candidate.place.0) else {
                continue;
            };
            let weight = (candidate.standing.weight * PARTS) as i64;
            total = total.saturating_add(weight);
            *turn = turn.saturating_add(weight);
            if winner.is_none_or(|(_, greatest)| *turn > greatest) {
                winner = Some((candidate.place, *turn));
            }
        }
        let (place, _) = winner?;
        let turn = choice.turns.of.get_mut(place.0)?;
        *turn = turn.saturating_sub(total);
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

    fn sequence(weights: &[f64], picks: usize) -> Vec<usize> {
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        let mut all = candidates(&vec![0; weights.len()]);
        for (candidate, weight) in all.iter_mut().zip(weights) {
            candidate.weight = *weight;
        }
        let mut next = || pick(&WeightedRoundRobin, &mut all, &pool, &mut rng);
        (0..picks).map(|_| next()).collect()
    }

    #[test]
    fn follows_the_sequence_that_nginx_published() {
        // "{ 5, 1, 1 }: a a b a c a a", from the commit that introduced it.
        assert_eq!(sequence(&[5.0, 1.0, 1.0], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn shares_are_exact_over_each_round() {
        let picks = sequence(&[3.0, 2.0, 7.0], 120);
        for round in picks.chunks(12) {
            let share = |member| round.iter().filter(|m| **m == member).count();
            assert_eq!([share(0), share(1), share(2)], [3, 2, 7]);
        }
    }

    #[test]
    fn turns_do_not_overflow() {
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        let mut all = candidates(&[0, 0]);
        all[0].turn = i64::MAX;
        all[1].turn = i64::MIN;
        assert_eq!(pick(&WeightedRoundRobin, &mut all, &pool, &mut rng), 0);
    }
}
