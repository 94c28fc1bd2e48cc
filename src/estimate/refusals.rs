//! How often an upstream refuses requests as wrong, and whether that is its own
//! fault.
//!
//! A 4xx answer says that the client is wrong, and usually it is. But a server
//! with the wrong model, or a wrong key, answers 404 or 401 to requests that any
//! other would serve; it answers at once, so it looks idle and attracts traffic. A
//! comparison distinguishes the two cases: every upstream refuses a client's wrong
//! requests, and the balancer spreads them.
//!
//! So there are two questions about each upstream. *Does it refuse more than the
//! others of its pool?* This is a test of two proportions over the remembered
//! answers of both, and the result must be beyond doubt. *How much of what the
//! others would serve does it refuse now?* With `r` the recent rate of refusals here and `q` the rate
//! at the others, that is `(r - q) / (1 - q)` (Abbott, "A method of computing the
//! effectiveness of an insecticide", 1925), and it costs as many tries as a
//! failure does.

use core::ops::Add;

use super::ErrorRate;
use super::Tuning;

/// What is remembered of one upstream's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Refusals {
    answers: Answers,
    /// The recency-weighted share of refusals, 0 to [`ErrorRate::HIGHEST`].
    rate: f32,
}

/// Answers and how many of them were refusals; old ones count for less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Answers {
    all: f32,
    refused: f32,
}

/// Upstreams of which less was heard are trusted: they count as if they had
/// answered so often, and served what they have not refused. So a server that
/// refuses everything at once is found out before the others have answered
/// anything.
const TRUST: f32 = 5.0;

impl Refusals {
    /// From its parts; nothing remembered where they make no sense.
    #[must_use]
    pub fn from_parts([all, refused, rate]: [f32; 3]) -> Self {
        let most = Tuning::DEFAULT.refusal_window as f32;
        let is_sound = (0.0..=most).contains(&all)
            && (0.0..=all).contains(&refused)
            && (0.0..=1.0).contains(&rate);
        if !is_sound {
            return Refusals::default();
        }
        Refusals {
            answers: Answers { all, refused },
            rate: rate.min(ErrorRate::HIGHEST as f32),
        }
    }

