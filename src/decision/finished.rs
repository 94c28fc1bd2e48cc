//! How a request ended, and what is left when it is given back.

use std::time::Duration;

use crate::config::LatencySignal;
use crate::outcome::End;
use crate::time::Timestamp;

/// What a finished request showed; by default that it was nobody's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// When the upstream had the whole request, where that was some time after
    /// the pick and before the answer began. Latencies count from then.
    pub sent_at: Option<Timestamp>,
    /// Of the response's body.
    pub response_bytes: u64,
    /// In how many pieces it came.
    pub chunks: u32,
    /// When the first of them came, or the headers of a response without any.
    pub first_byte_at: Option<Timestamp>,
    /// Whether the response was streamed as it was made. Only asked for where
    /// the pool's signal is the first byte.
    pub is_stream: bool,
    /// For how long the upstream asked to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the upstream said that requests stand in line there. Only asked for where
    /// its limit is learned.
    pub has_queue: bool,
}

impl Finished {
    /// The request's latency, as the pool's signal has it; `None` where it says
    /// nothing of the upstream's speed. An answer that was not streamed is made
    /// whole before its first byte, which so says nothing of those of streams.
    pub(super) fn latency(
        &self,
        signal: LatencySignal,
        picked_at: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        if !self.end.is_sample() {
            return None;
        }
        let begun_at = self.sent_at.unwrap_or(picked_at);
        match signal {
            LatencySignal::Complete => Some(now.since(begun_at)),
            LatencySignal::FirstByte => {
                let first_byte_at = self.first_byte_at.filter(|_| self.is_stream)?;
                Some(first_byte_at.since(begun_at))
            }
        }
    }

    /// The mean time between two chunks of the response.
    pub(super) fn chunk_gap(&self, now: Timestamp) -> Option<Duration> {
        let gaps = self.chunks.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let first = self.first_byte_at.filter(|_| self.end.is_sample())?;
        now.since(first).checked_div(gaps)
    }
}
