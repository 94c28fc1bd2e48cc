//! What a simulated gateway runs with.

use std::collections::HashMap;

use paceline::config::{Config, ConfigError};
use paceline::estimate::Tuning;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::{DeviceSpec, ServerSpec};

/// What the filter is configured with, but for the upstreams, which the fleet gives; and the constants of its estimates.
///
/// Given as `policy` in the filter's configuration, a name or an object; the object may have four keys that are not the filter's own:
/// `config` with other keys of the configuration, for this policy alone, `max_in_flight` with the cap of each upstream, `devices`, `true`
/// if it knows the fleet's devices, and `tuning` with [constants](Tuning) that differ from the filter's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    given: Value,
    policy: Value,
    config: Map<String, Value>,
    max_in_flight: Option<Value>,
    knows_devices: bool,
    /// What it knows of them: their memory by name, and what each server takes.
    devices: Map<String, Value>,
    placements: HashMap<String, (String, Value)>,
    tuning: Tuning,
}

/// A stand-in for the servers of a fleet that is not known yet; no server can have this name.
pub(super) const ANY: &str = "any server";

/// Constants that differ from the filter's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningEntry {
    drift_per_sample: Option<f64>,
    drift_per_second: Option<f64>,
    evidence_needed: Option<f64>,
    full_evidence: Option<f64>,
    evidence_memory: Option<f64>,
    error_step: Option<f64>,
    error_decay_seconds: Option<f64>,
    refusal_window: Option<f64>,
    refusal_decay_seconds: Option<f64>,
    refusals_per_decay: Option<f64>,
    refusal_least: Option<f64>,
    refusal_deviations: Option<f64>,
    silent_seconds: Option<f64>,
    patience: Option<f64>,
    full_scan: Option<usize>,
    sample: Option<usize>,
    reread_seconds: Option<f64>,
    merge_seconds: Option<f64>,
}

impl TuningEntry {
    fn tuning(&self) -> Tuning {
        let filters = Tuning::DEFAULT;
        Tuning {
            drift_per_sample: self.drift_per_sample.unwrap_or(filters.drift_per_sample),
            drift_per_second: self.drift_per_second.unwrap_or(filters.drift_per_second),
            evidence_needed: self.evidence_needed.unwrap_or(filters.evidence_needed),
            full_evidence: self.full_evidence.unwrap_or(filters.full_evidence),
            evidence_memory: self.evidence_memory.unwrap_or(filters.evidence_memory),
            error_step: self.error_step.unwrap_or(filters.error_step),
            error_decay_seconds: self
                .error_decay_seconds
                .unwrap_or(filters.error_decay_seconds),
            refusal_window: self.refusal_window.unwrap_or(filters.refusal_window),
            refusal_decay_seconds: self
                .refusal_decay_seconds
                .unwrap_or(filters.refusal_decay_seconds),
            refusals_per_decay: self
                .refusals_per_decay
                .unwrap_or(filters.refusals_per_decay),
            refusal_least: self.refusal_least.unwrap_or(filters.refusal_least),
            refusal_deviations: self
                .refusal_deviations
                .unwrap_or(filters.refusal_deviations),
            silent_seconds: self.silent_seconds.unwrap_or(filters.silent_seconds),
            patience: self.patience.unwrap_or(filters.patience),
            full_scan: self.full_scan.unwrap_or(filters.full_scan),
            sample: self.sample.unwrap_or(filters.sample),
            reread_seconds: self.reread_seconds.unwrap_or(filters.reread_seconds),
            merge_seconds: self.merge_seconds.unwrap_or(filters.merge_seconds),
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
        let max_in_flight = own("max_in_flight");
        let knows_devices = match own("devices") {
            None => false,
            Some(Value::Bool(knows)) => knows,
            Some(other) => return Err(format!("devices: {other} is not allowed: true or false")),
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
            max_in_flight,
            knows_devices,
            devices: Map::new(),
            placements: HashMap::new(),
            tuning,
        };
        // Whether the gateway's requests may wait depends on whether it knows of devices.
        let settings = settings.on(&[], &[]);
        match settings.config(std::iter::once(ANY)) {
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

    /// These, with the devices of a fleet if they are to be known.
    #[must_use]
    pub fn on(mut self, servers: &[ServerSpec], devices: &[DeviceSpec]) -> Self {
        if !self.knows_devices {
            return self;
        }
        let memory = devices
            .iter()
            .map(|it| (it.name.clone(), json!(it.memory as f64)));
        self.devices = memory.collect();
        let placed = servers.iter().filter_map(|server| {
            let placement = server.placement?;
            let device = devices.get(placement.device)?.name.clone();
            let cost = placement.memory;
            let memory = json!({"base": cost.base, "per_size": cost.per_size});
            Some((server.name.clone(), (device, memory)))
        });
        self.placements = placed.collect();
        self.devices.insert(ANY.to_owned(), json!(1));
        let stand_in = (ANY.to_owned(), json!({"base": 1, "per_size": 1}));
        self.placements.insert(ANY.to_owned(), stand_in);
        self
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
        let mut devices = Map::new();
        let upstreams = servers.map(|name| {
            let mut upstream = Map::from_iter([("cluster".to_owned(), json!(name))]);
            if let Some(cap) = &self.max_in_flight {
                upstream.insert("max_in_flight".to_owned(), cap.clone());
            }
            if let Some((device, cost)) = self.placements.get(name) {
                upstream.insert("device".to_owned(), json!(device));
                upstream.insert("memory".to_owned(), cost.clone());
                if let Some(memory) = self.devices.get(device) {
                    let entry = json!({"name": device, "memory": memory});
                    devices.insert(device.clone(), entry);
                }
            }
            Value::Object(upstream)
        });
        let mut config = self.config.clone();
        config.insert("upstreams".to_owned(), upstreams.collect());
        if !devices.is_empty() {
            config.insert("devices".to_owned(), devices.into_values().collect());
        }
        config.insert("policy".to_owned(), self.policy.clone());
        Config::parse(Some(Value::Object(config).to_string().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fleet;

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
    fn devices_are_known_where_that_is_asked_for() {
        let fleet = Fleet::from_json(
            r#"{"devices": [{"name": "gpu-0", "memory": 9}, {"name": "gpu-1", "memory": 8}],
                "servers": [{"name": "a", "kind": "slots", "device": "gpu-1", "memory": {"base": 2, "per_size": 1}},
                            {"name": "b", "kind": "slots"}]}"#,
        )
        .unwrap();
        let config = |devices: bool| {
            let settings = read(&format!(
                r#"{{"name": "random", "devices": {devices}, "config": {{"request_size": {{"header": "x-size"}}}}}}"#
            ))?;
            let settings = settings.on(fleet.servers(), fleet.devices());
            let config = settings.config(["a", "b"].into_iter());
            config.map_err(|error| error.to_string())
        };
        let config = (config(true).unwrap(), config(false).unwrap_err());
        let device = &config.0.devices[0];
        assert_eq!((device.name.as_str(), device.memory), ("gpu-1", 8));
        let placements = config.0.pools[0].upstreams.iter().map(|it| &it.placement);
        let placements: Vec<_> = placements.collect();
        let placement = placements[0].as_ref().unwrap();
        assert_eq!(placement.memory.of(Some(3.0)), 5);
        assert_eq!(*placements[1], None);
        assert!(config.1.contains("request_size"), "{}", config.1);
        let error = read(r#"{"name": "random", "devices": 1}"#).unwrap_err();
        assert!(error.starts_with("devices: 1 is not allowed"), "{error}");
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
