//! `round_robin`: each upstream in turn.
//!
//! The turn is shared by all workers, so the shares are exact for the process
//! and not only for each worker. O(1).

use super::{Choice, Picked, Policy};

/// Each upstream in turn, weights aside.
#[derive(Debug)]
pub(super) struct RoundRobin;

impl Policy for RoundRobin {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let turn = choice.pool.cursor as usize;
        let index = turn.checked_rem(choice.candidates.len())?;
        choice.pool.cursor = choice.pool.cursor.wrapping_add(1);
        Some(Picked::unranked(index))
    }

    fn needs_all(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::state::PoolState;

    #[test]
    fn takes_each_in_turn_and_past_the_end_of_the_counter() {
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        let mut all = candidates(&[9, 0, 4]);
        let mut turns = |pool: &mut PoolState| -> Vec<usize> {
            (0..4)
                .map(|_| pick(&RoundRobin, &mut all, pool, &mut rng))
                .collect()
        };
        assert_eq!(turns(&mut pool), [0, 1, 2, 0]);
        pool.cursor = u32::MAX;
        assert_eq!(turns(&mut pool), [0, 0, 1, 2]);
    }
}
