//! `weighted_round_robin`: each upstream in turn, in proportion to its weight
//! and evenly spread.
//!
//! Nginx's smooth weighted round robin (2012): at each pick every upstream's
//! turn grows by its weight, the greatest turn wins and is lowered by the sum
//! of the weights. With weights 5, 1, 1 the sequence is a a b a c a a rather
//! than a a a a a b c. The turns are shared by all workers. O(n).

use super::{Choice, Picked, Policy};

/// Each upstream in turn, in proportion to its weight and evenly spread.
#[derive(Debug)]
pub(super) struct WeightedRoundRobin;

impl Policy for WeightedRoundRobin {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let mut total = 0i32;
        let mut winner: Option<(usize, i32)> = None;
        for (index, candidate) in choice.candidates.iter_mut().enumerate() {
            let weight = candidate.weight as i32;
            total = total.saturating_add(weight);
            let turn = candidate.state.turn.saturating_add(weight);
            candidate.state.turn = turn;
            if winner.is_none_or(|(_, greatest)| turn > greatest) {
                winner = Some((index, turn));
            }
        }
        let (index, _) = winner?;
        let candidate = choice.candidates.get_mut(index)?;
        candidate.state.turn = candidate.state.turn.saturating_sub(total);
        Some(Picked::unranked(index))
    }

    fn needs_all(&self) -> bool {
        true
    }

    fn changes_candidates(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::state::PoolState;

    fn sequence(weights: &[f64], picks: usize) -> Vec<usize> {
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        let mut all = candidates(&vec![0; weights.len()]);
        for (candidate, weight) in all.iter_mut().zip(weights) {
            candidate.weight = *weight;
        }
        let mut next = || pick(&WeightedRoundRobin, &mut all, &mut pool, &mut rng);
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
    fn a_turn_from_a_damaged_record_does_no_harm() {
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        let mut all = candidates(&[0, 0]);
        all[0].state.turn = i32::MAX;
        all[1].state.turn = i32::MIN;
        assert_eq!(pick(&WeightedRoundRobin, &mut all, &mut pool, &mut rng), 0);
    }
}
