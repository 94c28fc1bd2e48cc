//! What ended requests teach, gathered until it is merged into what all workers
//! share.
//!
//! A worker merges at once where its last merge is long enough ago, so with thin
//! traffic nothing waits. In dense traffic it merges once in an interval, each
//! worker at a moment of its own, so that two hardly ever meet at the record. A
//! VM that traps loses what it has gathered, and no count.

use std::time::Duration;

use super::{Finished, Reservation};
use crate::time::Timestamp;

/// The most that is gathered, where merges fail: the oldest go first. In an
/// interval a worker ends fewer.
const MOST: usize = 2048;

/// Ended requests that have not been learned from.
#[derive(Debug)]
pub(super) struct Batch {
    ended: Vec<Ended>,
    interval: Duration,
    due_at: Timestamp,
}

/// A request that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reservation: Reservation,
    pub(super) finished: Finished,
    pub(super) at: Timestamp,
    /// Requests in flight at its upstream then, itself included.
    pub(super) in_flight: u64,
}

impl Batch {
    /// Nothing gathered, and at most one merge in `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Batch {
            ended: Vec::new(),
            interval,
            due_at: Timestamp::ZERO,
        }
    }

    /// Gathers a request that has ended.
    pub(super) fn push(&mut self, ended: Ended) {
        if self.ended.len() >= MOST {
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    /// Whether what was gathered should be merged now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        !self.ended.is_empty() && now >= self.due_at
    }

    /// What was gathered.
    pub(super) fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// When the last of it ended.
    pub(super) fn latest(&self) -> Timestamp {
        self.ended.last().map_or(Timestamp::ZERO, |ended| ended.at)
    }

    /// All of it was merged.
    pub(super) fn clear(&mut self) {
        self.ended.clear();
    }

    /// A merge was tried: the next is due at this worker's moment of the next
    /// interval. The numbers of `lane`s, bit by bit in reverse, divide the
    /// interval evenly, however many there are (van der Corput's sequence).
    pub(super) fn tried(&mut self, now: Timestamp, lane: usize) {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let fraction = (lane as u32).reverse_bits();
        let phase = (u128::from(interval) * u128::from(fraction)) >> 32;
        let begun = now.as_nanos().checked_div(interval).unwrap_or(0);
        let next = begun.saturating_add(1).saturating_mul(interval);
        self.due_at = Timestamp::from_nanos(next.saturating_add(phase as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(lane: usize, now: u64) -> u64 {
        let mut batch = Batch::new(Duration::from_nanos(1_000));
        batch.tried(Timestamp::from_nanos(now), lane);
        batch.due_at.as_nanos()
    }

    #[test]
    fn each_lane_has_a_moment_of_its_own() {
        assert_eq!(next_of(0, 5_300), 6_000);
        assert_eq!(next_of(0, 6_000), 7_000);
        let moments: Vec<u64> = (0..8).map(|lane| next_of(lane, 5_300) - 6_000).collect();
        assert_eq!(moments, [0, 500, 250, 750, 125, 625, 375, 875]);
    }

    #[test]
    fn no_interval_means_always_and_no_clock_overflows() {
        let mut batch = Batch::new(Duration::ZERO);
        batch.tried(Timestamp::from_nanos(9), 3);
        assert_eq!(batch.due_at, Timestamp::ZERO);
        let mut batch = Batch::new(Duration::from_secs(1));
        batch.tried(Timestamp::from_nanos(u64::MAX), usize::MAX);
    }
}
