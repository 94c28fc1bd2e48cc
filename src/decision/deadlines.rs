//! Whether a request can be done in time.

use super::finished::Finished;
use crate::config::{self, DeadlineMode};
use crate::estimate::Spread;
use crate::outcome::Outcome;
use crate::time::{Timestamp, seconds};

/// A request may wait for at least a quarter of the time that it has, however long
/// requests may take.
const MOST_RESERVED: f64 = 0.75;

/// What one worker's balancer keeps about the deadlines of one pool.
pub(super) struct Deadlines {
    is_enforced: bool,
    spread: Spread,
}

impl Deadlines {
    /// Those of a pool; `None` where it heeds none.
    pub(super) fn new(config: &config::Pool) -> Option<Self> {
        let deadline = config.admission.deadline.as_ref()?;
        let heeds = deadline.mode != DeadlineMode::Off;
        heeds.then(|| Deadlines {
            is_enforced: deadline.mode == DeadlineMode::Enforce,
            spread: Spread::default(),
        })
    }

    /// The last moment at which starting a request makes sense that must be done by
    /// `due`: nearly all would be done in time, where so many seconds were `expected` at
    /// each member. `None` where one that is late is served all the same.
    pub(super) fn latest_start(
        &self,
        due: Timestamp,
        expected: &[f64],
        now: Timestamp,
    ) -> Option<Timestamp> {
        if !self.is_enforced {
            return None;
        }
        let known = expected.iter().copied().filter(|it| *it > 0.0);
        let fastest = known.min_by(f64::total_cmp).unwrap_or(0.0);
        let left = due.seconds_since(now);
        let needed = (fastest * self.spread.factor()).min(MOST_RESERVED * left);
        Some(now.after(seconds(left - needed)))
    }

    /// Takes in how long a request took of which `expected` seconds were expected.
    pub(super) fn observe(&mut self, expected: f64, finished: &Finished, seconds: f64) {
        if expected <= 0.0 {
            return;
        }
        match finished.end.outcome() {
            Outcome::Success => self.spread.observe(seconds / expected, true),
            Outcome::ClientAbort | Outcome::Timeout => {
                self.spread.observe(seconds / expected, false);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
