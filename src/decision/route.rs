//! A request's way through a decision: what it asks, and where it is sent.

use super::Explanation;
use crate::config::LatencySignal;
use crate::estimate::AtPick;
use crate::pool::{Handle, MemberIndex};
use crate::state::Work;
use crate::time::Timestamp;

/// What is known of a request before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Which pool serves it.
    pub pool: usize,
    /// Its size, in whatever unit the pool measures requests: bytes, tokens,
    /// pixels. `None` where the request does not tell; a size that is negative
    /// or not a number counts as that.
    pub size: Option<f64>,
}

/// A place that is counted for one request until it is given to
/// [`Balancer::release`](super::Balancer::release), which must happen exactly once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is dropped is never released"]
pub struct Reservation {
    /// Which member was picked.
    pub member: Handle,
    /// Which upstream that is.
    pub upstream: Handle,
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
}

impl Reservation {
    /// What is reserved: the work that was expected of the request.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
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
    /// Transactions that had to be tried again.
    pub retries: u32,
}
