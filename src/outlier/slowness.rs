//! Whether an upstream has become slow, compared with itself and with its pool.
//!
//! The logarithm of a request's time per unit of its work is taken apart into what is
//! common to the pool at that moment (its *level*), what is usual for the upstream
//! beside that, and an *excess*. The level follows the workload, within some tens of
//! requests of the pool; what is usual follows slowly, so unequal hardware is usual and a
//! longer kind of request is nobody's fault, while an upstream that has become slow shows
//! an excess of the logarithm of the factor. This is an analysis of variance with two
//! factors, upstream and time, done as the samples come.
//!
//! The time is the one at the load that the upstream has, and not its pace: how latency
//! follows load differs from server to server, and one that comes back from an ejection
//! has hardly any. Policies that heed speed send a slow server less until its requests
//! take as long as everywhere, so it has no excess and stays useful; one whose requests
//! take many times as long although it gets hardly any is of no use.

/// How long an upstream's requests take beside those of its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowness {
    /// The mean excess of the last samples, in units of [`UNIT`].
    recent: i16,
    /// How many there were since it came, at most [`RECENT`].
    samples: u8,
    /// What is usual beside the pool's level, in units of [`UNIT`].
    usual: i16,
    /// From how many samples that was learned; the last 255 count.
    learned: u8,
}

/// What is common to the requests of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Typical {
    /// The logarithm of the seconds per unit of work.
    level: f32,
    /// The variance of one sample's excess.
    variance: f32,
    /// From how many samples that was learned, at most [`Typical::MEMORY`].
    samples: f32,
    /// The longest silence of an upstream that has then answered, of late: the time in
    /// seconds, times the requests that it had.
    silence: f32,
}

/// Parts of one: a factor of e^16 fits.
const UNIT: f64 = 2048.0;
/// The memory of recent samples: each weighs an eighth of those before it.
const RECENT: u8 = 8;
/// With fewer, nothing is usual.
const NEEDED: u8 = 20;
/// With fewer recent ones, nothing is said.
const FEWEST: u8 = 4;
/// Standard deviations by which an excess must be beyond doubt: it is asked after every
/// sample.
const DEVIATIONS: f64 = 2.75;

impl Default for Typical {
    fn default() -> Self {
        Typical {
            level: 0.0,
            variance: Self::ASSUMED_VARIANCE,
            samples: 0.0,
            silence: 0.0,
        }
    }
}

impl Typical {
    /// Parts of its encoded form.
    pub const PARTS: usize = 4;

    /// How many samples the level remembers. It must follow the workload faster than an
    /// upstream gathers [`RECENT`] ones.
    const MEMORY: f64 = 64.0;
    /// What is assumed before there are samples: a spread of a factor of e.
    const ASSUMED_VARIANCE: f32 = 1.0;
    /// How many answers the longest silence is remembered.
    const SILENCE_MEMORY: f64 = 20_000.0;
    /// Silence is strange that is so many times as long as the longest, and no shorter than
    /// a second: the record of a minute is broken in an hour.
    const STRANGE: f64 = 3.0;
    const SHORTEST_SILENCE: f64 = 1.0;
    /// No excess counts for more than this, a factor of 55: where one request in ten is
    /// answered at once, the others are not slow.
    const LARGEST: f64 = 4.0;

    /// From its parts; nothing known where they make no sense.
    #[must_use]
    pub fn from_parts([level, variance, samples, silence]: [f32; Self::PARTS]) -> Self {
        let is_sound = level.is_finite()
            && variance.is_finite()
            && variance > 0.0
            && silence.is_finite()
            && silence >= 0.0;
        if is_sound && (0.0..=Self::MEMORY as f32).contains(&samples) {
            Typical {
                level,
                variance,
                samples,
                silence,
            }
        } else {
            Typical::default()
        }
    }

