//! A request's way through a decision: what it asks, and where it is sent.

use std::time::Duration;

use super::Explanation;
use super::capacity::Claim;
use crate::config::LatencySignal;
use crate::estimate::AtPick;
use crate::pool::{MemberHandle, MemberIndex, PoolIndex, UpstreamHandle};
use crate::state::{Job, Work};
use crate::time::Timestamp;

/// What is known of a request before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Which pool serves it.
    pub pool: PoolIndex,
    /// Its size, in whatever unit the pool measures requests: bytes, tokens,
    /// pixels. `None` where the request does not tell; a size that is negative
    /// or not a number counts as that.
    pub size: Option<f64>,
    /// By when it must be done, if it has a deadline.
    pub due: Option<Timestamp>,
    /// How many requests of the pool wait for room on all workers, this one included; 0
    /// where none does.
    pub waiting: u32,
    /// For how long it has waited.
    pub waited: Duration,
}

/// A place that is counted for one request until it is given to
/// [`Balancer::release`](super::Balancer::release), which must happen exactly once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is dropped is never released"]
pub struct Reservation {
    /// Which member was picked.
    pub member: MemberHandle,
    /// Which upstream that is.
    pub upstream: UpstreamHandle,
    /// When.
    pub picked_at: Timestamp,
    /// What was outstanding at the upstream at that moment.
    pub(super) at_pick: AtPick,
    /// What is taken for its latency.
    pub signal: LatencySignal,
    /// What is reserved there: the work that was expected of the request.
    pub(super) work: Work,
    /// The size that told that.
    pub(super) size: Option<f64>,
    /// Seconds that it was expected to take, where it has a deadline.
    pub(super) expected: Option<f64>,
    /// What was taken of limits; nothing where there are none.
    pub(super) claims: Vec<Claim>,
}

impl Reservation {
    /// What is reserved: the work that was expected of the request.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// What is counted at the upstream.
    pub(super) fn job(&self) -> Job {
        Job {
            work: self.work,
            picked_at: self.picked_at,
        }
    }
}

/// A pick that has been counted.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// What to give back when the request ends.
    pub reservation: Reservation,
    /// Which member was picked, in the topology of this moment.
    pub member: MemberIndex,
    /// Whom to try after it, in that order: for pools of endpoints.
    pub alternatives: Vec<MemberIndex>,
    /// Why this one, for people.
    pub explanation: Explanation,
    /// Requests in flight at the upstream, this one included.
    pub in_flight: u64,
}
