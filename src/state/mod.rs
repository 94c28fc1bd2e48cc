//! The state that all workers of an Envoy process share.
//!
//! One record in the host's shared data holds what every worker must agree on:
//! what is outstanding at each upstream, and what has been learned of it. A
//! record is read, changed and written back as one compare-and-swap
//! transaction ([`transaction`]), so a pick and its count cannot be torn apart
//! and two workers never act on the same stale count.
//!
//! - [`record`]: the bytes. Fixed-width rows, edited in place.
//! - [`rows`]: what one row means: a member's estimates, a pool's totals.
//! - [`outstanding`]: what is outstanding at an upstream, in requests and work.
//! - [`endpoints`]: the bytes of the list of discovered endpoints, which has a key
//!   of its own.
//! - [`ledger`]: one worker's view of the record: where its members stand in
//!   it, its lane, and what it has in flight.

pub mod endpoints;
pub mod latency_record;
pub mod ledger;
pub mod outstanding;
pub mod record;
pub mod rows;
pub mod transaction;

pub use latency_record::{LatencyRecord, Measure, SizeClass};
pub use ledger::{Ledger, View};
pub use outstanding::{Outstanding, Work};
pub use rows::{MemberState, PoolState};
pub use transaction::{Committed, StateError};

/// Version of the record's layout and meaning. It is part of the record's key,
/// so that a worker never reads what another version wrote.
pub const SCHEMA_VERSION: u16 = 4;