    /// Level, variance, samples and the longest silence, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; Self::PARTS] {
        [self.level, self.variance, self.samples, self.silence]
    }

    /// The excess of a request at an upstream, whose time per unit of work was so many
    /// seconds; `None` while there is nothing to compare with.
    fn excess(&self, upstream: Slowness, seconds: f64) -> Option<f64> {
        let excess = seconds.clamp(1e-9, 1e9).ln() - f64::from(self.level) - upstream.usual();
        (self.samples > 0.0).then(|| excess.clamp(-Self::LARGEST, Self::LARGEST))
    }

    /// Takes in that an upstream with so many requests has answered one, and none before it
    /// for so many seconds.
    ///
    /// What counts is the product: a server that works at twenty requests at a time answers
    /// one in a twentieth of the time that a request takes, so its silence is strange much
    /// sooner than that of one which works at two.
    pub fn observe_silence(&mut self, seconds: f64, requests: f64) {
        let faded = f64::from(self.silence) * (1.0 - 1.0 / Self::SILENCE_MEMORY);
        self.silence = faded.max((seconds * requests).clamp(0.0, 1e9)) as f32;
    }

    /// Whether an upstream with so many requests has been silent for so many seconds that
    /// this is much stranger than all that was seen.
    #[must_use]
    pub fn is_silence_strange(&self, seconds: f64, requests: f64) -> bool {
        let is_known = self.samples >= Self::MEMORY as f32;
        is_known
            && seconds >= Self::SHORTEST_SILENCE
            && seconds * requests > Self::STRANGE * f64::from(self.silence)
    }

    /// The time in seconds per unit of work that is to be expected at the upstream: the mean
    /// of times whose logarithms are normal. Endless while nothing is known.
    #[must_use]
    pub fn expected(&self, upstream: Slowness) -> f64 {
        if self.samples <= 0.0 {
            return f64::INFINITY;
        }
        (f64::from(self.level) + upstream.usual() + f64::from(self.variance) / 2.0).exp()
    }

    fn observe(&mut self, excess: f64) {
        let samples = (f64::from(self.samples) + 1.0).min(Self::MEMORY);
        self.level = (f64::from(self.level) + excess / samples) as f32;
        self.samples = samples as f32;
    }

    /// Takes in by how much a sample differs from those before it of the same upstream.
    fn observe_noise(&mut self, difference: f64) {
        let variance = f64::from(self.variance);
        let variance = variance + (difference * difference - variance) / Self::MEMORY;
        self.variance = variance.max(1e-4) as f32;
    }
}

impl Slowness {
    /// From its parts.
    #[must_use]
    pub fn from_parts(recent: i16, samples: u8, usual: i16, learned: u8) -> Self {
        Slowness {
            recent,
            samples: samples.min(RECENT),
            usual,
            learned,
        }
    }

    /// The recent excess, its samples, what is usual and its samples, to be stored.
    #[must_use]
    pub const fn parts(self) -> (i16, u8, i16, u8) {
        (self.recent, self.samples, self.usual, self.learned)
    }

    /// The mean excess of the last samples.
    #[must_use]
    pub fn recent(self) -> f64 {
        f64::from(self.recent) / UNIT
    }

    fn usual(self) -> f64 {
        f64::from(self.usual) / UNIT
    }

    /// Takes in a request that took so many seconds per unit of its work.
    pub fn observe(&mut self, typical: &mut Typical, seconds: f64) {
        if seconds.is_nan() {
            return;
        }
        let Some(excess) = typical.excess(*self, seconds) else {
            // The first of the pool.
            typical.level = seconds.clamp(1e-9, 1e9).ln() as f32;
            typical.samples = 1.0;
            self.learned = 1;
            return;
        };
        if self.samples >= FEWEST {
            typical.observe_noise(excess - self.recent());
        } else if self.learned >= FEWEST {
            typical.observe_noise(excess);
        }
        let is_known = self.learned >= NEEDED;
        if is_known {
            let recent = self.recent();
            self.samples = (self.samples + 1).min(RECENT);
            self.recent = units(recent + (excess - recent) / f64::from(self.samples));
        }
        self.learned = self.learned.saturating_add(1);
        let usual = self.usual() + excess / f64::from(self.learned);
        self.usual = units(usual);
        // What an upstream is beside the pool is not the pool's level.
        if is_known || typical.samples < Typical::MEMORY as f32 {
            typical.observe(excess);
        }
    }

