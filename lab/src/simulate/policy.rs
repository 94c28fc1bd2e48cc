use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::balancer::LoadBalancer;
use super::bounds::{CentralQueue, Clairvoyant, MeanCall, Oracle, Rule, TrueWork};
use super::engine::Setup;
use super::envoy;
use super::paceline::Gateways;
use super::prequal::Prequal;
use super::settings::Settings;
use super::tower::PeakEwma;
use crate::model::{Kind, ServerSpec};

/// A policy to simulate: one of the filter's own, one of somebody else's, or a bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The filter's code, with these in its configuration.
    Paceline(Box<Settings>),
    /// What somebody else has published, written for this simulator.
    Other(Other),
    /// What nobody could deploy.
    Bound(Bound),
}

/// Bounds: policies that know what cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// One line for all servers; see [`CentralQueue`].
    CentralQueue,
    /// True sizes and speeds; see [`Clairvoyant`].
    Clairvoyant,
    /// True work and speeds; see [`TrueWork`].
    TrueWork,
    /// True speeds and counts; see [`Rule::OwnDelay`].
    OwnDelay,
    /// True speeds and counts; see [`Rule::AddedDelay`].
    AddedDelay,
    /// True speeds and counts; see [`Rule::PaceTimesLoad`].
    PaceTimesLoad,
    /// The same, and which servers fail, hang or load; see [`Rule::PaceOfServing`].
    PaceOfServing,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CentralQueue,
        Self::Clairvoyant,
        Self::TrueWork,
        Self::OwnDelay,
        Self::AddedDelay,
        Self::PaceTimesLoad,
        Self::PaceOfServing,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CentralQueue => "bound:central_queue",
            Self::Clairvoyant => "bound:clairvoyant",
            Self::TrueWork => "bound:true_work",
            Self::OwnDelay => "bound:own_delay",
            Self::AddedDelay => "bound:added_delay",
            Self::PaceTimesLoad => "bound:pace_times_load",
            Self::PaceOfServing => "bound:pace_of_serving",
        }
    }
}

/// Policies of others, written from their published descriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Envoy `ROUND_ROBIN`.
    EnvoyRoundRobin,
    /// Envoy `RANDOM`.
    EnvoyRandom,
    /// Envoy `LEAST_REQUEST` with its default of two choices, drawn with replacement.
    EnvoyLeastRequest,
    /// Envoy `LEAST_REQUEST` with `selection_method: FULL_SCAN`.
    EnvoyLeastRequestFullScan,
    /// Envoy `LEAST_REQUEST` with its outlier detection.
    EnvoyLeastRequestEjecting,
    /// The same, and its active health checks.
    EnvoyLeastRequestChecked,
    /// tower's peak-EWMA with two choices.
    TowerPeakEwma,
    /// Prequal's hot-cold lexicographic rule on asynchronous probes.
    PrequalHcl,
}

impl Other {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::EnvoyRoundRobin,
        Self::EnvoyRandom,
        Self::EnvoyLeastRequest,
        Self::EnvoyLeastRequestFullScan,
        Self::EnvoyLeastRequestEjecting,
        Self::EnvoyLeastRequestChecked,
        Self::TowerPeakEwma,
        Self::PrequalHcl,
    ];

    /// Its name: whose it is, and how they call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EnvoyRoundRobin => "envoy:round_robin",
            Self::EnvoyRandom => "envoy:random",
            Self::EnvoyLeastRequest => "envoy:least_request",
            Self::EnvoyLeastRequestFullScan => "envoy:least_request_full_scan",
            Self::EnvoyLeastRequestEjecting => "envoy:least_request_ejecting",
            Self::EnvoyLeastRequestChecked => "envoy:least_request_checked",
            Self::TowerPeakEwma => "tower:peak_ewma",
            Self::PrequalHcl => "prequal:hcl",
        }
    }
}

