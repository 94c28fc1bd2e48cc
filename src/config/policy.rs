//! Which policy picks the upstreams of a pool, and its parameters.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::json::{Json, Quoted};
use super::reader::{Node, Object};
use super::suggestion;
use crate::estimate::Basis;

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

const CHOICE_COUNTS: RangeInclusive<u32> = 2..=100;
const DEFAULT_PEAK_EWMA_CHOICE_COUNT: u32 = 2;
const ACTIVE_REQUEST_BIASES: RangeInclusive<f64> = 0.0..=10.0;
const DEFAULT_ACTIVE_REQUEST_BIAS: f64 = 1.0;
const DECAY_TIMES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60 * 60);
const DEFAULT_DECAY_TIME: Duration = Duration::from_secs(10);
const RTTS: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_secs(10 * 60);
const DEFAULT_RTT: Duration = Duration::from_millis(30);
const EXTERNALITIES: RangeInclusive<f64> = 0.0..=1.0;
const DEFAULT_EXTERNALITY: f64 = 0.2;
const EXPLORATIONS: RangeInclusive<f64> = 0.0..=0.2;
const DEFAULT_EXPLORATION: f64 = 0.01;
const QUANTILES: RangeInclusive<f64> = 0.5..=0.999;
const DEFAULT_QUANTILE: f64 = 0.99;
const MIN_SAMPLES: RangeInclusive<u32> = 1..=100_000;
const DEFAULT_MIN_SAMPLES: u32 = 50;

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

/// Reads a policy's name, or an object with its name and parameters.
pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<PolicyConfig> {
    if let Json::String(_) = node.json {
        let no_parameters = Object {
            entries: &[],
            path: node.path,
        };
        return read_named(node, &no_parameters, problems);
    }
    let object = node.object("the name of a policy, or an object with name", problems)?;
    let name = object.require("name", "the name of a policy", problems)?;
    read_named(name, &object, problems)
}

/// Reads the parameters of the policy that `name` names.
fn read_named(
    name: Node<'_>,
    parameters: &Object<'_>,
    problems: &mut Problems,
) -> Option<PolicyConfig> {
    let text = name.text("the name of a policy", problems)?;
    let policy = match text {
        "round_robin" => read_plain(PolicyConfig::RoundRobin, parameters, problems),
        "weighted_round_robin" => {
            read_plain(PolicyConfig::WeightedRoundRobin, parameters, problems)
        }
        "random" => read_plain(PolicyConfig::Random, parameters, problems),
        "least_request" => read_least_request(parameters, problems),
        "least_response_time" => read_least_response_time(parameters, problems),
        "latency_percentile" => read_latency_percentile(parameters, problems),
        "peak_ewma" => read_peak_ewma(parameters, problems),
        "shortest_expected_delay" => read_shortest_expected_delay(parameters, problems),
        _ => {
            let allowed = suggestion::allowed(text, &NAMES);
            let message = format!("{} is not a policy; {allowed}", Quoted(text));
            problems.add(&name.path, message);
            return None;
        }
    };
    Some(policy)
}

fn read_plain(
    policy: PolicyConfig,
    parameters: &Object<'_>,
    problems: &mut Problems,
) -> PolicyConfig {
    parameters.allow_only(&["name"], problems);
    policy
}

fn read_least_request(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "choice_count", "active_request_bias"], problems);
    PolicyConfig::LeastRequest {
        choice_count: parameters
            .get("choice_count")
            .and_then(|node| node.whole(CHOICE_COUNTS, problems)),
        active_request_bias: parameters
            .get("active_request_bias")
            .and_then(|node| node.real(ACTIVE_REQUEST_BIASES, problems))
            .unwrap_or(DEFAULT_ACTIVE_REQUEST_BIAS),
    }
}

fn read_least_response_time(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "decay_time"], problems);
    PolicyConfig::LeastResponseTime {
        decay_time: read_decay_time(parameters, problems),
    }
}

fn read_peak_ewma(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    let keys = ["name", "decay_time", "default_rtt", "choice_count"];
    parameters.allow_only(&keys, problems);
    PolicyConfig::PeakEwma {
        decay_time: read_decay_time(parameters, problems),
        default_rtt: parameters
            .get("default_rtt")
            .and_then(|node| node.duration(RTTS, problems))
            .unwrap_or(DEFAULT_RTT),
        choice_count: parameters
            .get("choice_count")
            .and_then(|node| node.whole(CHOICE_COUNTS, problems))
            .unwrap_or(DEFAULT_PEAK_EWMA_CHOICE_COUNT),
    }
}

