//! What happens to a fleet, and what users should see of it.

use std::ops::Range;
use std::time::Duration;

use super::contender::{Contender, Setup};
use crate::model::{Control, Fleet};
use crate::workload::Workload;

/// Servers, the load on them, what happens to them, and what is asked of the balancing.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What happens, in the words of the table.
    pub what: String,
    /// The servers. Where one [joins](Event::Join), it is the last.
    pub fleet: Fleet,
    /// What they are asked.
    pub workload: Workload,
    /// Requests a second.
    pub rate: f64,
    /// How long requests come.
    pub span: Duration,
    /// After how long a client gives a request up.
    pub patience: Duration,
    /// Who balances; Paceline is always one of them.
    pub contenders: Vec<Contender>,
    /// With which features.
    pub setup: Setup,
    /// What happens when, from the first request on, in the order of time.
    pub events: Vec<(Duration, Event)>,
    /// What is asked.
    pub check: Check,
}

/// Something that happens to a fleet.
#[derive(Clone, Debug)]
pub enum Event {
    /// A server, by its number from 0, is told how to be.
    Tell(usize, Control),
    /// The last server becomes one of those that are balanced, by a change of Envoy's configuration.
    Join,
}

/// What is asked of Paceline.
#[derive(Clone, Debug)]
pub enum Check {
    /// Of the requests due `during` that time, at least this share is answered with success within the limit.
    Within {
        /// When they are due.
        during: Range<Duration>,
        /// From when they are due.
        limit: Duration,
        /// 0 to 1.
        share: f64,
    },
    /// Of the requests due `during` that time, at most a tenth as many fail as with plain `LEAST_REQUEST`.
    TenthOfErrors {
        /// When they are due.
        during: Range<Duration>,
    },
    /// No request fails.
    NoErrors,
    /// No request fails or takes longer than `patience` because of the server that joins at `at` and has loaded at `loaded`; and from
    /// its first answer on it takes at most `window` until it gets nine tenths of an equal share.
    Joins {
        /// When it joins.
        at: Duration,
        /// When it can serve.
        loaded: Duration,
        /// What no request takes that does not wait for it.
        patience: Duration,
        /// Of the slow start.
        window: Duration,
    },
    /// The p99 of the requests due `during` that time is at most one `times`th of that of the other contender.
    Tail {
        /// When they are due.
        during: Range<Duration>,
        /// How many times better it is to be.
        times: f64,
    },
    /// Of the requests due `during` that time, less than this share is given up, which those are that reach the server that hangs.
    Reached {
        /// When they are due.
        during: Range<Duration>,
        /// 0 to 1.
        below: f64,
    },
    /// Nothing is ejected, and successes come at `capacity`.
    Full {
        /// When they come.
        during: Range<Duration>,
        /// What the servers can do, in requests a second.
        capacity: f64,
    },
}
