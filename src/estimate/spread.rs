//! By how much requests take longer than expected.
//!
//! What is expected is a mean; whoever has a deadline wants to know how long nearly all
//! requests take. The ratio of the two is tracked as a quantile of latency over
//! expectation, by stochastic approximation (Robbins and Monro 1951) on a logarithmic
//! scale: it rises by a lot where a request exceeds it and falls by little where one does
//! not, in such a proportion that it rests where as many exceed it as should.

/// The part of the requests that take no longer than expected times the spread.
const QUANTILE: f64 = 0.97;
/// How far one request moves it.
const STEP: f64 = 0.1;
/// Before any request: twice as long.
const START: f64 = std::f64::consts::LN_2;
/// It stays below `e` to this: tenfold.
const HIGHEST: f64 = std::f64::consts::LN_10;

/// How many times longer than expected nearly all requests take at most: 1 to 10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    log: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { log: START }
    }
}

impl Spread {
    /// The factor.
    #[must_use]
    pub fn factor(self) -> f64 {
        self.log.exp()
    }

    /// Takes in a request that took so many times as long as was expected. One that was
    /// given up after that time would have taken longer: if that is longer than nearly
    /// all take, it counts, and otherwise it says nothing.
    pub fn observe(&mut self, times: f64, is_complete: bool) {
        let exceeds = times > self.factor();
        let step = match (exceeds, is_complete) {
            (true, _) => STEP * QUANTILE,
            (false, true) => STEP * (QUANTILE - 1.0),
            (false, false) => return,
        };
        self.log = (self.log + step).clamp(0.0, HIGHEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    #[test]
    fn nearly_all_take_no_longer() {
        let mut rng = Rng::new(3);
        for scale in [0.3, 0.6, 1.0] {
            let mut spread = Spread::default();
            let (mut exceeded, mut sum) = (0, 0.0);
            for request in 0..20_000 {
                // About normal: the sum of twelve draws.
                let normal: f64 = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
                let times = (scale * normal).exp();
                if request >= 2_000 {
                    exceeded += u32::from(times > spread.factor());
                    sum += spread.factor();
                }
                spread.observe(times, true);
            }
            let share = f64::from(exceeded) / 18_000.0;
            assert!((0.02..0.04).contains(&share), "{scale}: {share}");
            // The 97 % quantile of a normal distribution.
            let expected = (1.88 * scale).exp();
            let mean = sum / 18_000.0;
            assert!((mean / expected - 1.0).abs() < 0.25, "{mean}, {expected}");
        }
    }

    #[test]
    fn who_gave_up_counts_where_it_waited_longer() {
        let mut spread = Spread::default();
        spread.observe(1.9, false);
        assert_eq!(spread, Spread::default());
        spread.observe(2.1, false);
        assert!(spread.factor() > 2.1);
        for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            for _ in 0..1000 {
                spread.observe(odd, true);
                assert!((1.0..=10.001).contains(&spread.factor()), "{odd}");
            }
        }
    }
}
