//! What a simulated gateway runs with.

use paceline::config::{Config, ConfigError};
use paceline::estimate::Tuning;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What the filter is configured with, but for the upstreams, which the fleet gives; and the constants of its estimates.
///
/// Given as `policy` in the filter's configuration, a name or an object; the object may have two keys that are not the filter's own:
/// `config` with other keys of the configuration, for this policy alone, and `tuning` with [constants](Tuning) that differ from the filter's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    given: Value,
    policy: Value,
    config: Map<String, Value>,
    tuning: Tuning,
}

/// Constants that differ from the filter's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningEntry {
    drift_per_sample: Option<f64>,
    drift_per_second: Option<f64>,
    error_step: Option<f64>,
    error_decay_seconds: Option<f64>,
    silent_seconds: Option<f64>,
    full_scan: Option<usize>,
    sample: Option<usize>,
}

impl TuningEntry {
    fn tuning(&self) -> Tuning {
        let filters = Tuning::DEFAULT;
        Tuning {
            drift_per_sample: self.drift_per_sample.unwrap_or(filters.drift_per_sample),
            drift_per_second: self.drift_per_second.unwrap_or(filters.drift_per_second),
            error_step: self.error_step.unwrap_or(filters.error_step),
            error_decay_seconds: self
                .error_decay_seconds
                .unwrap_or(filters.error_decay_seconds),
            silent_seconds: self.silent_seconds.unwrap_or(filters.silent_seconds),
            full_scan: self.full_scan.unwrap_or(filters.full_scan),
            sample: self.sample.unwrap_or(filters.sample),
        }
    }
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// As the filter refuses it, or the constant that is none.
    pub fn new(given: Value) -> Result<Self, String> {
        let mut policy = given.clone();
        let mut own = |key: &str| policy.as_object_mut().and_then(|it| it.remove(key));
        let config = match own("config") {
            None => Map::new(),
            Some(Value::Object(config)) => config,
            Some(other) => {
                return Err(format!(
                    "config: {other} is not allowed: an object with keys of the filter's configuration"
                ));
            }
        };
        let tuning = match own("tuning") {
            None => Tuning::DEFAULT,
            Some(tuning) => TuningEntry::deserialize(tuning)
                .map_err(|error| format!("tuning: {error}"))?
                .tuning(),
        };
        let settings = Self {
            given,
            policy,
            config,
            tuning,
        };
        match settings.config(std::iter::once("any")) {
            Ok(_) => Ok(settings),
            Err(error) => Err(error.to_string()),
        }
    }

    /// These, and further keys of the filter's configuration where they have none of that name.
    #[must_use]
    pub fn beside(&self, further: &Map<String, Value>) -> Self {
        let mut config = further.clone();
        config.extend(self.config.clone());
        Self {
            config,
            ..self.clone()
        }
    }

    /// As they were given.
    pub fn given(&self) -> &Value {
        &self.given
    }

    /// The constants.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// The configuration for a pool of the servers of these names.
    ///
    /// # Errors
    /// As the filter refuses it.
    pub fn config<'a>(
        &self,
        servers: impl Iterator<Item = &'a str>,
    ) -> Result<Config, ConfigError> {
        let upstreams = servers.map(|name| json!({"cluster": name}));
        let mut config = self.config.clone();
        config.insert("upstreams".to_owned(), upstreams.collect());
        config.insert("policy".to_owned(), self.policy.clone());
        Config::parse(Some(Value::Object(config).to_string().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        Settings::new(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn constants_and_further_keys_are_read_beside_the_policy() {
        let name = r#""name": "shortest_expected_delay""#;
        let settings = read(&format!(
            r#"{{{name}, "tuning": {{"sample": 16}}, "config": {{"lease": "5s"}}}}"#
        ))
        .unwrap();
        assert_eq!(settings.tuning().sample, 16);
        assert_eq!(settings.tuning().full_scan, Tuning::DEFAULT.full_scan);
        let further = serde_json::from_str(r#"{"lease": "7s"}"#).unwrap();
        let config = |settings: &Settings| settings.config(["a"].into_iter()).unwrap();
        assert_eq!(config(&settings.beside(&further)).lease.as_secs(), 5);
        let plain = read(r#""random""#).unwrap().beside(&further);
        assert_eq!(config(&plain).lease.as_secs(), 7);
    }

    #[test]
    fn what_is_none_is_refused() {
        let error = read(r#"{"name": "random", "tuning": {"drift": 1}}"#).unwrap_err();
        assert!(
            error.starts_with("tuning: unknown field `drift`"),
            "{error}"
        );
        let error = read(r#"{"name": "random", "config": 3}"#).unwrap_err();
        assert!(error.starts_with("config: 3 is not allowed"), "{error}");
        let error = read(r#"{"name": "random", "config": {"leese": "5s"}}"#).unwrap_err();
        assert!(error.contains("leese"), "{error}");
    }
}
