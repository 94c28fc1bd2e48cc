use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use super::time::Time;

/// The caller's name for a job. A server never has two jobs of one name at a time: that is the caller's to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One request, as a server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name in events.
    pub id: JobId,
    /// Tokens that go in.
    pub prompt_tokens: NonZeroU32,
    /// Tokens that come out.
    pub output_tokens: NonZeroU32,
    /// How long a slot server of speed 1 works at it; `None` lets the server's [`ServiceTime`](super::ServiceTime) tell it from
    /// the tokens. A batching server knows only tokens.
    pub service: Option<Duration>,
    /// What its memory on a device depends on; `None`: its prompt's tokens.
    pub size: Option<u64>,
    /// Whether each token is an event, or the first and the end only.
    pub stream: bool,
}

impl Job {
    /// A job of so many tokens, of which 0 counts as 1, told at its first token and its end.
    pub fn of_tokens(id: JobId, prompt_tokens: u32, output_tokens: u32) -> Self {
        Self {
            id,
            prompt_tokens: NonZeroU32::new(prompt_tokens).unwrap_or(NonZeroU32::MIN),
            output_tokens: NonZeroU32::new(output_tokens).unwrap_or(NonZeroU32::MIN),
            service: None,
            size: None,
            stream: false,
        }
    }

    /// What its memory on a device depends on.
    pub fn size(&self) -> u64 {
        self.size
            .unwrap_or_else(|| u64::from(self.prompt_tokens.get()))
    }

    /// A job that takes a slot server of speed 1 so long, of one token in and one out.
    pub fn of_service(id: JobId, service: Duration) -> Self {
        Self {
            service: Some(service),
            ..Self::of_tokens(id, 1, 1)
        }
    }
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened; never later than the time that the server was advanced to.
    pub at: Time,
    /// Whose it is.
    pub job: JobId,
    /// What it is.
    pub kind: EventKind,
}

/// The kinds of [`Event`]. A job that was accepted and not cancelled ends in exactly one `Done` or `Lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The first token is out. Once a job, streamed or not.
    FirstToken,
    /// So many further tokens are out; of streamed jobs only.
    Tokens(u32),
    /// KV memory overflowed; the job waits again and will be computed anew, its tokens so far are kept.
    Preempted,
    /// All of its tokens are out.
    Done,
    /// The server dropped it.
    Lost(LossReason),
}

/// Why a server dropped the jobs that it had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// It began to load its model anew.
    Reload,
    /// It was told to drop its connections.
    Dropped,
    /// Its device ran out of memory.
    OutOfMemory,
}

/// Why a server did not accept a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many jobs wait as may.
    #[error("the queue is full: {waiting} requests are waiting")]
    QueueFull {
        /// How many that is.
        waiting: usize,
        /// The HTTP status with which the server says so.
        status: u16,
    },
    /// The job alone would not fit into KV memory.
    #[error(
        "prompt and output are {tokens} tokens together, this server's KV memory holds {kv_tokens}"
    )]
    TooLong {
        /// Prompt and output together.
        tokens: u64,
        /// What fits.
        kv_tokens: u64,
    },
    /// The model is being loaded.
    #[error("the model is being loaded")]
    Loading,
    /// The server was told to fail.
    #[error("told to fail")]
    Failing {
        /// The HTTP status to fail with.
        status: u16,
        /// The value of a Retry-After header, in seconds.
        retry_after_seconds: Option<u32>,
    },
    /// The server was told to drop its connections.
    #[error("told to drop connections")]
    Dropping,
    /// One of the errors of the `error_rate` that the server was told to have.
    #[error("told to fail at random")]
    RandomError {
        /// The HTTP status to fail with.
        status: u16,
    },
}

/// What a server is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Jobs on a slot or in the batch.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Tokens in KV memory; 0 on a slot server.
    pub kv_used: u64,
    /// Tokens that fit into KV memory; 0 on a slot server.
    pub kv_tokens: u64,
    /// Bytes of its device's memory that its running jobs take; 0 on a server without a device.
    pub device_memory: u64,
}

impl Load {
    /// The used part of KV memory, 0 to 1; 0 on a slot server.
    pub fn kv_usage(&self) -> f64 {
        if self.kv_tokens == 0 {
            0.0
        } else {
            self.kv_used as f64 / self.kv_tokens as f64
        }
    }
}

/// What a server has done since it started or since its counters were reset.
///
/// Without resets, `accepted = done + cancelled + lost + what runs and waits`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Jobs accepted.
    pub accepted: u64,
    /// Jobs refused, for whatever reason.
    pub refused: u64,
    /// Jobs completed.
    pub done: u64,
    /// Jobs cancelled by the caller.
    pub cancelled: u64,
    /// Jobs dropped by the server.
    pub lost: u64,
    /// Times that it crashed because its device ran out of memory.
    pub crashes: u64,
    /// Times that a job was preempted.
    pub preemptions: u64,
    /// Prompt tokens computed, counted once a job, when its first token comes.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generation_tokens: u64,
    /// Tokens computed again after a preemption.
    pub recomputed_tokens: u64,
}
