//! Requests that wait in the gateway until an upstream has room for them.
//!
//! A [`Queue`] has the waiters of one pool on one worker, in the order in which they are
//! to start:
//!
//! 1. by **priority class**, the most important first; but the lower ones together are
//!    guaranteed a tenth of the work that starts,
//! 2. by **tenant**, each getting the same share of the work that starts (`class`),
//! 3. by the moment at which it has waited enough, which is a **deadline**'s,
//! 4. by **arrival**.
//!
//! A waiter that needs more than is free may be overtaken by those that need less, but
//! only 16 times.
//!
//! How many may wait, with how many bytes, holds for all workers together. When there
//! are too many, the last of the least important class goes, from the tenant with the
//! most waiters; and requests of lower classes are refused with a rising probability
//! before that ([`Occupancy`]).
//!
//! Workers show each other a [`Notice`]: how much waits, the rank of the first waiter, and
//! what classes and tenants have been given. So whatever becomes free can go to the
//! first waiter of all workers, and shares hold over all of them. Notices need no
//! compare-and-swap: what was given only grows, and the highest number counts. What two
//! workers start within the same moment may count once; that is less than a request for
//! each.
//!
//! With `n` waiters of `t` tenants, at most 256 for each class, an operation compares
//! O(t + log n) of them.

mod class;
mod notice;
mod occupancy;
mod queue;
#[cfg(test)]
mod tests;
mod waiter;

pub use notice::Notice;
pub use occupancy::Occupancy;
pub use queue::{Next, Offered, Queue, Refused};
pub use waiter::{Cause, Fit, Rank, Waiter};
