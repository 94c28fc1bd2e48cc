//! A worker and the people who look at the status.

use std::time::Duration;

use super::Worker;
use crate::host::Host;
use crate::pool::PoolIndex;
use crate::time::Timestamp;

/// For how long after somebody has looked a worker that does nothing else keeps what it
/// knows up to date.
const AWAKE: Duration = Duration::from_secs(10);
/// The most turns at measured latencies that it makes up for when it wakes.
const MOST_TURNS: usize = 64;

impl Worker {
    /// Whether this worker is there for the status alone, and nobody looks: its ticks do
    /// nothing then.
    pub(super) fn sleeps(&mut self, now: Timestamp) -> bool {
        self.config.status.is_some()
            && !self.is_awake(now)
            && self.balancer.lanes().number().is_none()
            && self.discovery.is_idle()
    }

    fn is_awake(&self, now: Timestamp) -> bool {
        self.looked_at.is_some_and(|at| now.since(at) <= AWAKE)
    }

    /// Brings up to date what this worker knows, for somebody who looks at it, and tells
    /// all workers that somebody does. Returns the present.
    pub(crate) fn review(&mut self, host: &mut impl Host) -> Timestamp {
        let now = self.now(host);
        if self.sleeps(now) {
            let members = self.balancer.topology().members.len();
            for _ in 0..members.min(MOST_TURNS) {
                self.exchange_latencies(host, now);
            }
        }
        self.looked_at = Some(now);
        if let Err(error) = self.recent.look(host, now) {
            self.metrics.state_failed(host, error.into());
        }
        self.renew(host, now);
        for pool in 0..self.config.pools.len() {
            if let Err(error) = self.balancer.look_at(host, PoolIndex(pool), now) {
                self.metrics.state_failed(host, error);
            }
        }
        now
    }

    /// Whether a decision, which routes its request or does not, is to be put into words.
    #[inline]
    #[must_use]
    pub fn explains(&self, is_routed: bool) -> bool {
        self.config.explain || self.recent.wants(is_routed)
    }

    /// Keeps what was decided of a request of the pool, for those who watch.
    pub(crate) fn keep_decision(&mut self, pool: Option<PoolIndex>, is_routed: bool, text: &str) {
        if self.recent.wants(is_routed) {
            let pool = pool.and_then(|pool| self.balancer.topology().pool(pool));
            let pool = pool.map_or("", |pool| &pool.name);
            self.recent.keep(is_routed, pool, text, self.latest);
        }
    }
}