    /// What was recent is no more: the upstream comes back from an ejection.
    pub fn forget_recent(&mut self) {
        (self.recent, self.samples) = (0, 0);
    }

    /// The recent excess, and of how many samples it is as good as the mean: of 0 where too
    /// little is known to say anything.
    #[must_use]
    pub fn weighed(self) -> (f64, f64) {
        if self.learned < NEEDED {
            return (0.0, 0.0);
        }
        // Of all that came, or exponentially weighted.
        let samples = match self.samples {
            RECENT => 2.0 * f64::from(RECENT) - 1.0,
            fewer => f64::from(fewer),
        };
        (self.recent(), samples)
    }

    /// By how much the excess is beyond doubt greater than the mean excess of the others,
    /// `others`, that rests on so many samples: 0 where nothing can be said.
    #[must_use]
    pub fn excess_at_least(self, typical: &Typical, (others, samples): (f64, f64)) -> f64 {
        if self.learned < NEEDED || self.samples < FEWEST {
            return 0.0;
        }
        // One over the samples of this, of what is usual, and of the others.
        let parts = 1.0 / self.weighed().1 + 1.0 / f64::from(self.learned) + 1.0 / samples.max(1.0);
        let doubt = DEVIATIONS * (f64::from(typical.variance) * parts).sqrt();
        (self.recent() - others - doubt).max(0.0)
    }
}

