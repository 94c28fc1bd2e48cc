use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::fleet_file::FleetError;
use super::step_cost::StepCost;

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
/// | `max_waiting` | requests that may wait (not counting those that run); more are refused with 503 | no bound |
/// | `model` | the model's name in the OpenAI-style API and in `/metrics` | `paceline-lab` |
/// | `port` | where it listens; not together with `count` | `lab serve --base-port` decides |
/// | `gpu` | batching: `h100`, `a100` or `a40`, see [`Gpu`](super::Gpu) | needed, or `step_ms` and `kv_tokens` |
/// | `step_ms` | batching: the coefficients of [`StepCost`], milliseconds | the GPU's |
/// | `kv_tokens` | batching: tokens that KV memory holds | the GPU's |
/// | `max_sequences` | batching: sequences that may run at a time | 256 |
/// | `token_budget` | batching: tokens computed in a step, at least `max_sequences` | 2048, or `max_sequences` if that is more |
/// | `slots` | slots: requests at a time | 1 |
/// | `service_ms` | slots: service time of a request that names none, see [`ServiceTime`] | 0.2 a prompt token and 20 an output token |
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    servers: Vec<ServerSpec>,
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

impl Fleet {
    pub(super) fn new(servers: Vec<ServerSpec>) -> Self {
        Self { servers }
    }

    /// So many servers like this fleet's, one after the other and again from the first; their numbers come before their names.
    pub fn repeated(&self, count: NonZeroUsize) -> Self {
        let servers = self.servers.iter().cycle().zip(1..=count.get());
        let numbered = |(server, number): (&ServerSpec, usize)| ServerSpec {
            name: format!("{number}-{}", server.name),
            port: None,
            ..server.clone()
        };
        Self::new(servers.map(numbered).collect())
    }

    /// The one server of that name.
    ///
    /// # Errors
    /// [`FleetError::NoServer`] if it has none.
    pub fn only(&self, name: &str) -> Result<Self, FleetError> {
        let mut servers = self.servers.iter();
        match servers.find(|server| server.name == name) {
            Some(server) => Ok(Self::new(vec![server.clone()])),
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
}
