//! Where an exchange is in its life.

use super::facts::Admission;
use crate::decision::{Considered, Demand, Reservation};
use crate::pool::PoolIndex;
use crate::request::Arriving;
use crate::state::Work;
use crate::time::Timestamp;

/// Where an exchange is in its life. Whatever it is, it ends once.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// Nothing has been decided.
    #[default]
    New,
    /// The request is paused until its body has come; so much of it has.
    AwaitsBody(Arriving),
    /// The request is paused until there is room for it.
    Held(Held),
    /// The request was answered here.
    Answered,
    /// The request went to an upstream.
    Sent(Sent),
    /// There is nothing to do any more: the request was left to the proxy, or it
    /// has ended.
    Left,
}

/// A request that waits for room.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) demand: Demand,
    pub(super) admission: Admission,
    pub(super) since: Timestamp,
    /// Why, for people.
    pub(super) reason: &'static str,
    /// What else people are told of it.
    pub(super) description: String,
}

/// A request that went to an upstream of a pool.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) pool: PoolIndex,
    pub(super) picked_at: Timestamp,
    /// The size that was known of it.
    pub(super) size: Option<f64>,
    /// The pool's upstreams are a cluster's endpoints.
    pub(super) is_to_endpoints: bool,
    /// Where it is counted; nowhere while the proxy chooses the endpoint, and once
    /// another route has it.
    pub(super) reservation: Option<Reservation>,
    pub(super) location: Location,
    /// What is known of it if the proxy's own route has it.
    pub(super) observed: Option<Box<Observed>>,
}

/// A request that took the proxy's own route, while Paceline watches.
#[derive(Debug)]
pub(super) struct Observed {
    /// What Paceline would have done.
    pub(super) considered: Option<Considered>,
    /// The work that was expected of it.
    pub(super) work: Work,
    /// Who was last seen to have it.
    pub(super) address: Option<String>,
}

/// Who serves the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Nobody has answered yet.
    Open,
    /// It is known, or nobody can know.
    Found,
    /// Another than the first that was tried, which failed.
    Moved,
}

impl Sent {
    /// A request that goes to an upstream of the pool.
    pub(super) fn new(pool: PoolIndex, is_to_endpoints: bool, picked_at: Timestamp) -> Self {
        Sent {
            pool,
            picked_at,
            size: None,
            is_to_endpoints,
            reservation: None,
            location: Location::Open,
            observed: None,
        }
    }
}