    /// Answers, refusals among them and the recent rate, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; 3] {
        [self.answers.all, self.answers.refused, self.rate]
    }

    /// What is remembered of the answers, to be compared with.
    #[must_use]
    pub const fn answers(self) -> Answers {
        Answers {
            all: self.answers.all.max(TRUST),
            refused: self.answers.refused,
        }
    }

    /// Takes in an answer that was no refusal, `elapsed` seconds after the last
    /// outcome.
    pub fn serve(&mut self, elapsed: f64, tuning: &Tuning) {
        self.observe(0.0, elapsed, tuning);
    }

    /// Takes in a refusal, `elapsed` seconds after the last outcome.
    pub fn refuse(&mut self, elapsed: f64, tuning: &Tuning) {
        self.observe(1.0, elapsed, tuning);
    }

    /// Takes in that something else happened, `elapsed` seconds after the last
    /// outcome.
    #[inline(never)]
    pub fn age(&mut self, elapsed: f64, tuning: &Tuning) {
        if self.answers.refused > 0.0 {
            self.rate = self.faded(elapsed, tuning) as f32;
            self.answers.fade(elapsed, tuning);
        }
    }

    // Not inlined, nor those below: they would appear in the file several times.
    #[inline(never)]
    fn observe(&mut self, refused: f64, elapsed: f64, tuning: &Tuning) {
        let faded = self.faded(elapsed, tuning);
        let rate = faded + tuning.error_step * (refused - faded);
        self.rate = rate.clamp(0.0, ErrorRate::HIGHEST) as f32;
        self.answers.fade(elapsed, tuning);
        let kept = 1.0 - 1.0 / tuning.refusal_window;
        let add = |count: f32, more: f64| (f64::from(count) * kept + more) as f32;
        self.answers.all = add(self.answers.all, 1.0);
        self.answers.refused = add(self.answers.refused, refused).min(self.answers.all);
    }

    /// The recent rate after `elapsed` seconds in which nothing was heard. Its
    /// odds fade as those of failures do, and the more slowly the more refusals are
    /// remembered: a few may be one client's, many are not.
    #[inline(never)]
    fn faded(self, elapsed: f64, tuning: &Tuning) -> f64 {
        if self.rate <= 0.0 {
            return 0.0;
        }
        let rate = f64::from(self.rate);
        let remembered = f64::from(self.answers.refused) / tuning.refusals_per_decay;
        let seconds = tuning.error_decay_seconds * (1.0 + remembered);
        let odds = rate / (1.0 - rate) * (-elapsed.max(0.0) / seconds).exp();
        odds / (1.0 + odds)
    }

    /// Whether there are enough refusals to ask whose fault they are.
    #[must_use]
    pub fn are_many(self, tuning: &Tuning) -> bool {
        f64::from(self.answers.refused) >= tuning.refusal_least
    }

    /// By how much the refusals that are this upstream's own fault lengthen the
    /// expected delay: 1 to 100. `pool` is the sum of [`Refusals::answers`] of all
    /// upstreams of the pool, this one's included; the last outcome was `elapsed`
    /// seconds ago.
    #[must_use]
    pub fn penalty(self, pool: Answers, elapsed: f64, tuning: &Tuning) -> f64 {
        let Some((_, there)) = self.compare(pool, tuning) else {
            return 1.0;
        };
        let own = (self.faded(elapsed, tuning) - there) / (1.0 - there);
        1.0 / (1.0 - own.clamp(0.0, ErrorRate::HIGHEST))
    }

    /// The share of all remembered requests that it refused though the others would have
    /// served them: 0 to 1. Unlike the penalty it says nothing about the last few, which
    /// may be one client's.
    #[must_use]
    pub fn own_share(self, pool: Answers, tuning: &Tuning) -> f64 {
        let compared = self.compare(pool, tuning);
        compared.map_or(0.0, |(here, there)| (here - there) / (1.0 - there))
    }

    /// The rates here and at the others, if it refuses more beyond doubt.
    fn compare(self, pool: Answers, tuning: &Tuning) -> Option<(f64, f64)> {
        if !self.are_many(tuning) {
            return None;
        }
        let (all, refused) = (f64::from(self.answers.all), f64::from(self.answers.refused));
        let others = f64::from(pool.all - self.answers.all);
        if others < 1.0 {
            return None;
        }
        let refused_by_others = f64::from(pool.refused - self.answers.refused);
        let refused_by_others = refused_by_others.max(0.0).min(others);
        let (here, there) = (refused / all, refused_by_others / others);
        // Half a refusal more, so that a rate of 0 or 1 leaves room for chance.
        let common = (refused + refused_by_others + 0.5) / (all + others + 1.0);
        let variance = common * (1.0 - common) * (1.0 / all + 1.0 / others);
        let excess = here - there;
        let doubt = tuning.refusal_deviations * tuning.refusal_deviations * variance;
        (excess > 0.0 && excess * excess > doubt).then_some((here, there))
    }
}

impl Answers {
    fn fade(&mut self, elapsed: f64, tuning: &Tuning) {
        let kept = (-elapsed.max(0.0) / tuning.refusal_decay_seconds).exp() as f32;
        self.all *= kept;
        self.refused *= kept;
    }
}

impl Add for Answers {
    type Output = Answers;