fn read_latency_percentile(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "q", "min_samples", "exploration"], problems);
    PolicyConfig::LatencyPercentile {
        q: parameters
            .get("q")
            .and_then(|node| node.real(QUANTILES, problems))
            .unwrap_or(DEFAULT_QUANTILE),
        min_samples: parameters
            .get("min_samples")
            .and_then(|node| node.whole(MIN_SAMPLES, problems))
            .unwrap_or(DEFAULT_MIN_SAMPLES),
        exploration: read_exploration(parameters, problems),
    }
}

fn read_shortest_expected_delay(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "externality", "exploration", "basis"], problems);
    PolicyConfig::ShortestExpectedDelay {
        externality: parameters
            .get("externality")
            .and_then(|node| node.real(EXTERNALITIES, problems))
            .unwrap_or(DEFAULT_EXTERNALITY),
        exploration: read_exploration(parameters, problems),
        basis: parameters
            .get("basis")
            .and_then(|node| read_basis(node, problems)),
    }
}

const BASES: &str = "\"learned\", \"requests\" or \"work\"";

fn read_basis(node: Node<'_>, problems: &mut Problems) -> Option<Basis> {
    match node.text(BASES, problems)? {
        "learned" => None,
        "requests" => Some(Basis::Requests),
        "work" => Some(Basis::Work),
        _ => {
            node.refuse(&BASES, problems);
            None
        }
    }
}

fn read_exploration(parameters: &Object<'_>, problems: &mut Problems) -> f64 {
    parameters
        .get("exploration")
        .and_then(|node| node.real(EXPLORATIONS, problems))
        .unwrap_or(DEFAULT_EXPLORATION)
}

