//! How often an upstream fails: in a row, and at what rate.
//!
//! A model server may answer a few requests a minute, so a rate is one over the last
//! outcomes, however long ago they were, and what counts is not the rate but what it is
//! *at least*: the lower end of Wilson's interval (E. B. Wilson, "Probable inference,
//! the law of succession, and statistical inference", 1927), which holds for few
//! outcomes and for rates near 0 and 1.

/// What is remembered of an upstream's outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Since the last outcome that was none.
    in_row: u8,
    /// Outcomes that count, in units of [`UNIT`].
    outcomes: u16,
    /// How many of them were failures.
    failed: u16,
}

/// Outcomes and failures among them; old ones count for less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Record {
    /// All of them.
    pub outcomes: f64,
    /// Of them failures.
    pub failed: f64,
}

/// Parts of an outcome.
const UNIT: f64 = 256.0;

/// So many outcomes are remembered.
const WINDOW: f64 = 64.0;

/// Seconds in which what is remembered counts for less by a factor of e: a server that
/// answers one request in ten minutes is judged by the last three.
const DECAY_SECONDS: f64 = 1_800.0;

/// Standard deviations of the interval's lower end: a rate is below it with a probability
/// of 2 %. All five of the first outcomes must be failures for 50 %.
const DEVIATIONS: f64 = 2.0;

impl Failures {
    /// From its parts; nothing remembered where they make no sense.
    #[must_use]
    pub const fn from_parts(in_row: u8, outcomes: u16, failed: u16) -> Self {
        if failed > outcomes || outcomes > (WINDOW * UNIT) as u16 {
            return Failures {
                in_row: 0,
                outcomes: 0,
                failed: 0,
            };
        }
        Failures {
            in_row,
            outcomes,
            failed,
        }
    }

    /// Failures in a row, outcomes and failures, to be stored.
    #[must_use]
    pub const fn parts(self) -> (u8, u16, u16) {
        (self.in_row, self.outcomes, self.failed)
    }

    /// Failures since the last outcome that was none.
    #[must_use]
    pub fn in_row(self) -> u32 {
        u32::from(self.in_row)
    }

    /// What is remembered.
    #[must_use]
    pub fn record(self) -> Record {
        Record {
            outcomes: f64::from(self.outcomes) / UNIT,
            failed: f64::from(self.failed) / UNIT,
        }
    }

    /// Takes in an outcome that is no failure, `elapsed` seconds after the last.
    pub fn succeed(&mut self, elapsed: f64) {
        self.in_row = 0;
        self.observe(0.0, elapsed);
    }

    /// Takes in a failure, `elapsed` seconds after the last outcome.
    pub fn fail(&mut self, elapsed: f64) {
        self.in_row = self.in_row.saturating_add(1);
        self.observe(1.0, elapsed);
    }

    fn observe(&mut self, failed: f64, elapsed: f64) {
        let Record {
            outcomes,
            failed: before,
        } = self.record();
        let kept = (-elapsed.max(0.0) / DECAY_SECONDS).exp() * (1.0 - 1.0 / WINDOW);
        self.outcomes = ((outcomes * kept + 1.0) * UNIT) as u16;
        let failed = ((before * kept + failed) * UNIT) as u16;
        self.failed = failed.min(self.outcomes);
    }
}

impl Record {
    /// The failure rate that these outcomes show, at least: 0 to 1.
    #[must_use]
    pub fn rate_at_least(self) -> f64 {
        let Record { outcomes, failed } = self;
        if outcomes <= 0.0 {
            return 0.0;
        }
        let rate = (failed / outcomes).clamp(0.0, 1.0);
        let square = DEVIATIONS * DEVIATIONS / outcomes;
        let doubt = DEVIATIONS * ((rate * (1.0 - rate) + square / 4.0) / outcomes).sqrt();
        ((rate + square / 2.0 - doubt) / (1.0 + square)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    /// After these outcomes, so many seconds apart.
    fn after(failures: &[bool], apart: f64) -> Failures {
        let mut known = Failures::default();
        for failed in failures {
            match failed {
                true => known.fail(apart),
                false => known.succeed(apart),
            }
        }
        known
    }

    #[test]
    fn a_rate_is_believed_as_far_as_the_outcomes_show_it() {
        let at_least = |outcomes, failed| Record { outcomes, failed }.rate_at_least();
        assert_eq!(at_least(0.0, 0.0), 0.0);
        assert!((at_least(4.0, 4.0) - 0.5).abs() < 1e-9);
        assert!((at_least(5.0, 5.0) - 5.0 / 9.0).abs() < 1e-9);
        assert_eq!(at_least(50.0, 0.0), 0.0);
        // R: binom::binom.wilson(30, 60, conf.level = 0.9545).
        assert!((at_least(60.0, 30.0) - 0.375).abs() < 1e-3);
    }

    #[test]
    fn the_true_rate_is_hardly_ever_below_what_it_is_at_least() {
        let mut rng = Rng::new(3);
        for rate in [0.05, 0.3, 0.5, 0.8] {
            let mut wrong = 0;
            for _ in 0..2_000 {
                let outcomes: Vec<bool> = (0..40).map(|_| rng.unit() < rate).collect();
                wrong += usize::from(after(&outcomes, 1.0).record().rate_at_least() > rate);
            }
            // 2.3 % by the normal law; old outcomes count for less, and counts are whole.
            assert!(wrong < 100, "{rate}: {wrong}");
        }
    }

    #[test]
    fn one_that_begins_to_fail_is_seen_through_its_good_past() {
        let mut known = after(&[false; 200], 1.0);
        let mut needed = 0;
        while known.record().rate_at_least() < 0.5 {
            known.fail(1.0);
            needed += 1;
        }
        assert!((30..70).contains(&needed), "{needed}");
        assert_eq!(known.in_row(), needed);
        known.succeed(1.0);
        assert_eq!(known.in_row(), 0);
    }

    #[test]
    fn it_works_at_a_few_requests_a_minute() {
        // One in twenty seconds, of which every other fails... and all of them.
        assert!(after(&[true; 5], 20.0).record().rate_at_least() > 0.5);
        let half: Vec<bool> = (0..30).map(|place| place % 2 == 0).collect();
        let rate = after(&half, 20.0).record().rate_at_least();
        assert!((0.25..0.5).contains(&rate), "{rate}");
    }

    #[test]
    fn what_makes_no_sense_is_nothing_and_nothing_overflows() {
        assert_eq!(Failures::from_parts(3, 5, 6), Failures::default());
        assert_eq!(Failures::from_parts(3, u16::MAX, 6), Failures::default());
        let mut known = Failures::default();
        for _ in 0..1_000 {
            known.fail(0.0);
            let (in_row, outcomes, failed) = known.parts();
            assert_eq!(Failures::from_parts(in_row, outcomes, failed), known);
        }
        assert_eq!(known.in_row(), 255);
        known.fail(f64::INFINITY);
        assert_eq!(known.record().outcomes, 1.0);
        known.fail(-1.0);
        assert!(known.record().outcomes < 2.1);
    }
}
