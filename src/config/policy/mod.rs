//! Which policy picks the upstreams of a pool, and its parameters.

mod reading;

use core::time::Duration;

pub(super) use reading::read;
use reading::{DEFAULT_EXPLORATION, DEFAULT_EXTERNALITY};

use crate::estimate::Basis;

/// The names of all policies.
const NAMES: [&str; 8] = [
    "shortest_expected_delay",
    "least_request",
    "peak_ewma",
    "least_response_time",
    "latency_percentile",
    "weighted_round_robin",
    "round_robin",
    "random",
];

/// A policy with its parameters, each within its range.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyConfig {
    /// Each upstream in turn, weights aside.
    RoundRobin,
    /// Each upstream in turn, in proportion to its weight and evenly spread.
    WeightedRoundRobin,
    /// Any upstream, all equally likely.
    Random,
    /// The fewest requests in flight, relative to the weight.
    LeastRequest {
        /// How many upstreams, drawn at random, are compared: 2 to 100.
        /// `None` compares all.
        choice_count: Option<u32>,
        /// How strongly requests in flight lower an upstream's effective
        /// weight: 0 to 10, default 1. Envoy's meaning: only unequal weights
        /// heed it, at 0 the weights alone decide.
        active_request_bias: f64,
    },
    /// The least recent latency times requests in flight.
    LeastResponseTime {
        /// The time in which a sample's share falls to 1/e: 100 ms to 1 hour,
        /// default 10 seconds.
        decay_time: Duration,
    },
    /// The least peak-sensitive latency times requests in flight, as in
    /// Finagle, Linkerd and tower.
    PeakEwma {
        /// The time in which a sample's share falls to 1/e: 100 ms to 1 hour,
        /// default 10 seconds.
        decay_time: Duration,
        /// The latency assumed of an upstream that has answered nothing yet:
        /// 100 us to 10 minutes, default 30 ms.
        default_rtt: Duration,
        /// How many upstreams, drawn at random, are compared: 2 to 100,
        /// default 2.
        choice_count: u32,
    },
    /// The least measured quantile of latency, relative to the load under which
    /// it was measured.
    LatencyPercentile {
        /// Which quantile: 0.5 to 0.999, default 0.99.
        q: f64,
        /// Of how many latencies a quantile is believed: 1 to 100,000, default
        /// 50.
        min_samples: u32,
        /// The share of picks that explore, as in
        /// [`PolicyConfig::ShortestExpectedDelay`].
        exploration: f64,
    },
    /// The least delay expected for this request: the default.
    ShortestExpectedDelay {
        /// The share of the delay that a request adds for others which counts
        /// as its own: 0 to 1, default 0.2.
        externality: f64,
        /// The share of picks that try an upstream which is idle and has long
        /// been silent, so that one which has recovered is noticed: 0 to 0.2,
        /// default 0.01.
        exploration: f64,
        /// What load is measured in; `None`, the default, is what the pool
        /// learns to predict better.
        basis: Option<Basis>,
    },
}

impl PolicyConfig {
    /// The policy's name, as it is configured and reported.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::Random => "random",
            Self::LeastRequest { .. } => "least_request",
            Self::LeastResponseTime { .. } => "least_response_time",
            Self::PeakEwma { .. } => "peak_ewma",
            Self::LatencyPercentile { .. } => "latency_percentile",
            Self::ShortestExpectedDelay { .. } => "shortest_expected_delay",
        }
    }

    /// Whether a pick depends on the request's size.
    #[must_use]
    pub fn heeds_size(&self) -> bool {
        match self {
            Self::ShortestExpectedDelay { basis, .. } => *basis != Some(Basis::Requests),
            Self::LatencyPercentile { .. } => true,
            Self::RoundRobin
            | Self::WeightedRoundRobin
            | Self::Random
            | Self::LeastRequest { .. }
            | Self::LeastResponseTime { .. }
            | Self::PeakEwma { .. } => false,
        }
    }

    /// Whether a pick depends on weights.
    #[must_use]
    pub fn heeds_weights(&self) -> bool {
        !matches!(self, Self::RoundRobin | Self::Random)
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self::ShortestExpectedDelay {
            externality: DEFAULT_EXTERNALITY,
            exploration: DEFAULT_EXPLORATION,
            basis: None,
        }
    }
}

#[cfg(test)]
mod tests;
