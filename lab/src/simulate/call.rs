use std::num::NonZeroU32;
use std::time::Duration;

use paceline::outcome::Outcome;

use crate::model::{Job, JobId, Time};

/// One request of a run: what it asks, and through which gateway process and worker it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place in the run.
    pub id: usize,
    /// When it is sent, in an open loop.
    pub arrival: Time,
    /// Which gateway process takes it.
    pub gateway: usize,
    /// Which worker of that process.
    pub worker: usize,
    /// Tokens that go in.
    pub prompt_tokens: NonZeroU32,
    /// Tokens that come out.
    pub output_tokens: NonZeroU32,
    /// How long a slot server of speed 1 works at it, where the workload says so.
    pub service: Option<Duration>,
    /// What it shows of that before it runs, in the workload's unit.
    pub size: Option<u64>,
    /// Who sends it: the place in the scenario's callers.
    pub caller: usize,
    /// When the client gives up, counted from the sending; `None`: never.
    pub patience: Option<Duration>,
}

impl Call {
    /// Bytes of the answer: a token of text is about four.
    pub(super) fn response_bytes(&self) -> u64 {
        4 * u64::from(self.output_tokens.get())
    }

    pub(super) fn job(&self) -> Job {
        Job {
            id: JobId(self.id as u64),
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            service: self.service,
            size: self.size,
            stream: false,
        }
    }
}

/// Who sends requests, and what they say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caller {
    /// The part of the requests, relative to the other callers'.
    pub share: f64,
    /// Which tenant it is.
    pub tenant: Option<String>,
    /// Which priority class its requests are of.
    pub priority: Option<String>,
    /// How long its requests may take.
    pub deadline: Option<Duration>,
}

/// What became of a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When it was sent.
    pub sent: Time,
    /// When its first token came.
    pub first_byte: Option<Time>,
    /// When it ended; `None` where the run ended first.
    pub end: Option<Time>,
    /// Where it went last; `None` where it never left the gateway.
    pub server: Option<usize>,
    /// As the gateway saw it.
    pub outcome: Outcome,
}

impl Ending {
    pub(super) const fn sent_at(sent: Time) -> Self {
        Self {
            sent,
            first_byte: None,
            end: None,
            server: None,
            outcome: Outcome::Unknown,
        }
    }

    /// Seconds from the sending to the end of a whole answer.
    pub fn latency(&self) -> Option<f64> {
        let end = self.end.filter(|_| self.outcome == Outcome::Success)?;
        Some(end.since(self.sent).as_secs_f64())
    }

    /// Seconds from the sending to the first token of what became a whole answer.
    pub fn time_to_first_byte(&self) -> Option<f64> {
        let first = self
            .first_byte
            .filter(|_| self.outcome == Outcome::Success)?;
        Some(first.since(self.sent).as_secs_f64())
    }
}
