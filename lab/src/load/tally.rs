use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// What became of requests: each is counted in exactly one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests answered in full, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests for which no connection could be made.
    pub connect_failures: u64,
    /// Requests whose connection ended before the answer did.
    pub broken: u64,
    /// Requests given up, and their connection closed, because the answer was not complete in time.
    pub timeouts: u64,
    /// Requests never sent, because as many were outstanding as may be.
    pub unsent: u64,
}

impl Tally {
    /// All requests.
    pub fn total(&self) -> u64 {
        let answered: u64 = self.statuses.values().sum();
        answered + self.connect_failures + self.broken + self.timeouts + self.unsent
    }

    /// Those answered with a 2xx status.
    pub fn successes(&self) -> u64 {
        self.statuses.range(200..300).map(|(_, count)| count).sum()
    }

    /// Those that were refused for want of capacity: 429 and 503.
    pub fn rejects(&self) -> u64 {
        [429, 503]
            .iter()
            .filter_map(|status| self.statuses.get(status))
            .sum()
    }

    /// Those that neither succeeded nor were refused.
    pub fn errors(&self) -> u64 {
        self.total() - self.successes() - self.rejects()
    }

    /// What was not a success, in words: `3 x 503, 1 timeout`; empty if there is nothing to tell.
    pub fn failures(&self) -> String {
        let statuses = self
            .statuses
            .iter()
            .filter(|(status, _)| !(200..300).contains(*status))
            .map(|(status, count)| format!("{count} x {status}"));
        let others = [
            (self.connect_failures, "connection failed"),
            (self.broken, "connection broken"),
            (self.timeouts, "timed out"),
            (self.unsent, "not sent"),
        ];
        let others = others
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} x {what}"));
        statuses.chain(others).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Answered(answer) => *self.statuses.entry(answer.status).or_default() += 1,
            Outcome::ConnectFailed(_) => self.connect_failures += 1,
            Outcome::Broken(_) => self.broken += 1,
            Outcome::TimedOut => self.timeouts += 1,
            Outcome::Unsent => self.unsent += 1,
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.connect_failures += other.connect_failures;
        self.broken += other.broken;
        self.timeouts += other.timeouts;
        self.unsent += other.unsent;
    }
}

/// What became of one request.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    ConnectFailed(String),
    Broken(String),
    TimedOut,
    Unsent,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Who says to have served it.
    pub(super) served_by: Option<hyper::header::HeaderValue>,
    /// From when it was due to the first byte of the answer's body, in real time.
    pub(super) first_byte: std::time::Duration,
    /// From when it was due to the last byte of the answer, in real time.
    pub(super) total: std::time::Duration,
}