impl Policy {
    /// What balances the calls of `setup` by this policy; `config` is the rest of the filter's configuration.
    pub fn balancer(&self, setup: &Setup, config: &Map<String, Value>) -> Box<dyn LoadBalancer> {
        let (gateways, workers, seed) = (setup.gateways, setup.workers, setup.seed);
        match self {
            Self::Paceline(settings) => {
                let settings = settings.beside(config);
                let settings = settings.on(&setup.servers, &setup.devices);
                Box::new(Gateways::new(settings, setup))
            }
            Self::Other(other) => match other {
                Other::EnvoyRoundRobin => Box::new(envoy::RoundRobin::new(gateways, workers, seed)),
                Other::EnvoyRandom => Box::new(envoy::Random::new(seed)),
                Other::EnvoyLeastRequest => {
                    Box::new(envoy::LeastRequest::new(Some(2), gateways, seed))
                }
                Other::EnvoyLeastRequestFullScan => {
                    Box::new(envoy::LeastRequest::new(None, gateways, seed))
                }
                Other::EnvoyLeastRequestEjecting => {
                    Box::new(envoy::Guarded::new(false, gateways, seed))
                }
                Other::EnvoyLeastRequestChecked => {
                    Box::new(envoy::Guarded::new(true, gateways, seed))
                }
                Other::TowerPeakEwma => Box::new(PeakEwma::new(gateways, seed)),
                Other::PrequalHcl => Box::new(Prequal::new(gateways, setup.calls.len(), seed)),
            },
            Self::Bound(bound) => {
                let oracle = |rule| {
                    let pace = setup.capacities.iter().map(|it| 1.0 / it).collect();
                    Box::new(Oracle::new(rule, MeanCall::of(&setup.calls), pace, seed))
                };
                match bound {
                    Bound::CentralQueue => Box::new(CentralQueue::new(seed)),
                    Bound::Clairvoyant => Box::new(Clairvoyant::new(seed)),
                    Bound::TrueWork => Box::new(TrueWork::new(seed)),
                    Bound::OwnDelay => oracle(Rule::OwnDelay),
                    Bound::AddedDelay => oracle(Rule::AddedDelay),
                    Bound::PaceTimesLoad => oracle(Rule::PaceTimesLoad),
                    Bound::PaceOfServing => oracle(Rule::PaceOfServing),
                }
            }
        }
    }

    /// Whether the policy makes sense of these servers.
    ///
    /// # Errors
    /// Says which server it has no use for, and why.
    pub fn check(&self, servers: &[ServerSpec]) -> Result<(), String> {
        let batching = |it: &&ServerSpec| matches!(it.kind, Kind::Batching(_));
        match (self, servers.iter().find(batching)) {
            (Self::Bound(Bound::TrueWork), Some(server)) => Err(format!(
                "{self}: {:?} is not allowed: only slot servers work at one request for a time of its own",
                server.name
            )),
            (Self::Bound(Bound::CentralQueue), Some(server)) => Err(format!(
                "{self}: {:?} is not allowed: only slot servers have a number of requests beyond which the others wait",
                server.name
            )),
            _ => Ok(()),
        }
    }
}

/// The policy's name, by which [`FromStr`] knows it again.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paceline(settings) => match settings.given() {
                Value::String(name) => write!(f, "paceline:{name}"),
                policy => write!(f, "paceline:{policy}"),
            },
            Self::Other(other) => f.write_str(other.name()),
            Self::Bound(bound) => f.write_str(bound.name()),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    /// Reads a name as [`Display`](fmt::Display) writes it. `paceline:` may be left out, and after it may stand what [`Settings`]
    /// are given as.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(other) = Other::ALL.into_iter().find(|other| other.name() == text) {
            return Ok(Self::Other(other));
        }
        if let Some(bound) = Bound::ALL.into_iter().find(|bound| bound.name() == text) {
            return Ok(Self::Bound(bound));
        }
        let own = text.strip_prefix("paceline:").unwrap_or(text);
        if own.contains(':') && !own.starts_with('{') {
            let others = Other::ALL.map(Other::name).join(", ");
            let bounds = Bound::ALL.map(Bound::name).join(", ");
            return Err(format!(
                "no policy is called {text:?}: allowed are {others}, {bounds}, and the filter's own such as paceline:shortest_expected_delay"
            ));
        }
        let policy = if own.starts_with('{') {
            serde_json::from_str(own).map_err(|error| format!("{own}: {error}"))?
        } else {
            Value::String(own.to_owned())
        };
        Self::paceline(policy)
    }
}

impl Policy {
    /// One of the filter's own, given as [`Settings`] are.
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub fn paceline(given: Value) -> Result<Self, String> {
        let settings = Settings::new(given)?;
        Ok(Self::Paceline(Box::new(settings)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let others = Other::ALL.map(Other::name);
        let bounds = Bound::ALL.map(Bound::name);
        let own = [
            "paceline:shortest_expected_delay",
            r#"paceline:{"choice_count":2,"name":"least_request"}"#,
        ];
        for name in others.iter().chain(&bounds).chain(&own) {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), *name);
        }
        assert_eq!(
            "round_robin".parse::<Policy>().unwrap().to_string(),
            "paceline:round_robin"
        );
    }

    #[test]
    fn what_is_no_policy_is_refused_with_what_is_allowed() {
        let error = |name: &str| name.parse::<Policy>().unwrap_err();
        assert!(error("envoy:maglev").contains("allowed are envoy:round_robin, "));
        assert!(error("paceline:best").contains("\"best\""));
        assert!(error(r#"{"name": "least_request", "choices": 2}"#).contains("choices"));
        assert!(error("{").contains("EOF"));
    }
}
