//! How many requests an upstream should have in flight at most, learned.
//!
//! More load is worth it as long as it brings more throughput. By Little's law
//! throughput is load over latency, so what counts is by how many per cent the latency
//! rises where the load rises by one, the *elasticity* of latency: 0 while the server
//! has capacity to spare, 1 once every further request only waits. It is the slope of a
//! line through the logarithms, drawn towards 0 where it may be chance: who knows nothing
//! allows more. A server that shares itself among its requests takes `a + b x load` for
//! each, whose elasticity is at the same time the part of its highest throughput that it
//! reaches; so the elasticity at the usual load says at which load it reaches `WORTH` of
//! it. The limit follows that load.
//!
//! A server that batches gains from every request more, if less and less: at 90 % of its
//! highest throughput the elasticity is 0.9. `WORTH` must be higher than that, or the limit
//! makes the requests wait that it should protect. What takes a fixed number at a time
//! has an elasticity of 1 when more are there, so its limit falls until fewer wait.
//!
//! Latencies are per unit of work, so larger requests do not look like a slower server; and
//! because only how they change with the load counts, a slow server does not look like a
//! busy one. That is where limits that compare latencies with a minimum fail (Vegas,
//! Netflix's gradient, Envoy's adaptive concurrency).
//!
//! Explicit signals count at once: a server that answers 429 or 503, or not in time,
//! has its limit cut by a tenth, once for all requests that were sent before, and the limit
//! rises slowly afterwards (after Chiu and Jain 1989).
//!
//! A limit that never changed would teach nothing. So it is probed: half of the time a
//! quarter more is allowed, in turns of several latencies. That is also how a server that
//! has recovered is found out.

use super::line::Line;
use crate::time::Timestamp;

/// The limit before anything is known: more than most servers take. One that is too low
/// makes requests wait before anybody can know that it is.
const START: f64 = 256.0;
/// It never falls below this, so that something is learned.
const FLOOR: f64 = 1.0;
/// It never rises above this.
const CEILING: f64 = 4096.0;
/// The part of its highest throughput that an upstream should be allowed to reach.
const WORTH: f64 = 0.95;
/// Elasticities are taken to be within these.
const ELASTICITIES: (f64, f64) = (1e-6, 0.98);
/// A slope that is trusted so far, two standard deviations from none, is taken as it is: drawn
/// towards 0 it would always look as if more were worth it.
const TRUSTED: f64 = 0.75;
/// The part of the way to where the limit should be, in logarithms, that it rises with
/// each sample that found it reached.
const RISE: f64 = 0.01;
/// By no more than this part with one sample.
const FASTEST_RISE: f64 = 0.04;
/// The same part with each sample, where the limit should be lower.
const FALL: f64 = 0.01;
/// The fastest rise for as long as a cut is recent: where the server says what it takes,
/// that is believed.
const RISE_AFTER_CUT: f64 = 0.003;
/// So many requests after a cut it is recent.
const RECENT: f64 = 1000.0;
/// What is left of the limit after a signal of overload.
const CUT: f64 = 0.9;
/// By how much a probe exceeds the limit.
const PROBE: f64 = 1.25;
/// Samples that are remembered at least, and for each request in flight: probes must be among
/// them.
const MEMORY: f64 = 400.0;
const MEMORY_EACH: f64 = 20.0;
/// What a sample adds to the number of those that the line knows. Less than 1: when requests
/// begin to come, the short ones end first, while the load still grows, which looks as if
/// load cost much. So the first samples are forgotten soon.
const OF_A_SAMPLE: f64 = 0.5;
/// The limit does not fall before the line knows so many samples for each request in flight.
const SAMPLES_TO_FALL: f64 = 2.0;
/// The length of a probe, in latencies: this or up to twice as long.
const PROBE_LATENCIES: f64 = 8.0;
/// In nanoseconds: a tenth of a second.
const SHORTEST_PROBE: u64 = 100_000_000;
/// In nanoseconds: ten minutes.
const LONGEST_PROBE: u64 = 600_000_000_000;

/// How many requests an upstream should have in flight at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConcurrencyLimit {
    limit: f32,
    /// The logarithm of the latency per unit of work, in nanoseconds, by that of the load
    /// meanwhile.
    latency: Line,
    /// When it was cut last.
    cut_at: Timestamp,
}

impl Default for ConcurrencyLimit {
    fn default() -> Self {
        ConcurrencyLimit {
            limit: START as f32,
            latency: Line::default(),
            cut_at: Timestamp::ZERO,
        }
    }
}

impl ConcurrencyLimit {
    /// How many numbers make up a limit, beside the moment of the last cut.
    pub const PARTS: usize = 1 + Line::PARTS;

