//! Reads a policy, each parameter within its range.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::{NAMES, PolicyConfig};
use crate::config::error::Problems;
use crate::config::json::{Json, Quoted};
use crate::config::reader::{Node, Object};
use crate::config::suggestion;
use crate::estimate::Basis;

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
pub(super) const DEFAULT_EXTERNALITY: f64 = 0.2;
const EXPLORATIONS: RangeInclusive<f64> = 0.0..=0.2;
pub(super) const DEFAULT_EXPLORATION: f64 = 0.01;
const QUANTILES: RangeInclusive<f64> = 0.5..=0.999;
const DEFAULT_QUANTILE: f64 = 0.99;
const MIN_SAMPLES: RangeInclusive<u32> = 1..=100_000;
const DEFAULT_MIN_SAMPLES: u32 = 50;

/// Reads a policy's name, or an object with its name and parameters.
pub(in crate::config) fn read(node: Node<'_>, problems: &mut Problems) -> Option<PolicyConfig> {
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
            problems.add(
                &name.path,
                &format_args!("{} is not a policy; {allowed}", Quoted(text)),
            );
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
        choice_count: parameters.whole("choice_count", CHOICE_COUNTS, problems),
        active_request_bias: parameters
            .real("active_request_bias", ACTIVE_REQUEST_BIASES, problems)
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
            .duration("default_rtt", RTTS, problems)
            .unwrap_or(DEFAULT_RTT),
        choice_count: parameters
            .whole("choice_count", CHOICE_COUNTS, problems)
            .unwrap_or(DEFAULT_PEAK_EWMA_CHOICE_COUNT),
    }
}

fn read_latency_percentile(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "q", "min_samples", "exploration"], problems);
    PolicyConfig::LatencyPercentile {
        q: parameters
            .real("q", QUANTILES, problems)
            .unwrap_or(DEFAULT_QUANTILE),
        min_samples: parameters
            .whole("min_samples", MIN_SAMPLES, problems)
            .unwrap_or(DEFAULT_MIN_SAMPLES),
        exploration: read_exploration(parameters, problems),
    }
}

fn read_shortest_expected_delay(parameters: &Object<'_>, problems: &mut Problems) -> PolicyConfig {
    parameters.allow_only(&["name", "externality", "exploration", "basis"], problems);
    PolicyConfig::ShortestExpectedDelay {
        externality: parameters
            .real("externality", EXTERNALITIES, problems)
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
        .real("exploration", EXPLORATIONS, problems)
        .unwrap_or(DEFAULT_EXPLORATION)
}

fn read_decay_time(parameters: &Object<'_>, problems: &mut Problems) -> Duration {
    parameters
        .duration("decay_time", DECAY_TIMES, problems)
        .unwrap_or(DEFAULT_DECAY_TIME)
}