fn read_decay_time(parameters: &Object<'_>, problems: &mut Problems) -> Duration {
    parameters
        .get("decay_time")
        .and_then(|node| node.duration(DECAY_TIMES, problems))
        .unwrap_or(DEFAULT_DECAY_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy that `json` gives, or what is said against it.
    fn policy(json: &str) -> Result<PolicyConfig, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        match read(Node::root(&json), &mut problems) {
            Some(policy) if problems.is_empty() => Ok(policy),
            _ => Err(problems.to_string()),
        }
    }

    #[test]
    fn every_name_gives_its_policy_with_or_without_an_object() {
        for name in NAMES {
            let by_name = policy(&format!("\"{name}\"")).unwrap();
            let by_object = policy(&format!("{{\"name\": \"{name}\"}}")).unwrap();
            assert_eq!(by_name, by_object);
            assert_eq!(by_name.name(), name);
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let ten_seconds = Duration::from_secs(10);
        assert_eq!(
            policy("\"shortest_expected_delay\""),
            Ok(PolicyConfig::ShortestExpectedDelay {
                externality: 0.2,
                exploration: 0.01,
                basis: None
            })
        );
        assert_eq!(
            policy("\"shortest_expected_delay\""),
            Ok(PolicyConfig::default())
        );
        assert_eq!(
            policy("\"least_request\""),
            Ok(PolicyConfig::LeastRequest {
                choice_count: None,
                active_request_bias: 1.0
            })
        );
        assert_eq!(
            policy("\"least_response_time\""),
            Ok(PolicyConfig::LeastResponseTime {
                decay_time: ten_seconds
            })
        );
        assert_eq!(
            policy("\"latency_percentile\""),
            Ok(PolicyConfig::LatencyPercentile {
                q: 0.99,
                min_samples: 50,
                exploration: 0.01
            })
        );
        assert_eq!(
            policy("\"peak_ewma\""),
            Ok(PolicyConfig::PeakEwma {
                decay_time: ten_seconds,
                default_rtt: Duration::from_millis(30),
                choice_count: 2
            })
        );
    }

    #[test]
    fn parameters_are_read() {
        assert_eq!(
            policy(
                r#"{"name": "shortest_expected_delay", "externality": 1, "exploration": 0, "basis": "work"}"#
            ),
            Ok(PolicyConfig::ShortestExpectedDelay {
                externality: 1.0,
                exploration: 0.0,
                basis: Some(Basis::Work)
            })
        );
        assert_eq!(
            policy(r#"{"active_request_bias": 0.5, "choice_count": 2.0, "name": "least_request"}"#),
            Ok(PolicyConfig::LeastRequest {
                choice_count: Some(2),
                active_request_bias: 0.5
            })
        );
        assert_eq!(
            policy(r#"{"name": "least_response_time", "decay_time": "1m"}"#),
            Ok(PolicyConfig::LeastResponseTime {
                decay_time: Duration::from_secs(60)
            })
        );
        assert_eq!(
            policy(
                r#"{"name": "latency_percentile", "q": 0.9, "min_samples": 5, "exploration": 0}"#
            ),
            Ok(PolicyConfig::LatencyPercentile {
                q: 0.9,
                min_samples: 5,
                exploration: 0.0
            })
        );
        assert_eq!(
            policy(
                r#"{"name": "peak_ewma", "decay_time": "1s", "default_rtt": "2s", "choice_count": 3}"#
            ),
            Ok(PolicyConfig::PeakEwma {
                decay_time: Duration::from_secs(1),
                default_rtt: Duration::from_secs(2),
                choice_count: 3
            })
        );
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        for (json, said) in [
            (
                r#"{"name": "least_request", "choice_count": 1}"#,
                "choice_count: 1 is not allowed; give a whole number from 2 to 100",
            ),
            (
                r#"{"name": "least_request", "active_request_bias": 10.5}"#,
                "active_request_bias: 10.5 is not allowed; give a number from 0.0 to 10.0",
            ),
            (
                r#"{"name": "least_response_time", "decay_time": "2h"}"#,
                "decay_time: \"2h\" is not allowed; \
                 give a duration from \"100ms\" to \"1h\", such as \"1.5s\"",
            ),
            (
                r#"{"name": "peak_ewma", "default_rtt": "99us"}"#,
                "default_rtt: \"99us\" is not allowed; \
                 give a duration from \"100us\" to \"10m\", such as \"1.5s\"",
            ),
            (
                r#"{"name": "latency_percentile", "q": 99}"#,
                "q: 99 is not allowed; give a number from 0.5 to 0.999",
            ),
            (
                r#"{"name": "latency_percentile", "min_samples": 0}"#,
                "min_samples: 0 is not allowed; give a whole number from 1 to 100000",
            ),
            (
                r#"{"name": "shortest_expected_delay", "externality": 1.5}"#,
                "externality: 1.5 is not allowed; give a number from 0.0 to 1.0",
            ),
            (
                r#"{"name": "shortest_expected_delay", "basis": "bytes"}"#,
                "basis: \"bytes\" is not allowed; give \"learned\", \"requests\" or \"work\"",
            ),
            (
                r#"{"name": "shortest_expected_delay", "exploration": 0.21}"#,
                "exploration: 0.21 is not allowed; give a number from 0.0 to 0.2",
            ),
        ] {
            assert_eq!(policy(json).unwrap_err(), said);
        }
    }

    #[test]
    fn a_policy_takes_no_other_policys_parameters() {
        for name in ["round_robin", "weighted_round_robin", "random"] {
            assert_eq!(
                policy(&format!("{{\"name\": \"{name}\", \"choice_count\": 2}}")),
                Err("choice_count: unknown key; allowed: name".to_owned())
            );
        }
        assert_eq!(
            policy(r#"{"name": "least_response_time", "default_rtt": "1s"}"#),
            Err("default_rtt: unknown key; allowed: name, decay_time".to_owned())
        );
        assert_eq!(
            policy(r#"{"name": "shortest_expected_delay", "decay_time": "1s"}"#),
            Err(
                "decay_time: unknown key; allowed: name, externality, exploration, basis"
                    .to_owned()
            )
        );
    }

    #[test]
    fn other_names_are_refused() {
        let all = NAMES.join(", ");
        assert_eq!(
            policy("\"LEAST_REQUESTS\""),
            Err(format!(
                "configuration: \"LEAST_REQUESTS\" is not a policy; \
                 did you mean least_request? allowed: {all}"
            ))
        );
        assert_eq!(
            policy(r#"{"name": "fastest"}"#),
            Err(format!("name: \"fastest\" is not a policy; allowed: {all}"))
        );
    }

    #[test]
    fn other_types_are_refused() {
        assert_eq!(
            policy("7").unwrap_err(),
            "configuration: 7 is not allowed; give the name of a policy, or an object with name"
        );
        assert_eq!(
            policy("{}").unwrap_err(),
            "name: missing; give the name of a policy"
        );
        assert_eq!(
            policy(r#"{"name": ["random"]}"#).unwrap_err(),
            "name: an array is not allowed; give the name of a policy"
        );
    }
}
