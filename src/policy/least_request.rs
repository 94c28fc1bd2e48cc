//! `least_request`: the fewest requests in flight, relative to the weight.
//!
//! The score is `load ^ bias / weight`, where load counts the request at hand.
//! All upstreams are compared, or `choice_count` of them drawn at random (two
//! are enough to avoid the worst: Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001). `active_request_bias` is Envoy's: with
//! equal weights it changes nothing, with unequal ones it says how far load
//! counts against weight. O(n), or O(`choice_count`).
//!
//! Recent failures count as load: an upstream that fails at once has nothing
//! in flight and would draw every request.

use super::{Choice, Picked, Policy, Scored, lowest};

/// The fewest requests in flight, relative to the weight.
#[derive(Debug)]
pub(super) struct LeastRequest {
    /// How many upstreams are compared; all where `None`.
    pub(super) choice_count: Option<usize>,
    /// The exponent of the load.
    pub(super) active_request_bias: f64,
}

impl Policy for LeastRequest {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let compared = match self.choice_count {
            Some(count) => choice.rng.draw_to_front(choice.candidates, count),
            None => choice.candidates.len(),
        };
        let bias = self.bias(choice);
        let compared = choice.members.at(choice.candidates).take(compared);
        let scores = compared.map(|candidate| {
            let load = if bias == 1.0 {
                candidate.load()
            } else {
                // `powf` is exact to the last bit, for 5 KB of tables.
                (candidate.load().ln() * bias).exp()
            };
            Scored {
                place: candidate.place,
                score: load * candidate.standing.penalty / candidate.standing.weight,
            }
        });
        lowest(scores, choice.rng)
    }
}

impl LeastRequest {
    /// The exponent of the load: with equal weights there is nothing for load
    /// to count against, and it alone decides.
    fn bias(&self, choice: &Choice<'_>) -> f64 {
        if self.active_request_bias == 1.0 {
            return 1.0;
        }
        let candidates = choice.members.at(choice.candidates);
        let mut weights = candidates.map(|candidate| candidate.standing.weight);
        let first = weights.next();
        if weights.all(|weight| Some(weight) == first) {
            1.0
        } else {
            self.active_request_bias
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::estimate::Tuning;

    const FULL_SCAN: LeastRequest = LeastRequest {
        choice_count: None,
        active_request_bias: 1.0,
    };

    #[test]
    fn the_least_loaded_gets_it() {
        assert_eq!(
            shares(&FULL_SCAN, &candidates(&[3, 1, 2]), 100),
            [0, 100, 0]
        );
    }

    #[test]
    fn weight_counts_against_load() {
        let mut all = candidates(&[5, 2]);
        all[0].weight = 4.0;
        assert_eq!(
            shares(&FULL_SCAN, &all, 10),
            [10, 0],
            "6 / 4 is less than 3"
        );
        let weights_alone = LeastRequest {
            active_request_bias: 0.0,
            ..FULL_SCAN
        };
        all[0].in_flight = 1_000;
        assert_eq!(shares(&weights_alone, &all, 10), [10, 0]);
        all[0].weight = 1.0;
        assert_eq!(shares(&weights_alone, &all, 10), [0, 10], "equal weights");
    }

    #[test]
    fn two_choices_never_take_the_worst_and_often_miss_the_best() {
        let two = LeastRequest {
            choice_count: Some(2),
            active_request_bias: 1.0,
        };
        let shares = shares(&two, &candidates(&[0, 1, 2, 3]), 6_000);
        // The best is among two of four in half of the draws, the second wins
        // in a third, the third in a sixth, the last never.
        assert!((2_760..3_240).contains(&shares[0]), "{shares:?}");
        assert!((1_780..2_220).contains(&shares[1]), "{shares:?}");
        assert_eq!(shares[3], 0);
    }

    #[test]
    fn an_upstream_that_fails_at_once_does_not_draw_the_requests() {
        let mut all = candidates(&[4, 0]);
        for _ in 0..10 {
            all[1].state.errors.fail(NOW, 0.0, None, &Tuning::DEFAULT);
        }
        all[1].state.outcome_at = NOW;
        assert_eq!(shares(&FULL_SCAN, &all, 10), [10, 0]);
    }
}
