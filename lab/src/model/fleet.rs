use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::device::{DeviceSpec, Placement};
use super::step_cost::StepCost;
use crate::json::JsonError;

/// The servers of an emulated deployment, as data: a preset or a file.
///
/// # File format
///
/// JSON. Unknown keys, wrong types and values out of range are refused with the path of the place.
///
/// ```
/// let fleet = lab::model::Fleet::from_json(r#"{
///   "servers": [
///     { "name": "h100", "kind": "batching", "gpu": "h100" },
///     { "name": "old", "count": 4, "kind": "batching", "gpu": "a40", "speed": 0.9, "kv_tokens": 100000,
///       "max_sequences": 128, "token_budget": 2048, "max_waiting": 500, "model": "llama-8b" },
///     { "name": "mine", "kind": "batching", "kv_tokens": 200000,
///       "step_ms": { "b0": 9.8, "b1": 0.02, "c0": 6.9, "c1": 0.0669, "k": 0.00008, "h": 3.0 } },
///     { "name": "painter", "kind": "slots", "slots": 2, "port": 9001,
///       "service_ms": { "base": 500, "per_prompt_token": 0, "per_output_token": 20 } }
///   ]
/// }"#).unwrap();
/// assert_eq!(fleet.servers().len(), 7);
/// assert_eq!(fleet.servers()[1].name, "old-1");
/// ```
///
/// | key | meaning | default |
/// |---|---|---|
/// | `name` | letters, digits, `-`, `_`, `.`; no two alike | needed |
/// | `count` | so many servers, named `name-1`, `name-2`, ... | one, named `name` |
/// | `kind` | `batching` (an LLM engine) or `slots` (so many requests at a time) | needed |
/// | `speed` | factor on the speed of all it does, 0.001 to 1000 | 1 |
/// | `max_waiting` | requests that may wait (not counting those that run); more are refused | no bound |
/// | `full_status` | what more of them get: 429 or 503 | 503 |
/// | `model` | the model's name in the OpenAI-style API and in `/metrics` | `paceline-lab` |
/// | `port` | where it listens; not together with `count` | `lab serve --base-port` decides |
/// | `gpu` | batching: `h100`, `a100` or `a40`, see [`Gpu`](super::Gpu) | needed, or `step_ms` and `kv_tokens` |
/// | `step_ms` | batching: the coefficients of [`StepCost`], milliseconds | the GPU's |
/// | `kv_tokens` | batching: tokens that KV memory holds | the GPU's |
/// | `max_sequences` | batching: sequences that may run at a time | 256 |
/// | `token_budget` | batching: tokens computed in a step, at least `max_sequences` | 2048, or `max_sequences` if that is more |
/// | `slots` | slots: requests at a time | 1 |
/// | `device` | the device of `devices` that its requests take memory of | none |
/// | `memory` | what each takes while it runs, `{ "base": BYTES, "per_size": BYTES }`: `base + per_size x size`, each 0 without it. The size is what the header `x-request-size` says, or else the prompt's tokens | needed with `device` |
/// | `service_ms` | slots: service time of a request that names none, see [`ServiceTime`] | 0.2 a prompt token and 20 an output token |
///
/// # Devices
///
/// Servers that share a GPU share its memory. When their running requests together take more than there is, all of them run out of
/// memory at the same time: they crash, so that running and waiting requests are reset, and load their models again, answering 503.
///
/// ```
/// let fleet = lab::model::Fleet::from_json(r#"{
///   "devices": [ { "name": "gpu-0", "memory": 4.0e10, "reload_seconds": 20 } ],
///   "servers": [
///     { "name": "chat", "kind": "batching", "gpu": "a100", "device": "gpu-0", "memory": { "base": 2.0e8, "per_size": 1.5e5 } },
///     { "name": "images", "kind": "slots", "slots": 8, "device": "gpu-0", "memory": { "base": 6.0e9 } }
///   ]
/// }"#).unwrap();
/// assert_eq!(fleet.devices()[0].memory, 40_000_000_000);
/// ```
///
/// | key | meaning | default |
/// |---|---|---|
/// | `name` | as a server's | needed |
/// | `memory` | bytes that the requests of its servers may take together, 1 to 1e15 | needed |
/// | `reload_seconds` | how long its servers load after they ran out of memory, 0 to 86400 | 20 |
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    servers: Vec<ServerSpec>,
    devices: Vec<DeviceSpec>,
}

/// One server of a [`Fleet`].
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSpec {
    /// Its name, unique in the fleet.
    pub name: String,
    /// The model that it serves.
    pub model: String,
    /// Where it listens; `None` leaves that to who starts it.
    pub port: Option<u16>,
    /// Factor on the speed of all it does.
    pub speed: f64,
    /// Requests that may wait; `None` is no bound.
    pub max_waiting: Option<usize>,
    /// The HTTP status of what it refuses because more wait: 429 or 503.
    pub full_status: u16,
    /// The device that its requests take memory of, if it shares one.
    pub placement: Option<Placement>,
    /// What kind of server it is.
    pub kind: Kind,
}

