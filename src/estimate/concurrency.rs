//! How many requests an upstream should have in flight at most, learned.
//!
//! More load is worth it as long as it brings more throughput. By Little's law
//! throughput is load over latency, so what counts is by how many per cent the latency
//! rises where the load rises by one, the *elasticity* of latency: 0 while the server
//! has capacity to spare, 1 once every further request only waits. The limit rises
//! where the elasticity is below `WORTH` and falls where it is above, so slowly that what
//! was seen before the last changes has been forgotten when it has moved by half: a limit
//! that runs ahead of its evidence swings. The elasticity is a slope of logarithms, drawn
//! towards 0 where it may be chance: who knows nothing allows more. Latencies are per unit of work, so larger requests do not look like a slower server; and because
//! only how they change with the load counts, a slow server does not look like a busy
//! one. That is where limits that compare latencies with a minimum fail (Vegas, Netflix's
//! gradient, Envoy's adaptive concurrency).
//!
//! Explicit signals count at once: a server that answers 429 or 503, or not in time,
//! has its limit cut by a tenth, once for all requests that were sent before
//! (additive increase, multiplicative decrease: Chiu and Jain 1989).
//!
//! A limit that never changed would teach nothing. So it is probed: half of the time a
//! quarter more is allowed, in turns of several latencies. That is also how a server that
//! has recovered is found out.

use super::line::Line;
use crate::time::Timestamp;

/// The limit before anything is known.
const START: f64 = 4.0;
/// It never falls below this, so that something is learned.
const FLOOR: f64 = 1.0;
/// It never rises above this.
const CEILING: f64 = 4096.0;
/// The elasticity of latency up to which more load is worth it: where a per cent more
/// of load brings a quarter per cent more of throughput.
const WORTH: f64 = 0.75;
/// By which part a sample changes the limit, for each unit by which the elasticity
/// differs from what is worth it.
const STEP: f64 = 0.003;
/// The same at the beginning: 100 samples may bring the limit from 4 to 12.
const FIRST_STEP: f64 = 0.015;
/// So many samples are the beginning.
const BEGINNING: f64 = 100.0;
/// By which part it falls more slowly than it rises: too low a limit costs throughput,
/// one that is too high only the choice of where to wait.
const FALL: f64 = 0.5;
/// What is left of the limit after a signal of overload.
const CUT: f64 = 0.9;
/// By how much a probe exceeds the limit.
const PROBE: f64 = 1.25;
/// Samples that are remembered.
const MEMORY: f64 = 400.0;
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

    /// Takes in a success that took so many seconds per unit of work. So many requests
    /// were in flight with it `at_pick`, and so many `at_end`. What was picked while the
    /// limit left room says nothing about it.
    pub fn succeed(&mut self, at_pick: f64, at_end: f64, seconds_per_work: f64) {
        let is_nothing = seconds_per_work.is_nan() || seconds_per_work <= 0.0;
        if at_pick < self.base() as f64 || is_nothing {
            return;
        }
        // What it shared the server with meanwhile, about.
        let load = ((at_pick + at_end) / 2.0).ln();
        let latency = (seconds_per_work * 1e9).max(1.0).ln();
        let samples = self.latency.next_samples(MEMORY);
        let Some(latency) = self.latency.with(load, latency, samples) else {
            return;
        };
        self.latency = latency;
        let slope = self.latency.slope();
        let elasticity = slope.map_or(0.0, |slope| slope.fitted * slope.trust);
        let surplus = (WORTH - elasticity).clamp(-1.0, 1.0);
        let step = match samples < BEGINNING {
            true => FIRST_STEP,
            false => STEP,
        };
        let part = step * if surplus < 0.0 { FALL } else { 1.0 } * surplus;
        self.set(f64::from(self.limit) * (1.0 + part));
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
