//! The state that all workers of an Envoy process share.
//!
//! Shared data is a map of byte strings without expiry or deletion. It holds
//! three kinds of values:
//!
//! - **Counts**: what a worker has outstanding, in a [`lane`] that only this worker
//!   writes. [`lanes`] is one worker's own lane and its view of the others';
//!   [`directory`] lists the lanes and their owners.
//! - **Estimates**: one record ([`learned`]) of rows ([`rows`]) that
//!   describe themselves ([`layout`]), merged by all workers in batches.
//!   [`estimates`] is one worker's view of it.
//! - **What changes rarely or is large**: measured latencies
//!   ([`latency_record`]), discovered [`endpoints`], and what probes have found
//!   out ([`health_record`]), each under keys of its own.
//!
//! A value that several workers change, or that must be exact over all workers, is
//! a [`cell`], changed by compare-and-swap. No request of a default
//! configuration needs one; limits that a configuration asks for will.

pub mod budget;
pub mod cell;
pub mod codec;
pub mod directory;
pub mod endpoints;
pub mod entries;
pub mod estimates;
pub mod health_record;
pub mod lane;
pub mod lanes;
pub mod latency_record;
pub mod layout;
pub mod learned;
pub mod outstanding;
pub mod rows;
pub mod shares;

pub use budget::Budget;
pub use cell::StateError;
pub use estimates::Estimates;
pub use lanes::Lanes;
pub use latency_record::{LatencyRecord, Measure, SizeClass};
pub use outstanding::{Job, Outstanding, Work};
pub use rows::{DecodedMember, MemberState, PoolState};

/// Version of the format of shared state, and part of every key. It changes
/// only if workers of two versions could not understand each other; a new
/// field of a row or a lane does not change it.
pub const FORMAT: u16 = 5;
