//! The response, as it comes.

use crate::config::LatencySignal;
use crate::host::Host;
use crate::time::Timestamp;

/// What has come of the response.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) progress: Progress,
    /// When the first byte of its body came, if others came later.
    pub(super) first_byte_at: Option<Timestamp>,
    /// Of its body.
    pub(super) bytes: u64,
    /// In how many pieces these came.
    pub(super) chunks: u32,
    /// Whether it is sent as it is made; only asked where it matters.
    pub(super) is_stream: bool,
}

/// How far the response has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing has come.
    #[default]
    Awaited,
    /// It has begun.
    Begun,
    /// It came to its end with its body.
    EndedWithBody,
    /// It came to its end with its headers or with trailers, as a gRPC status does.
    EndedWithHeaders,
}

impl Progress {
    /// Whether all of it has come.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Progress::EndedWithBody | Progress::EndedWithHeaders)
    }
}

impl Answer {
    /// Its headers have come.
    pub(super) fn begin(&mut self, end: bool) {
        self.progress = match end {
            true => Progress::EndedWithHeaders,
            false => Progress::Begun,
        };
    }

    /// Finds out whether it is sent as it is made, where the pool's signal asks:
    /// what is does not know its length.
    pub(super) fn look_for_stream(&mut self, host: &mut impl Host, signal: LatencySignal) {
        if signal == LatencySignal::FirstByte && self.progress == Progress::Begun {
            self.is_stream = host.response_header("content-length") == Ok(None);
        }
    }

    /// A piece of its body has come. Whether the time is of interest: that of the
    /// first piece, unless it is the last one, too, because then the end comes at
    /// once.
    pub(super) fn receive(&mut self, bytes: usize, end: bool) -> bool {
        if end {
            self.progress = Progress::EndedWithBody;
        }
        if bytes == 0 {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.chunks = self.chunks.saturating_add(1);
        !end && self.first_byte_at.is_none()
    }

    /// Its trailers have come.
    pub(super) fn end_with_trailers(&mut self) {
        self.progress = Progress::EndedWithHeaders;
    }

    /// When the first byte of its body came, at its end `now`.
    pub(super) fn first_byte_by(&self, now: Timestamp) -> Option<Timestamp> {
        self.first_byte_at
            .or_else(|| (self.chunks > 0).then_some(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_piece_is_timed_unless_it_is_the_last() {
        let mut answer = Answer::default();
        answer.begin(false);
        assert!(!answer.receive(0, false));
        assert!(answer.receive(5, false));
        answer.first_byte_at = Some(Timestamp::from_nanos(7));
        assert!(!answer.receive(5, true));
        assert_eq!((answer.bytes, answer.chunks), (10, 2));
        assert!(answer.progress.is_complete());
        let end = Timestamp::from_nanos(9);
        assert_eq!(answer.first_byte_by(end), Some(Timestamp::from_nanos(7)));

        let mut at_once = Answer::default();
        at_once.begin(false);
        assert!(!at_once.receive(5, true));
        assert_eq!(at_once.first_byte_by(end), Some(end));
        let mut empty = Answer::default();
        empty.begin(true);
        assert_eq!(empty.first_byte_by(end), None);
        assert_eq!(empty.progress, Progress::EndedWithHeaders);
    }
}
