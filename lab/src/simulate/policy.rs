use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::balancer::LoadBalancer;
use super::engine::Setup;
use super::envoy;
use super::paceline::{Gateways, Settings};

/// A policy to simulate: one of the filter's own, one of somebody else's, or a bound.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The filter's code, with this `policy` in its configuration.
    Paceline(Value),
    /// What somebody else has published, written for this simulator.
    Other(Other),
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
}

impl Other {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::EnvoyRoundRobin,
        Self::EnvoyRandom,
        Self::EnvoyLeastRequest,
        Self::EnvoyLeastRequestFullScan,
    ];

    /// Its name: whose it is, and how they call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EnvoyRoundRobin => "envoy:round_robin",
            Self::EnvoyRandom => "envoy:random",
            Self::EnvoyLeastRequest => "envoy:least_request",
            Self::EnvoyLeastRequestFullScan => "envoy:least_request_full_scan",
        }
    }
}

impl Policy {
    /// What balances the calls of `setup` by this policy; `config` is the rest of the filter's configuration.
    pub fn balancer(&self, setup: &Setup, config: &Map<String, Value>) -> Box<dyn LoadBalancer> {
        let (gateways, workers, seed) = (setup.gateways, setup.workers, setup.seed);
        match self {
            Self::Paceline(policy) => Box::new(Gateways::new(
                Settings::new(policy.clone(), config.clone()),
                gateways,
                workers,
                setup.calls.len(),
                seed,
            )),
            Self::Other(other) => match other {
                Other::EnvoyRoundRobin => Box::new(envoy::RoundRobin::new(gateways, workers, seed)),
                Other::EnvoyRandom => Box::new(envoy::Random::new(seed)),
                Other::EnvoyLeastRequest => {
                    Box::new(envoy::LeastRequest::new(Some(2), gateways, seed))
                }
                Other::EnvoyLeastRequestFullScan => {
                    Box::new(envoy::LeastRequest::new(None, gateways, seed))
                }
            },
        }
    }
}

/// The policy's name, by which [`FromStr`] knows it again.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paceline(Value::String(name)) => write!(f, "paceline:{name}"),
            Self::Paceline(policy) => write!(f, "paceline:{policy}"),
            Self::Other(other) => f.write_str(other.name()),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    /// Reads a name as [`Display`](fmt::Display) writes it. `paceline:` may be left out, and after it may stand what the
    /// filter's configuration has under `policy`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(other) = Other::ALL.into_iter().find(|other| other.name() == text) {
            return Ok(Self::Other(other));
        }
        let own = text.strip_prefix("paceline:").unwrap_or(text);
        if own.contains(':') && !own.starts_with('{') {
            let names = Other::ALL.map(Other::name).join(", ");
            return Err(format!(
                "no policy is called {text:?}: allowed are {names}, and the filter's own such as paceline:shortest_expected_delay"
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
    /// One of the filter's own, as its configuration has it under `policy`.
    ///
    /// # Errors
    /// As the filter refuses it.
    pub fn paceline(policy: Value) -> Result<Self, String> {
        let settings = Settings::new(policy.clone(), Map::new());
        match settings.config(std::iter::once("any")) {
            Ok(_) => Ok(Self::Paceline(policy)),
            Err(error) => Err(error.to_string()),
        }
    }
}
