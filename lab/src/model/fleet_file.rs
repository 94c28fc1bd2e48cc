//! The JSON form of a fleet: read strictly, then checked key by key.

use std::collections::HashSet;
use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::control::{SPEEDS, service_unavailable};
use super::device::{DeviceSpec, MemoryCost, Placement};
use super::fleet::{BatchingSpec, Fleet, FleetError, Kind, ServerSpec, ServiceTime, SlotSpec};
use super::step_cost::{Gpu, StepCost};
use crate::json;

impl Fleet {
    /// The preset of that name, or else the fleet in that file.
    ///
    /// # Errors
    /// If it is neither, or the file is no fleet: names the place, the value and what is allowed.
    pub fn load(preset_or_path: &str) -> Result<Self, FleetError> {
        if let Some(fleet) = Self::preset(preset_or_path) {
            return Ok(fleet);
        }
        let path = Path::new(preset_or_path);
        let json = std::fs::read_to_string(path).map_err(|source| FleetError::Read {
            path: path.to_owned(),
            source,
            presets: Self::PRESETS.map(|(name, _)| name).join(", "),
        })?;
        Self::from_json(&json)
    }

    /// Reads the JSON form that is described at [`Fleet`].
    ///
    /// # Errors
    /// Names the place, the value and what is allowed.
    pub fn from_json(json: &str) -> Result<Self, FleetError> {
        let file: FleetFile = json::from_slice(json.as_bytes())?;
        file.check()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetFile {
    servers: Vec<ServerEntry>,
    #[serde(default)]
    devices: Vec<DeviceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: String,
    memory: f64,
    #[serde(default = "reload_seconds")]
    reload_seconds: f64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MemoryEntry {
    base: f64,
    per_size: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerEntry {
    name: String,
    kind: KindName,
    count: Option<NonZeroUsize>,
    #[serde(default = "one")]
    speed: f64,
    max_waiting: Option<usize>,
    #[serde(default = "service_unavailable")]
    full_status: u16,
    #[serde(default = "default_model")]
    model: String,
    port: Option<u16>,
    device: Option<String>,
    memory: Option<MemoryEntry>,
    gpu: Option<Gpu>,
    step_ms: Option<StepCost>,
    kv_tokens: Option<NonZeroU32>,
    max_sequences: Option<NonZeroUsize>,
    token_budget: Option<NonZeroUsize>,
    slots: Option<NonZeroUsize>,
    service_ms: Option<ServiceMillis>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Slots,
    Batching,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServiceMillis {
    base: f64,
    per_prompt_token: f64,
    per_output_token: f64,
}

const fn one() -> f64 {
    1.0
}

/// About what a model of some billion weights takes.
const fn reload_seconds() -> f64 {
    20.0
}

/// The model's name where the fleet gives none.
pub(super) fn default_model() -> String {
    "paceline-lab".to_owned()
}

pub(super) const DEFAULT_MAX_SEQUENCES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
pub(super) const DEFAULT_TOKEN_BUDGET: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2047);
const MAX_SERVERS: usize = 10_000;
/// The statuses with which model servers say that their queue is full.
const FULL: [u16; 2] = [429, 503];
const NAME: &str = "one or more of letters, digits, '-', '_' and '.'";
const MAX_BYTES: f64 = 1e15;

impl FleetFile {
    fn check(self) -> Result<Fleet, FleetError> {
        let devices = check_devices(self.devices)?;
        let mut servers = Vec::new();
        let mut names = HashSet::new();
        for (index, entry) in self.servers.into_iter().enumerate() {
            let at = |key: &str| format!("servers[{index}].{key}");
            let count = entry.count.map_or(1, NonZeroUsize::get);
            if servers.len().saturating_add(count) > MAX_SERVERS {
                return Err(refused(at("count"), count, "10000 servers at most"));
            }
            let name = entry.name.clone();
            let counted = entry.count.is_some();
            let spec = entry.check(&devices, &at)?;
            for number in 1..=count {
                let name = if counted {
                    format!("{name}-{number}")
                } else {
                    name.clone()
                };
                if !names.insert(name.clone()) {
                    return Err(refused(
                        at("name"),
                        quoted(&name),
                        "no two servers may be of one name",
                    ));
                }
                servers.push(ServerSpec {
                    name,
                    ..spec.clone()
                });
            }
        }
        if servers.is_empty() {
            return Err(refused("servers", "[]", "a fleet has at least one server"));
        }
        Ok(Fleet::new(servers, devices))
    }
}

impl ServerEntry {
    fn check(
        self,
        devices: &[DeviceSpec],
        at: &dyn Fn(&str) -> String,
    ) -> Result<ServerSpec, FleetError> {
        if !is_name(&self.name) {
            return Err(refused(at("name"), quoted(&self.name), NAME));
        }
        if !SPEEDS.contains(&self.speed) {
            return Err(refused(at("speed"), self.speed, "0.001 to 1000"));
        }
        if !FULL.contains(&self.full_status) {
            return Err(refused(at("full_status"), self.full_status, "429 or 503"));
        }
        if self.model.is_empty() || self.model.bytes().any(|byte| byte.is_ascii_control()) {
            let allowed = "a name without control characters";
            return Err(refused(at("model"), quoted(&self.model), allowed));
        }
        if let (Some(port), Some(_)) = (self.port, self.count) {
            let allowed = "not together with `count`, servers cannot share a port";
            return Err(refused(at("port"), port, allowed));
        }
        let kind = match self.kind {
            KindName::Slots => Kind::Slots(self.slot_spec(at)?),
            KindName::Batching => Kind::Batching(self.batching_spec(at)?),
        };
        let placement = self.placement(devices, at)?;
        Ok(ServerSpec {
            name: self.name,
            model: self.model,
            port: self.port,
            speed: self.speed,
            max_waiting: self.max_waiting,
            full_status: self.full_status,
            placement,
            kind,
        })
    }

    fn placement(
        &self,
        devices: &[DeviceSpec],
        at: &dyn Fn(&str) -> String,
    ) -> Result<Option<Placement>, FleetError> {
        let (name, memory) = match (&self.device, &self.memory) {
            (None, None) => return Ok(None),
            (Some(name), Some(memory)) => (name, memory),
            (Some(_), None) => {
                let allowed = "with `device`, what a request takes of its memory";
                return Err(refused(at("memory"), "nothing", allowed));
            }
            (None, Some(_)) => {
                let allowed = "with `memory`, the device that it is taken of";
                return Err(refused(at("device"), "nothing", allowed));
            }
        };
        let device = devices.iter().position(|device| device.name == *name);
        let device = device
            .ok_or_else(|| refused(at("device"), quoted(name), "the name of one of `devices`"))?;
        let MemoryEntry { base, per_size } = *memory;
        for (key, bytes) in [("base", base), ("per_size", per_size)] {
            if !(0.0..=MAX_BYTES).contains(&bytes) {
                let path = at(&format!("memory.{key}"));
                return Err(refused(path, bytes, "0 to 1e15 bytes"));
            }
        }
        let memory = MemoryCost { base, per_size };
        Ok(Some(Placement { device, memory }))
    }

    fn slot_spec(&self, at: &dyn Fn(&str) -> String) -> Result<SlotSpec, FleetError> {
        let foreign = [
            ("gpu", self.gpu.is_some()),
            ("step_ms", self.step_ms.is_some()),
            ("kv_tokens", self.kv_tokens.is_some()),
            ("max_sequences", self.max_sequences.is_some()),
            ("token_budget", self.token_budget.is_some()),
        ];
        refuse_foreign(&foreign, "batching", at)?;
        let service = match self.service_ms {
            None => ServiceTime::default(),
            Some(millis) => ServiceTime {
                base: duration(millis.base, || at("service_ms.base"))?,
                per_prompt_token: duration(millis.per_prompt_token, || {
                    at("service_ms.per_prompt_token")
                })?,
                per_output_token: duration(millis.per_output_token, || {
                    at("service_ms.per_output_token")
                })?,
            },
        };
        Ok(SlotSpec {
            slots: self.slots.unwrap_or(NonZeroUsize::MIN),
            service,
        })
    }

    fn batching_spec(&self, at: &dyn Fn(&str) -> String) -> Result<BatchingSpec, FleetError> {
        let foreign = [
            ("slots", self.slots.is_some()),
            ("service_ms", self.service_ms.is_some()),
        ];
        refuse_foreign(&foreign, "slots", at)?;
        if self.max_waiting == Some(0) {
            let allowed = "1 or more: a request waits for the next step at least";
            return Err(refused(at("max_waiting"), 0, allowed));
        }
        let (cost, kv_tokens) = match (self.gpu, self.step_ms) {
            (Some(gpu), None) => (gpu.step_cost(), self.kv_tokens.or(Some(gpu.kv_tokens()))),
            (None, Some(cost)) => (check_cost(cost, at)?, self.kv_tokens),
            (Some(gpu), Some(_)) => {
                let allowed = "either `gpu` or `step_ms`";
                return Err(refused(at("gpu"), quoted(gpu.name()), allowed));
            }
            (None, None) => {
                let allowed = "one of \"h100\", \"a100\", \"a40\", or `step_ms` and `kv_tokens`";
                return Err(refused(at("gpu"), "nothing", allowed));
            }
        };
        let kv_tokens = kv_tokens.ok_or_else(|| {
            refused(
                at("kv_tokens"),
                "nothing",
                "`step_ms` says no KV memory, give it too",
            )
        })?;
        let max_sequences = self.max_sequences.unwrap_or(DEFAULT_MAX_SEQUENCES);
        let token_budget = self
            .token_budget
            .unwrap_or(DEFAULT_TOKEN_BUDGET.max(max_sequences));
        if token_budget < max_sequences {
            let allowed = format!("`max_sequences` ({max_sequences}) or more, or prefills starve");
            return Err(refused(at("token_budget"), token_budget, allowed));
        }
        Ok(BatchingSpec {
            cost,
            kv_tokens,
            max_sequences,
            token_budget,
        })
    }
}

fn check_devices(entries: Vec<DeviceEntry>) -> Result<Vec<DeviceSpec>, FleetError> {
    let mut devices: Vec<DeviceSpec> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let at = |key: &str| format!("devices[{index}].{key}");
        let DeviceEntry {
            name,
            memory,
            reload_seconds,
        } = entry;
        if !is_name(&name) {
            return Err(refused(at("name"), quoted(&name), NAME));
        }
        if devices.iter().any(|other| other.name == name) {
            let allowed = "no two devices may be of one name";
            return Err(refused(at("name"), quoted(&name), allowed));
        }
        if !(1.0..=MAX_BYTES).contains(&memory) {
            return Err(refused(at("memory"), memory, "1 to 1e15 bytes"));
        }
        if !(0.0..=86_400.0).contains(&reload_seconds) {
            return Err(refused(at("reload_seconds"), reload_seconds, "0 to 86400"));
        }
        devices.push(DeviceSpec {
            name,
            memory: memory as u64,
            reload: Duration::from_secs_f64(reload_seconds),
        });
    }
    Ok(devices)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

fn check_cost(cost: StepCost, at: &dyn Fn(&str) -> String) -> Result<StepCost, FleetError> {
    let StepCost {
        b0,
        b1,
        c0,
        c1,
        k,
        h,
    } = cost;
    let named = [
        ("b0", b0),
        ("b1", b1),
        ("c0", c0),
        ("c1", c1),
        ("k", k),
        ("h", h),
    ];
    for (name, value) in named {
        if !(0.0..=1e6).contains(&value) {
            let path = at(&format!("step_ms.{name}"));
            return Err(refused(path, value, "0 to 1000000 milliseconds"));
        }
    }
    Ok(cost)
}

fn duration(millis: f64, path: impl FnOnce() -> String) -> Result<Duration, FleetError> {
    if (0.0..=1e9).contains(&millis) {
        Ok(Duration::from_secs_f64(millis / 1e3))
    } else {
        Err(refused(path(), millis, "0 to 1000000000 milliseconds"))
    }
}

fn refuse_foreign(
    keys: &[(&str, bool)],
    kind: &str,
    at: &dyn Fn(&str) -> String,
) -> Result<(), FleetError> {
    match keys.iter().find(|(_, present)| *present) {
        Some((key, _)) => {
            let allowed = format!("only servers of kind \"{kind}\" have it");
            Err(refused(at(key), "this key", allowed))
        }
        None => Ok(()),
    }
}

fn refused(path: impl Into<String>, value: impl Display, allowed: impl Into<String>) -> FleetError {
    FleetError::Value {
        path: path.into(),
        value: value.to_string(),
        allowed: allowed.into(),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
