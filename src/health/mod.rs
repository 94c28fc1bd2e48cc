//! Whether upstreams are ready, found out by asking them.
//!
//! A server that is up may not be ready: it still loads its model. So a pool may have
//! a [health check](crate::config::HealthCheck), and then an upstream takes requests
//! from its first good answer on, and none after so many bad ones.
//!
//! One worker of the process asks for all: its [`Prober`]. The workers elect it by a
//! lease in a record of shared data ([`crate::state::health_record`]), which is also
//! where it tells the others what it has found out. A prober that stops renewing its
//! lease is replaced within [`LEASE`] and a tick. What it has told holds for
//! [`VOUCHED`]; if nobody has taken over by then, nothing is known any more, and all
//! upstreams of a pool of which none is known to be ready take requests.
//!
//! Each worker has a [`View`] of the record, for its picks. `targets` says what
//! there is to ask, [`Opinion`] turns results into readiness, and [`Verdict`] says
//! what an answer means.
//!
//! # Several configurations at once
//!
//! While an old configuration drains, or where several plugins have one name, several
//! configurations share the record. Each has a prober of its own. A row of the record,
//! what is known of one upstream by one check, belongs to one prober at a time, so
//! nothing is asked twice; the prober of another configuration takes over rows that
//! have lost theirs. A check that has changed starts with what the one before it has
//! found out.

mod opinion;
mod prober;
mod targets;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

use std::time::Duration;

pub use opinion::Opinion;
pub use prober::{Probed, Prober};
pub use verdict::{MAX_BODY, Verdict};
pub use view::{State, View};

/// A prober that has not renewed its lease for so long is replaced. Ticks come four
/// times a second, and a busy worker may miss some.
pub const LEASE: Duration = Duration::from_secs(2);

/// What a prober has found out holds for so long after its last heartbeat.
pub const VOUCHED: Duration = Duration::from_secs(10);

/// Where the record is, below the key of the workers' state.
const RECORD: &str = "/health/1";