    fn add(self, other: Answers) -> Answers {
        Answers {
            all: self.all + other.all,
            refused: self.refused + other.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    const TUNING: Tuning = Tuning::DEFAULT;

    /// After so many answers a tenth of a second apart, refused with this
    /// probability.
    fn after(answers: usize, refused: f64, rng: &mut Rng) -> Refusals {
        let mut refusals = Refusals::default();
        for _ in 0..answers {
            match rng.unit() < refused {
                true => refusals.refuse(0.1, &TUNING),
                false => refusals.serve(0.1, &TUNING),
            }
        }
        refusals
    }

    fn penalties(pool: &[Refusals], elapsed: f64) -> Vec<f64> {
        let sum = pool
            .iter()
            .fold(Answers::default(), |sum, it| sum + it.answers());
        let penalty = |it: &Refusals| it.penalty(sum, elapsed, &TUNING);
        pool.iter().map(penalty).collect()
    }

    #[test]
    fn one_that_refuses_alone_is_found_out_after_a_few() {
        let mut rng = Rng::new(1);
        let well = after(20, 0.0, &mut rng);
        let mut seen = Vec::new();
        for refusals in [2, 4, 6, 20] {
            let bad = after(refusals, 1.0, &mut rng);
            let penalties = penalties(&[bad, well, well, well], 0.0);
            assert_eq!(penalties[1..], [1.0; 3]);
            seen.push(penalties[0]);
        }
        assert_eq!(seen[..2], [1.0, 1.0], "chance");
        assert!(seen[2] > 8.0 && seen[3] > 90.0, "{seen:?}");
    }

    #[test]
    fn two_of_eight_are_found_out_though_they_have_answered_most() {
        let mut rng = Rng::new(2);
        let bad = after(500, 1.0, &mut rng);
        let well = after(4, 0.0, &mut rng);
        let pool = [bad, bad, well, well, well, well, well, well];
        let penalties = penalties(&pool, 0.0);
        assert!(penalties[0] > 20.0 && penalties[1] > 20.0, "{penalties:?}");
        assert_eq!(penalties[2..], [1.0; 6]);
    }

    #[test]
    fn one_that_refuses_at_once_is_found_out_before_the_others_have_answered() {
        let bad = after(20, 1.0, &mut Rng::new(3));
        let unheard = Refusals::default();
        assert!(penalties(&[bad, unheard, unheard], 0.0)[0] > 90.0);
        let few = after(5, 1.0, &mut Rng::new(3));
        assert_eq!(penalties(&[few, unheard, unheard], 0.0)[0], 1.0);
        assert_eq!(penalties(&[bad], 0.0), [1.0], "nobody to compare with");
    }

    #[test]
    fn clients_that_are_wrong_punish_nobody() {
        let mut rng = Rng::new(4);
        let mut penalised = 0;
        for share in [0.02, 0.1, 0.3, 0.6, 1.0] {
            let mut pool = [Refusals::default(); 4];
            for _ in 0..20_000 {
                let member = rng.below(4);
                match rng.unit() < share {
                    true => pool[member].refuse(0.1, &TUNING),
                    false => pool[member].serve(0.1, &TUNING),
                }
                penalised += penalties(&pool, 0.1).iter().filter(|it| **it > 1.0).count();
            }
        }
        // Of 400,000 looks; a false alarm lasts for some of them.
        assert!(penalised < 400, "{penalised} times");
    }

    #[test]
    fn an_upstream_that_is_mended_is_forgiven_by_answers_or_by_time() {
        let mut rng = Rng::new(5);
        let well = after(100, 0.0, &mut rng);
        let mut mended = after(50, 1.0, &mut rng);
        let before = penalties(&[mended, well, well], 0.0)[0];
        assert!(penalties(&[mended, well, well], 300.0)[0] < before / 4.0);
        for _ in 0..12 {
            mended.serve(1.0, &TUNING);
        }
        assert!(penalties(&[mended, well, well], 0.0)[0] < 1.05);
        let mut few = after(6, 1.0, &mut rng);
        assert!(penalties(&[few, well, well], 120.0)[0] < 1.5);
        few.age(120.0, &TUNING);
        assert!(penalties(&[few, well, well], 0.0)[0] < 1.5);
    }

    #[test]
    fn a_part_of_the_requests_costs_that_part() {
        let mut rng = Rng::new(6);
        let well = after(500, 0.1, &mut rng);
        let mean = (0..500).map(|_| {
            let half = after(200, 0.5, &mut rng);
            penalties(&[half, well, well, well], 0.0)[0]
        });
        let mean = mean.sum::<f64>() / 500.0;
        // 1 / (1 - 0.44) = 1.8, and more, because it is not linear in the rate.
        assert!((1.7..2.8).contains(&mean), "{mean}");
    }

    #[test]
    fn garbage_is_nothing_remembered() {
        for parts in [
            [f32::NAN, 1.0, 0.5],
            [10.0, 11.0, 0.5],
            [10.0, -1.0, 0.5],
            [10.0, 5.0, f32::INFINITY],
            [1e9, 5.0, 0.5],
        ] {
            assert_eq!(Refusals::from_parts(parts), Refusals::default());
        }
        let odd = Refusals::from_parts([64.0, 64.0, 1.0]);
        assert!(odd.penalty(Answers::default(), 0.0, &TUNING) < 101.0);
    }
}
