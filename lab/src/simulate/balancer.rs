use std::time::Duration;

use paceline::decision::Finished;

use super::call::Call;
use super::fleet::Fleet;
use crate::model::Time;

/// What decides where calls go: all gateways of a run together, each knowing only what it would know.
///
/// What only a bound may know, everything about every server at no delay, is in the [`Fleet`].
pub trait LoadBalancer {
    /// Where a call goes.
    fn pick(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick;

    /// A call that was sent to a server has ended, in whatever way.
    fn ended(&mut self, ended: &Ended<'_>, now: Time, fleet: &Fleet);

    /// The next call to leave the gateway of those held, and where it goes. Asked after everything that may have made room,
    /// until there is none.
    fn dequeue(&mut self, _now: Time, _fleet: &Fleet) -> Option<(usize, usize)> {
        None
    }

    /// A held call that the gateway answers itself, by an error. Asked after everything that may have happened, until there is none.
    fn refuse(&mut self, _now: Time) -> Option<Refused> {
        None
    }

    /// A held call will not be waited for any more.
    fn abandon(&mut self, _call: &Call) {}

    /// The set of servers that may be chosen has changed.
    fn membership(&mut self, _now: Time, _fleet: &Fleet) {}

    /// Time has passed, [`paceline::worker::Worker::TICK`] since the last.
    fn tick(&mut self, _now: Time, _fleet: &Fleet) {}

    /// A worker lost all that it knew, and what it had in flight will never be reported to its successor.
    fn restart_worker(&mut self, _gateway: usize, _worker: usize, _now: Time) {}

    /// What it counts, for the report.
    fn counters(&mut self, _now: Time) -> Counters {
        Counters::default()
    }
}

/// What becomes of a call that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// It goes to this server at once.
    Server(usize),
    /// It waits in the gateway until [`LoadBalancer::dequeue`] names it.
    Hold,
    /// There is no server to choose, and the gateway says so.
    Unavailable,
    /// The gateway answers it itself, by an error of this status.
    Refused(u16),
}

/// A call that waited and is answered by the gateway, by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which call.
    pub call: usize,
    /// The status of the answer.
    pub status: u16,
}

/// The end of a call, as the gateway that sent it sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Which call.
    pub call: &'a Call,
    /// Where it was sent.
    pub server: usize,
    /// Since it was sent there.
    pub latency: Duration,
    /// How it ended.
    pub finished: &'a Finished,
}

/// What a load balancer counted by the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Calls that it left to the proxy's own balancing.
    pub pass_through: u64,
    /// In flight by its own count once nothing is: what leaked.
    pub leaked: u64,
}