/// The kinds of servers.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// So many jobs at a time.
    Slots(SlotSpec),
    /// Continuous batching.
    Batching(BatchingSpec),
}

impl Kind {
    /// Its name in fleet files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slots(_) => "slots",
            Self::Batching(_) => "batching",
        }
    }
}

/// A server that works at so many jobs at a time, first come first served.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSpec {
    /// Jobs at a time.
    pub slots: NonZeroUsize,
    /// How long a job takes that does not say so itself.
    pub service: ServiceTime,
}

/// The service time of a job on a slot of speed 1, from its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// What each job takes.
    pub base: Duration,
    /// What each prompt token adds.
    pub per_prompt_token: Duration,
    /// What each output token adds.
    pub per_output_token: Duration,
}

impl ServiceTime {
    /// The service time of a job of so many tokens.
    pub fn of(&self, prompt_tokens: u32, output_tokens: u32) -> Duration {
        let prompt = self.per_prompt_token.saturating_mul(prompt_tokens);
        let output = self.per_output_token.saturating_mul(output_tokens);
        self.base.saturating_add(prompt).saturating_add(output)
    }
}

/// An LLM engine that serves one request at a time: 0.2 ms a prompt token, 20 ms an output token.
impl Default for ServiceTime {
    fn default() -> Self {
        Self {
            base: Duration::ZERO,
            per_prompt_token: Duration::from_micros(200),
            per_output_token: Duration::from_millis(20),
        }
    }
}

/// A continuous-batching engine.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchingSpec {
    /// What a step costs.
    pub cost: StepCost,
    /// Tokens that KV memory holds.
    pub kv_tokens: NonZeroU32,
    /// Sequences that may run at a time.
    pub max_sequences: NonZeroUsize,
    /// Tokens computed in a step at most; counts as `max_sequences` if less, or prefills could starve.
    pub token_budget: NonZeroUsize,
}

/// A fleet that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Neither a preset nor a file that can be read.
    #[error(
        "fleet {}: {source}; give a JSON file or one of the presets {presets}",
        path.display()
    )]
    Read {
        /// What was asked for.
        path: PathBuf,
        /// Why the file cannot be read.
        source: std::io::Error,
        /// The presets there are.
        presets: String,
    },
    /// Not such an object.
    #[error(transparent)]
    Syntax(#[from] JsonError),
    /// A name that no server of the fleet has.
    #[error("{name:?}: no such server in the fleet; it has {names}")]
    NoServer {
        /// What was asked for.
        name: String,
        /// The servers there are.
        names: String,
    },
    /// A value, or its absence, that is not allowed.
    #[error("{path}: {value} is not allowed: {allowed}")]
    Value {
        /// The JSON path of the place.
        path: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl Fleet {
    pub(super) fn new(servers: Vec<ServerSpec>, devices: Vec<DeviceSpec>) -> Self {
        Self { servers, devices }
    }

    /// So many servers like this fleet's, one after the other and again from the first; their numbers come before their names. Each
    /// time that it begins again, it does so on further devices.
    pub fn repeated(&self, count: NonZeroUsize) -> Self {
        let servers = self.servers.iter().cycle().zip(1..=count.get());
        let round = |number: usize| (number - 1) / self.servers.len();
        let numbered = |(server, number): (&ServerSpec, usize)| ServerSpec {
            name: format!("{number}-{}", server.name),
            port: None,
            placement: server.placement.map(|placement| Placement {
                device: placement.device + round(number) * self.devices.len(),
                ..placement
            }),
            ..server.clone()
        };
        let rounds = 1..=round(count.get()) + 1;
        let devices = rounds.flat_map(|round| {
            let devices = self.devices.iter();
            devices.map(move |device| DeviceSpec {
                name: format!("{round}-{}", device.name),
                ..device.clone()
            })
        });
        Self::new(servers.map(numbered).collect(), devices.collect())
    }

    /// The one server of that name.
    ///
    /// # Errors
    /// [`FleetError::NoServer`] if it has none.
    pub fn only(&self, name: &str) -> Result<Self, FleetError> {
        let mut servers = self.servers.iter();
        match servers.find(|server| server.name == name) {
            Some(server) => Ok(Self::new(vec![server.clone()], self.devices.clone())),
            None => Err(FleetError::NoServer {
                name: name.to_owned(),
                names: self
                    .servers
                    .iter()
                    .map(|server| &*server.name)
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Its servers; never none, no two of one name.
    pub fn servers(&self) -> &[ServerSpec] {
        &self.servers
    }

    /// Where each of them keeps its requests, in their order.
    pub fn placements(&self) -> impl Iterator<Item = Option<Placement>> + '_ {
        self.servers.iter().map(|server| server.placement)
    }

    /// The devices that some of them share; no two of one name.
    pub fn devices(&self) -> &[DeviceSpec] {
        &self.devices
    }
}
