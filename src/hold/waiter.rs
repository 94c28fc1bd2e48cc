//! A request that waits, and where it stands among others.

use crate::state::Work;
use crate::time::Timestamp;

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waiter {
    /// Names it: the context of its stream. Of two with one name the second is
    /// refused.
    pub context: u32,
    /// Its priority class, 0 for the most important.
    pub class: usize,
    /// Tells its tenant apart: a hash, or 0 for requests without one.
    pub tenant: u64,
    /// The work expected of it: what its tenant is charged when it starts.
    pub work: Work,
    /// Its size in the pool's unit, if it is known.
    pub size: Option<f64>,
    /// Bytes of its body, as far as they are known.
    pub bytes: u32,
    /// When it began to wait.
    pub arrived: Timestamp,
    /// When it has waited enough: the end of the longest wait, or the last moment at
    /// which starting makes sense for its deadline.
    pub until: Timestamp,
}

impl Waiter {
    /// Its place among the waiters of its tenant.
    pub(super) fn turn(&self) -> Turn {
        Turn {
            until: self.until,
            arrived: self.arrived,
            context: self.context,
        }
    }
}

/// The order among the waiters of one tenant: the earliest deadline first, then the
/// first to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) until: Timestamp,
    pub(super) arrived: Timestamp,
    pub(super) context: u32,
}

/// Where a waiter stands; the least is first. Ranks of several workers can be
/// compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// 0 where its class is owed its guaranteed share, otherwise one more than the
    /// class.
    pub(super) level: u8,
    /// How much its tenant has had, as [`super::class`] counts it.
    pub(super) tag: u64,
    pub(super) until: Timestamp,
    pub(super) arrived: Timestamp,
}

/// Whether a waiter can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// What is free is enough for it.
    Fits,
    /// It could use what is free and needs more of it. Others may overtake it, but
    /// not for ever.
    Short,
    /// What is free is of no use for it, so it need not stand in the way of others.
    Elsewhere,
}

/// Why a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// As many wait as may.
    Full,
    /// The queue is full, and its tenant has more than its share of the places.
    Share,
    /// The queue fills, and its class is not the most important one.
    Early,
}
