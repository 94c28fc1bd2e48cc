//! The constants of the estimates and of the default policy that were chosen
//! by measurement: `docs/tuning.md` has the sweeps. Users cannot configure them;
//! only the simulator sets other values.

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
    /// As many mean requests as an upstream must have shown, in seconds served, for
    /// its pace to be believed as one sample is.
    pub evidence_needed: f64,
    /// The part of the pool's mean latency from which on a sample counts in full;
    /// shorter ones count in proportion to their length.
    pub full_evidence: f64,
    /// An upstream never has shown more than so many of the pool's mean requests.
    pub evidence_memory: f64,
    /// The weight of one outcome in an upstream's failure rate, 0 to 1: after
    /// five failures in a row the upstream counts as six times slower, after
    /// ten, thirty-five times.
    pub error_step: f64,
    /// Seconds in which the odds of a failure, `rate / (1 - rate)`, fall by a
    /// factor of e when nothing is sent.
    pub error_decay_seconds: f64,
    /// Of so many answers of an upstream it is remembered how many were refusals
    /// (4xx), to compare it with the others.
    pub refusal_window: f64,
    /// Seconds in which what is remembered of them counts for less by a factor of
    /// e.
    pub refusal_decay_seconds: f64,
    /// Each time so many refusals are remembered, their recent rate takes another
    /// `error_decay_seconds` to fade.
    pub refusals_per_decay: f64,
    /// Fewer refusals than these say nothing.
    pub refusal_least: f64,
    /// Standard deviations by which an upstream must refuse more than the others
    /// of its pool to be blamed. More than the usual two or three: it is asked at
    /// every pick, and wrong requests come in bursts.
    pub refusal_deviations: f64,
    /// The default policy explores upstreams that have not been heard of for
    /// so long.
    pub silent_seconds: f64,
    /// A request waits for faster upstreams if they are expected to have done it and all
    /// others that wait in this part of the time that a slower one with room would
    /// take; 0 is never.
    pub patience: f64,
    /// Up to so many members a policy compares all that it wants to.
    pub full_scan: usize,
    /// Of a larger pool it sees so many, drawn at random for each pick: the
    /// best of 64 is among the best 5 % of the pool with probability 0.96.
    pub sample: usize,
    /// Seconds after which what the other workers have outstanding is read
    /// again.
    pub reread_seconds: f64,
    /// Seconds between two merges of what a worker has learned; also after
    /// which what all have learned is read again.
    pub merge_seconds: f64,
}

impl Tuning {
    /// What the filter runs with.
    pub const DEFAULT: Tuning = Tuning {
        drift_per_sample: 0.08 * 0.08 / 0.92,
        drift_per_second: 0.0001,
        evidence_needed: 0.7,
        full_evidence: 0.05,
        evidence_memory: 10_000.0,
        error_step: 0.3,
        error_decay_seconds: 10.0,
        refusal_window: 64.0,
        refusal_decay_seconds: 1_800.0,
        refusals_per_decay: 3.0,
        refusal_least: 5.0,
        refusal_deviations: 4.0,
        silent_seconds: 10.0,
        patience: 0.6,
        full_scan: 256,
        sample: 64,
        reread_seconds: 0.001,
        merge_seconds: 0.01,
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning::DEFAULT
    }
}
