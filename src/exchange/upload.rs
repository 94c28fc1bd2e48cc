//! When the upstream had the whole request, from where its latency counts.
//!
//! A client that takes ten seconds to send a body is no slow server. Most requests
//! come at once, headers and body in the same read, and these must not cost a look
//! at the clock. So it is looked at only where the body came in several pieces, or
//! where something else has looked at it since the pick: a request, an answer or,
//! four times a second, the tick. A body that comes in one piece, late, and to a
//! worker with nothing else to do can thus count for as much as a tick.

use super::Exchange;
use super::phase::Phase;
use crate::host::Host;
use crate::time::Timestamp;
use crate::worker::Worker;

/// How the request's body goes to the upstream.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// It has come to its end.
    pub(super) is_complete: bool,
    /// In how many pieces it came so far.
    pieces: u32,
    /// When it had been received to its end, where that was some time after the
    /// pick.
    pub(super) sent_at: Option<Timestamp>,
    /// The answer has begun. One that begins before the request's end does not
    /// wait for it, so its latency counts from the pick.
    pub(super) is_answered: bool,
}

impl Exchange {
    /// A piece of the request's body has gone on to the upstream.
    pub(super) fn uploaded(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        bytes: usize,
        end: bool,
    ) {
        self.upload.pieces = self.upload.pieces.saturating_add(u32::from(bytes > 0));
        if !end || self.upload.is_answered {
            return;
        }
        let Phase::Sent(sent) = &self.phase else {
            return;
        };
        if self.upload.pieces > 1 || worker.latest() > sent.picked_at {
            self.upload.sent_at = Some(worker.now(host));
        }
    }
}
