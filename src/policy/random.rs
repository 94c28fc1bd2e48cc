//! `random`: any upstream, all equally likely. O(1).

use super::{Choice, Picked, Policy};

/// Any upstream, all equally likely.
#[derive(Debug)]
pub(super) struct Random;

impl Policy for Random {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let count = choice.candidates.len();
        let drawn = choice.candidates.get(choice.rng.below(count))?;
        Some(Picked::unranked(*drawn))
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

    #[test]
    fn heeds_nothing() {
        let shares = shares(&Random, &candidates(&[0, 100]), 10_000);
        // 5,000 expected; six standard deviations of 50.
        assert!((4_700..5_300).contains(&shares[0]), "{shares:?}");
    }
}
