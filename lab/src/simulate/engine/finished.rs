//! What a gateway sees of calls that have ended.

use std::time::Duration;

use paceline::decision::Finished;
use paceline::outcome::End;

use crate::model::Refusal;

pub(super) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
pub(super) const CLIENT_GONE: u64 = 1 << 14;
pub(super) const TIMED_OUT: u64 = 1 << 2;
const REMOTE_RESET: u64 = 1 << 4;

pub(super) fn bare(end: End) -> Finished {
    Finished {
        end,
        ..Finished::default()
    }
}

pub(super) fn answered(status: u16) -> Finished {
    bare(End {
        status: Some(status),
        attempts: 1,
        request_complete: true,
        response_complete: true,
        ..End::default()
    })
}

pub(super) fn reset() -> Finished {
    bare(End {
        status: Some(503),
        flags: REMOTE_RESET,
        attempts: 1,
        request_complete: true,
        ..End::default()
    })
}

/// What a gateway sees of a refusal, as `lab serve` gives it.
pub(super) fn refused(refusal: &Refusal) -> Finished {
    match refusal {
        Refusal::Loading => answered(503),
        Refusal::TooLong { .. } => answered(400),
        Refusal::RandomError { status } | Refusal::QueueFull { status, .. } => answered(*status),
        Refusal::Dropping => reset(),
        Refusal::Failing {
            status,
            retry_after_seconds,
        } => Finished {
            retry_after: retry_after_seconds.map(|seconds| Duration::from_secs(u64::from(seconds))),
            ..answered(*status)
        },
    }
}