    /// From its parts; unknown where they make no sense.
    #[must_use]
    pub fn from_parts(parts: [f32; Self::PARTS], cut_at: Timestamp) -> Self {
        let [limit, line @ ..] = parts;
        let is_sound = (FLOOR..=CEILING).contains(&f64::from(limit));
        match Line::from_parts(line).filter(|_| is_sound) {
            Some(latency) => ConcurrencyLimit {
                limit,
                latency,
                cut_at,
            },
            None => ConcurrencyLimit::default(),
        }
    }

    /// The parts, to be stored, and when it was cut last.
    #[must_use]
    pub fn parts(self) -> ([f32; Self::PARTS], Timestamp) {
        let mut parts = [self.limit; Self::PARTS];
        if let Some(line) = parts.last_chunk_mut() {
            *line = self.latency.parts();
        }
        (parts, self.cut_at)
    }

    /// The limit without probes: 1 or more.
    #[must_use]
    pub fn base(self) -> u64 {
        f64::from(self.limit).round() as u64
    }

    /// How many requests may be in flight at `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> u64 {
        let turn = PROBE_LATENCIES * self.latency.mean_y().exp();
        // A power of two, so that turns do not begin anew whenever the mean latency
        // changes.
        let exponent = (turn as u64).clamp(SHORTEST_PROBE, LONGEST_PROBE);
        let exponent = exponent.next_power_of_two().trailing_zeros();
        let base = self.base();
        if (now.as_nanos() >> exponent).is_multiple_of(2) {
            return base;
        }
        let probe = (f64::from(self.limit) * PROBE) as u64;
        probe.max(base + 1)
    }

    /// Takes in a success that took so many seconds per unit of work and ended `now`. So many
    /// requests were in flight with it `at_pick`, and so many `at_end`.
    pub fn succeed(&mut self, at_pick: f64, at_end: f64, seconds_per_work: f64, now: Timestamp) {
        // What it shared the server with meanwhile, about.
        let load = ((at_pick + at_end) / 2.0).ln();
        if load.is_nan() || seconds_per_work.is_nan() || seconds_per_work <= 0.0 {
            return;
        }
        let latency = (seconds_per_work * 1e9).max(1.0).ln();
        let memory = MEMORY.max(MEMORY_EACH * self.latency.mean_x().exp());
        let samples = self.latency.next_samples(memory + 1.0 - OF_A_SAMPLE);
        let samples = (samples - 1.0 + OF_A_SAMPLE).max(1.0);
        let Some(latency) = self.latency.with(load.max(0.0), latency, samples) else {
            return;
        };
        self.latency = latency;
        let is_reached = at_pick >= self.base() as f64;
        let way = self.way(is_reached);
        let step = if way < 0.0 {
            let enough = SAMPLES_TO_FALL * latency.mean_x().exp();
            match samples < enough {
                true => return,
                false => way * FALL,
            }
        } else if is_reached {
            let fastest = match self.was_cut_lately(now) {
                true => RISE_AFTER_CUT,
                false => FASTEST_RISE,
            };
            (way * RISE).min(fastest)
        } else {
            return;
        };
        // No faster than what was seen before is forgotten.
        self.set(f64::from(self.limit) * (step * MEMORY / memory).exp());
    }

    /// How far the limit is below where it should be, as a difference of logarithms.
    fn way(&self, is_reached: bool) -> f64 {
        let Some(slope) = self.latency.slope() else {
            return f64::INFINITY;
        };
        let (least, most) = ELASTICITIES;
        let trust = if slope.trust < TRUSTED {
            slope.trust
        } else {
            1.0
        };
        let elasticity = (slope.fitted * trust).clamp(least, most);
        let factor = WORTH / (1.0 - WORTH) * (1.0 - elasticity) / elasticity;
        // Below the usual load there is nothing to learn for as long as nobody waits.
        let factor = if is_reached { factor } else { factor.max(1.0) };
        self.latency.mean_x() + factor.ln() - f64::from(self.limit).ln()
    }

    fn was_cut_lately(&self, now: Timestamp) -> bool {
        let between_ends = self.latency.mean_y().exp() / f64::from(self.limit);
        self.cut_at != Timestamp::ZERO
            && now.seconds_since(self.cut_at) * 1e9 < RECENT * between_ends
    }

    /// Takes in that the upstream had too much: it answered 429 or 503, or not in time. The
    /// request was picked at `picked_at`, where `load` requests were in flight with it.
    pub fn overload(&mut self, load: f64, picked_at: Timestamp, now: Timestamp) {
        if picked_at < self.cut_at || load.is_nan() {
            return;
        }
        self.cut_at = now;
        self.set(f64::from(self.limit).min(load) * CUT);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(FLOOR, CEILING) as f32;
    }
}

#[cfg(test)]
mod tests;
