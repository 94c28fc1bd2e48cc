//! Emulated model servers as pure state machines: no clock, no threads, no I/O.
//!
//! A [`Server`] is told what happens (`arrive`, `cancel`, `control`) and how late
//! it is (`advance`), and appends to a list what came of it ([`Event`]). The real-time
//! servers of [`crate::serve`] and a simulator at virtual time drive the same code:
//!
//! ```
//! use lab::model::{EventKind, Fleet, Job, JobId, Server, Time};
//!
//! let fleet = Fleet::preset("equal8").unwrap();
//! let mut server = Server::new(&fleet.servers()[0], 1);
//! let mut events = Vec::new();
//! server.arrive(Time::ZERO, Job::of_tokens(JobId(7), 1000, 50), &mut events).unwrap();
//! while let Some(time) = server.next_event() {
//!     server.advance(time, &mut events);
//! }
//! assert_eq!(events.last().unwrap().kind, EventKind::Done);
//! assert_eq!(events.last().unwrap().job, JobId(7));
//! ```
//!
//! Two kinds of server:
//!
//! - **slots** ([`SlotSpec`]): `k` jobs at a time, each alone on its slot for its service time,
//!   first come first served. Image generation, speech recognition, a CPU service.
//! - **batching** ([`BatchingSpec`]): an LLM engine with continuous batching. In each step every decoding
//!   sequence takes one token, chunks of waiting prompts fill what is left of the step's token budget,
//!   and the step takes as long as [`StepCost`] says. Sequences live in KV memory; when it overflows, the newest
//!   is preempted and computed again later.
//!
//! Servers may share a device with memory ([`DeviceSpec`]): when their requests take more than there is, all of them crash together.
//!
//! What a server can be told while it runs (slower, stopped, failing, reloading) is a [`Control`]. What a fleet
//! consists of is data, see [`Fleet`].

mod batching;
mod control;
mod device;
mod fleet;
mod fleet_file;
mod job;
mod outbox;
mod presets;
mod server;
mod slots;
mod step_cost;
mod time;
mod work_clock;

#[cfg(test)]
mod tests;

pub use control::{Condition, Control, ControlError, HealthAnswer, Loading, Mode};
pub use device::{DeviceSpec, Devices, MemoryCost, Placement};
pub use fleet::{BatchingSpec, Fleet, FleetError, Kind, ServerSpec, ServiceTime, SlotSpec};
pub use job::{Counters, Event, EventKind, Job, JobId, Load, LossReason, Refusal};
pub use server::Server;
pub use step_cost::{Gpu, StepCost};
pub use time::Time;