fn units(value: f64) -> i16 {
    (value * UNIT)
        .round()
        .clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    /// A pool whose upstreams take these many times the time of the pool, with noise.
    struct Pool {
        typical: Typical,
        upstreams: Vec<Slowness>,
        rng: Rng,
        deviation: f64,
    }

    impl Pool {
        fn new(upstreams: usize, deviation: f64, seed: u64) -> Self {
            Pool {
                typical: Typical::default(),
                upstreams: vec![Slowness::default(); upstreams],
                rng: Rng::new(seed),
                deviation,
            }
        }

        /// A request of so many seconds at the upstream, on the average.
        fn serve(&mut self, upstream: usize, seconds: f64) {
            // Of twelve uniform ones: as good as normal.
            let normal: f64 = (0..12).map(|_| self.rng.unit()).sum::<f64>() - 6.0;
            let seconds = seconds * (self.deviation * normal).exp();
            self.upstreams[upstream].observe(&mut self.typical, seconds);
        }

        /// The factor by which the upstream is beyond doubt slower than usual.
        fn factor(&self, upstream: usize) -> f64 {
            let others = self.upstreams.iter().enumerate();
            let others = others.filter(|(index, _)| *index != upstream);
            let (mut sum, mut samples) = (0.0, 0.0);
            for (_, other) in others {
                let (excess, weight) = other.weighed();
                sum += excess * weight;
                samples += weight;
            }
            let mean = if samples > 0.0 { sum / samples } else { 0.0 };
            self.upstreams[upstream]
                .excess_at_least(&self.typical, (mean, samples))
                .exp()
        }
    }

    #[test]
    fn unequal_hardware_is_usual_and_a_change_is_seen_in_some_requests() {
        let mut pool = Pool::new(4, 0.7, 1);
        let seconds = |upstream: usize| [1.0, 1.0, 4.0, 10.0][upstream];
        for round in 0..400 {
            let upstream = round % 4;
            pool.serve(upstream, seconds(upstream));
            assert!(pool.factor(upstream) < 1.5, "{round}");
        }
        let mut needed = 0;
        while pool.factor(0) < 3.0 {
            needed += 1;
            assert!(needed < 30);
            pool.serve(0, 12.0);
            (1..4).for_each(|other| pool.serve(other, seconds(other)));
        }
        assert!(needed >= 4, "{needed}");
    }

    #[test]
    fn other_requests_are_nobodys_fault_however_unequal_the_traffic() {
        for seed in 0..20 {
            let mut pool = Pool::new(4, 0.7, seed);
            // Upstream 0 gets ten times the requests of the others.
            let turn = |round: usize| match round % 13 {
                it @ 0..3 => it + 1,
                _ => 0,
            };
            for round in 0..2_000 {
                pool.serve(turn(round), 1.0);
            }
            // They become eight times as long from one to the next.
            for round in 0..2_000 {
                pool.serve(turn(round), 8.0);
                for upstream in 0..4 {
                    assert!(pool.factor(upstream) < 3.0, "{seed} {round} {upstream}");
                }
            }
        }
    }

    #[test]
    fn faster_ones_that_join_make_nobody_slow() {
        let mut pool = Pool::new(6, 0.5, 7);
        for round in 0..400 {
            pool.serve(round % 2, 8.0);
        }
        for round in 0..2_000 {
            let upstream = round % 6;
            pool.serve(upstream, if upstream < 2 { 8.0 } else { 1.0 });
            assert!((0..6).all(|it| pool.factor(it) < 2.0), "{round}");
        }
    }

    #[test]
    fn heavy_tails_raise_no_alarm() {
        // Half an upstream's requests take more than e^1.4 times or less than one e^1.4-th.
        for seed in 0..20 {
            let mut pool = Pool::new(8, 1.4, seed);
            for round in 0..8_000 {
                pool.serve(round % 8, 1.0);
                assert!(pool.factor(round % 8) < 3.0, "{seed} {round}");
            }
        }
    }

    #[test]
    fn cheap_requests_among_others_raise_no_alarm() {
        for seed in 0..20 {
            let mut pool = Pool::new(8, 0.7, seed);
            for round in 0..8_000 {
                let is_cheap = pool.rng.unit() < 0.3;
                pool.serve(round % 8, if is_cheap { 1e-3 } else { 1.0 });
                assert!(pool.factor(round % 8) < 3.0, "{seed} {round}");
            }
        }
    }

    #[test]
    fn silence_is_strange_that_is_much_longer_than_any() {
        let mut typical = Typical::default();
        let mut upstream = Slowness::default();
        for _ in 0..64 {
            assert!(!typical.is_silence_strange(1e6, 1.0), "too little is known");
            upstream.observe(&mut typical, 1.0);
            typical.observe_silence(1.0, 1.0);
        }
        typical.observe_silence(2.0, 5.0);
        typical.observe_silence(1.0, 1.0);
        assert!(!typical.is_silence_strange(29.0, 1.0));
        assert!(typical.is_silence_strange(31.0, 1.0));
        assert!(typical.is_silence_strange(3.1, 10.0));
        assert!(!typical.is_silence_strange(0.9, 100.0), "it is short");
        for _ in 0..100_000 {
            typical.observe_silence(1.0, 1.0);
        }
        assert!(typical.is_silence_strange(3.5, 1.0), "it is long ago");
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        for parts in [
            [f32::NAN, 1.0, 1.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, f32::INFINITY, 1.0, 0.0],
            [0.0, 1.0, 65.0, 0.0],
            [0.0, 1.0, 64.0, -1.0],
        ] {
            assert_eq!(Typical::from_parts(parts), Typical::default());
        }
        let (mut typical, mut upstream) = (Typical::default(), Slowness::default());
        for seconds in [f64::NAN, 0.0, f64::INFINITY, -1.0, 1e300] {
            for _ in 0..50 {
                upstream.observe(&mut typical, seconds);
            }
            assert_eq!(Typical::from_parts(typical.parts()), typical);
            let (recent, samples, usual, learned) = upstream.parts();
            let read = Slowness::from_parts(recent, samples, usual, learned);
            assert_eq!(read, upstream);
        }
        typical.observe_silence(f64::INFINITY, 1.0);
        assert_eq!(Typical::from_parts(typical.parts()), typical);
        assert_eq!(Typical::default().excess(upstream, 1.0), None);
    }
}
