//! The constants of the estimates and of the default policy that were chosen
//! by measurement: `docs/tuning.md` has the sweeps. They are no configuration;
//! the simulator alone sets others.

/// The constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Growth of a pace's uncertainty with each sample, in units of the
    /// residual variance. With it alone the steady weight `w` of a sample
    /// solves `w * w / (1 - w) = drift_per_sample`.
    pub drift_per_sample: f64,
    /// Growth of a pace's uncertainty with each second of silence, in the same
    /// units: ten minutes without a sample make an estimate three quarters more
    /// uncertain, and the next sample weigh half as much again.
    pub drift_per_second: f64,
    /// The weight of one outcome in an upstream's failure rate, 0 to 1: after
    /// five failures in a row the upstream counts as six times slower, after
    /// ten, thirty-five times.
    pub error_step: f64,
    /// Seconds in which the odds of a failure, `rate / (1 - rate)`, fall by a
    /// factor of e when nothing is sent.
    pub error_decay_seconds: f64,
    /// The default policy explores upstreams that have not been heard of for
    /// so long.
    pub silent_seconds: f64,
    /// Up to so many members a policy compares all that it wants to.
    pub full_scan: usize,
    /// Of a larger pool it sees so many, drawn at random for each pick: the
    /// best of 64 is among the best 5 % of the pool with probability 0.96.
    pub sample: usize,
}

impl Tuning {
    /// What the filter runs with.
    pub const DEFAULT: Tuning = Tuning {
        drift_per_sample: 0.08 * 0.08 / 0.92,
        drift_per_second: 0.0001,
        error_step: 0.3,
        error_decay_seconds: 10.0,
        silent_seconds: 10.0,
        full_scan: 256,
        sample: 64,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning::DEFAULT
    }
}
