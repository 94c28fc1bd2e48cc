//! Which policy picks the upstreams of a pool, and its parameters.

use core::time::Duration;

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
    /// The least delay expected for this request: the default.
    ShortestExpectedDelay {
        /// The share of the delay that a request adds for others which counts
        /// as its own: 0 to 1, default 0.1.
        externality: f64,
        /// The share of picks made at random, so that an upstream which has
        /// recovered is noticed: 0 to 0.2, default 0.01.
        exploration: f64,
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
            Self::ShortestExpectedDelay { .. } => "shortest_expected_delay",
        }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self::ShortestExpectedDelay {
            externality: 0.1,
            exploration: 0.01,
        }
    }
}
