use std::time::Duration;

use super::tally::Outcome;

/// One request of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place among the requests of the run.
    pub index: usize,
    /// When it was due, counted from the start of the run, in emulated time.
    pub due: Duration,
    /// From when it was due until it ended, in emulated time.
    pub took: Duration,
    /// How it ended.
    pub ending: Ending,
    /// The server that answered, by its `x-served-by` header.
    pub served_by: Option<hyper::header::HeaderValue>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was answered in full, with this HTTP status.
    Answered(u16),
    /// It was given up.
    TimedOut,
    /// There was no connection, or it broke.
    Broken,
    /// It was never sent.
    Unsent,
}

impl Record {
    pub(super) fn new(index: usize, due: Duration, took: Duration, outcome: &Outcome) -> Self {
        let (ending, served_by) = match outcome {
            Outcome::Answered(answer) => {
                (Ending::Answered(answer.status), answer.served_by.clone())
            }
            Outcome::TimedOut => (Ending::TimedOut, None),
            Outcome::ConnectFailed(_) | Outcome::Broken(_) => (Ending::Broken, None),
            Outcome::Unsent => (Ending::Unsent, None),
        };
        Self {
            index,
            due,
            took,
            ending,
            served_by,
        }
    }

    /// When it ended, counted from the start of the run, in emulated time.
    #[must_use]
    pub fn ended(&self) -> Duration {
        self.due + self.took
    }

    /// Whether it was answered with a 2xx status.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.ending, Ending::Answered(200..300))
    }
}
