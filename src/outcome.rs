//! How a request ended, and what that says about the upstream that was picked.

mod details;

use std::time::Duration;

pub use details::Details;

/// What the proxy knows of a request when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Status of the response; `None` where there was none.
    pub status: Option<u16>,
    /// gRPC status, where the response had one.
    pub grpc_status: Option<u32>,
    /// Envoy's response flags, one bit each.
    pub flags: u64,
    /// Tries to reach an upstream; 0 where the proxy answered by itself.
    pub attempts: u64,
    /// Whether it came here after it had failed elsewhere. Then `attempts` are
    /// those of this upstream, and the time since the pick says nothing of it.
    pub is_moved: bool,
    /// Whether another route than that of the pick has taken the request.
    pub is_elsewhere: bool,
    /// Whether the request was received to its end.
    pub request_complete: bool,
    /// Whether the response was sent to its end.
    pub response_complete: bool,
    /// Whether the request asked for a tunnel, which has no end of its own.
    pub is_tunnel: bool,
    /// What the proxy says of the response's end; asked for where status and flags
    /// leave it open.
    pub details: Details,
}

/// Bits of Envoy's response flags (`CoreResponseFlag` in
/// `envoy/stream_info/stream_info.h`) that say who is to blame.
mod flag {
    const fn bits<const N: usize>(flags: [u32; N]) -> u64 {
        let (mut bits, mut index) = (0, 0);
        while index < N {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            let flag = flags[index];
            bits |= 1 << flag;
            index += 1;
        }
        bits
    }

    /// The client closed its connection or reset its stream.
    pub(super) const CLIENT_GONE: u64 = bits([14, 28]);
    /// The client spoke the protocol wrong.
    pub(super) const CLIENT_PROTOCOL: u64 = bits([17, 18]);
    /// Upstream request timeout, maximum stream duration, request duration.
    pub(super) const TIMEOUT: u64 = bits([2, 19, 22]);
    /// Nothing was heard for too long; from which side it does not say.
    pub(super) const IDLE_TIMEOUT: u64 = bits([16]);
    /// Local and remote reset, connect failure, connection lost, upstream
    /// protocol error, name not resolved.
    pub(super) const RESET: u64 = bits([3, 4, 5, 6, 23, 26]);
    /// No healthy host.
    pub(super) const NO_HOST: u64 = bits([1]);
    /// No healthy host, circuit breaker open, no such cluster.
    pub(super) const UNAVAILABLE: u64 = bits([1, 7, 24]);
    /// A circuit breaker is open.
    pub(super) const NO_ROOM: u64 = bits([7]);
    /// No such cluster.
    pub(super) const NO_CLUSTER: u64 = bits([24]);
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with a status below 400.
    Success,
    /// Answered with a 4xx other than 429, or a gRPC error like it: the client's
    /// fault, unless this upstream alone says so.
    ClientError,
    /// The client went away.
    ClientAbort,
    /// The proxy answered by itself.
    LocalReply,
    /// Answered with a 5xx or a gRPC error that stands for one.
    UpstreamError,
    /// Answered with 429 or gRPC `RESOURCE_EXHAUSTED`.
    Rejected,
    /// Not answered in time.
    Timeout,
    /// The connection failed before the answer was complete.
    Reset,
    /// The upstream's cluster had no host, no room or did not exist.
    Unavailable,
    /// The first try failed and the proxy tried again, with whatever result.
    Retried,
    /// Another route took it, to a cluster that was not picked.
    NotRouted,
    /// The proxy did not say.
    Unknown,
}

/// What an outcome says of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did its work.
    Succeeded,
    /// It did not.
    Failed,
    /// It had no room for the request.
    Full,
    /// It had no room, or it is broken: which one only its other requests can tell.
    FullOrFailed,
    /// It says that the request is wrong. Whether the client is or the upstream,
    /// only the pool's other upstreams can tell.
    Refused,
    /// Nothing: somebody else ended the request.
    Neutral,
}

impl Outcome {
    /// All outcomes, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 12] = [
        Outcome::Success,
        Outcome::ClientError,
        Outcome::ClientAbort,
        Outcome::LocalReply,
        Outcome::UpstreamError,
        Outcome::Rejected,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Unavailable,
        Outcome::Retried,
        Outcome::NotRouted,
        Outcome::Unknown,
    ];

    /// The outcome's place in [`Outcome::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the outcome in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::ClientError => "client_error",
            Outcome::ClientAbort => "client_abort",
            Outcome::LocalReply => "local_reply",
            Outcome::UpstreamError => "upstream_error",
            Outcome::Rejected => "rejected",
            Outcome::Timeout => "timeout",
            Outcome::Reset => "reset",
            Outcome::Unavailable => "unavailable",
            Outcome::Retried => "retried",
            Outcome::NotRouted => "not_routed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// Whether these flags leave it open who closed the client's connection.
#[must_use]
pub const fn is_client_gone(flags: u64) -> bool {
    flags & flag::CLIENT_GONE != 0
}

impl End {
    /// The upstream was not there.
    #[must_use]
    pub fn unavailable() -> Self {
        End {
            flags: flag::NO_HOST,
            attempts: 1,
            ..End::default()
        }
    }

    /// Another route has taken the request.
    #[must_use]
    pub fn elsewhere() -> Self {
        End {
            is_elsewhere: true,
            ..End::default()
        }
    }

    /// How the request ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let has = |bits: u64| self.flags & bits != 0;
        if self.is_elsewhere {
            return Outcome::NotRouted;
        }
        if self.attempts > 1 {
            return Outcome::Retried;
        }
        if has(flag::CLIENT_GONE) && self.details == Details::ClosedByProxy {
            return Outcome::LocalReply;
        }
        if has(flag::CLIENT_GONE | flag::CLIENT_PROTOCOL) {
            return Outcome::ClientAbort;
        }
        if has(flag::TIMEOUT) || (has(flag::IDLE_TIMEOUT) && self.request_complete) {
            return Outcome::Timeout;
        }
        if has(flag::IDLE_TIMEOUT) {
            return Outcome::ClientAbort;
        }
        if has(flag::UNAVAILABLE) {
            return Outcome::Unavailable;
        }
        if has(flag::RESET) {
            return Outcome::Reset;
        }
        let Some(status) = self.status else {
            return Outcome::Unknown;
        };
        if self.attempts == 0 {
            return Outcome::LocalReply;
        }
        match self.details {
            Details::Timeout => return Outcome::Timeout,
            Details::SlowClient => return Outcome::ClientAbort,
            Details::LocalReply | Details::ClosedByProxy => return Outcome::LocalReply,
            Details::None | Details::Upstream => {}
        }
        // The proxy cut it, and does not say why.
        if status < 400 && !self.response_complete && status != 101 && !self.is_tunnel {
            return Outcome::Unknown;
        }
        self.grpc_outcome().unwrap_or(match status {
            429 => Outcome::Rejected,
            500.. => Outcome::UpstreamError,
            400.. => Outcome::ClientError,
            _ => Outcome::Success,
        })
    }

    /// What the end says of the upstream.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.outcome() {
            Outcome::Success => Verdict::Succeeded,
            Outcome::Rejected => Verdict::Full,
            // A circuit breaker of the cluster is open.
            Outcome::Unavailable if self.flags & flag::UNAVAILABLE == flag::NO_ROOM => {
                Verdict::Full
            }
            // Model servers whose queue is full say 503; and after a retry the proxy tells
            // nobody what the first answer was.
            Outcome::UpstreamError if self.says_unavailable() => Verdict::FullOrFailed,
            Outcome::Retried => Verdict::FullOrFailed,
            Outcome::UpstreamError | Outcome::Timeout | Outcome::Reset | Outcome::Unavailable => {
                Verdict::Failed
            }
            Outcome::ClientError => Verdict::Refused,
            Outcome::ClientAbort | Outcome::LocalReply | Outcome::NotRouted | Outcome::Unknown => {
                Verdict::Neutral
            }
        }
    }

    /// Whether the upstream answered 503, or gRPC `UNAVAILABLE`.
    fn says_unavailable(&self) -> bool {
        match self.grpc_status {
            None | Some(0) => self.status == Some(503),
            Some(status) => status == 14,
        }
    }

    /// Whether the proxy has no cluster of the picked upstream's name.
    #[must_use]
    pub fn is_cluster_missing(&self) -> bool {
        self.flags & flag::NO_CLUSTER != 0
    }

    /// What a gRPC status says; `None` where there is none or it is `OK`.
    fn grpc_outcome(&self) -> Option<Outcome> {
        match self.grpc_status? {
            0 => None,
            1 => Some(Outcome::ClientAbort),
            8 => Some(Outcome::Rejected),
            // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
            2 | 4 | 13 | 14 | 15 => Some(Outcome::UpstreamError),
            _ => Some(Outcome::ClientError),
        }
    }

    /// Whether the time that the request took is a sample of the upstream's
    /// speed: it succeeded, its answer came to its end, and it was an answer
    /// and not a switch to another protocol, which lasts as long as the client
    /// likes.
    #[must_use]
    pub fn is_sample(&self) -> bool {
        self.response_complete
            && !self.is_moved
            && self.outcome() == Outcome::Success
            && self.status != Some(101)
    }
}

/// The wait that a `Retry-After` header asks for, where it gives seconds. The
/// other form, a date, would need a clock that agrees with the upstream's.
#[must_use]
pub fn parse_retry_after(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    text.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> End {
        End {
            status: Some(status),
            attempts: 1,
            request_complete: true,
            response_complete: true,
            ..End::default()
        }
    }

    #[test]
    fn statuses_say_whose_fault_it_was() {
        let outcomes = [
            (200, Outcome::Success),
            (304, Outcome::Success),
            (400, Outcome::ClientError),
            (404, Outcome::ClientError),
            (429, Outcome::Rejected),
            (500, Outcome::UpstreamError),
            (599, Outcome::UpstreamError),
        ];
        for (status, outcome) in outcomes {
            assert_eq!(answered(status).outcome(), outcome, "{status}");
        }
    }

    #[test]
    fn a_retry_means_that_the_picked_upstream_failed_though_the_answer_is_fine() {
        let end = End {
            attempts: 2,
            ..answered(200)
        };
        assert_eq!(end.outcome(), Outcome::Retried);
        assert_eq!(end.verdict(), Verdict::FullOrFailed);
        assert!(!end.is_sample());
    }

    #[test]
    fn what_another_route_serves_says_nothing() {
        for status in [200, 500] {
            let end = End {
                is_elsewhere: true,
                attempts: 2,
                ..answered(status)
            };
            assert_eq!(end.outcome(), Outcome::NotRouted);
            assert_eq!(end.verdict(), Verdict::Neutral);
            assert!(!end.is_sample());
        }
        assert_eq!(End::elsewhere().outcome(), Outcome::NotRouted);
    }

    #[test]
    fn flags_come_before_the_status() {
        let with = |flag: u32, status| End {
            flags: 1 << flag,
            ..answered(status)
        };
        assert_eq!(with(14, 200).outcome(), Outcome::ClientAbort);
        assert_eq!(with(28, 503).outcome(), Outcome::ClientAbort);
        assert_eq!(with(2, 504).outcome(), Outcome::Timeout);
        assert_eq!(with(5, 503).outcome(), Outcome::Reset);
        assert_eq!(
            with(4, 200).outcome(),
            Outcome::Reset,
            "reset in the middle of an answer"
        );
        assert_eq!(with(1, 503).outcome(), Outcome::Unavailable);
        assert_eq!(with(24, 503).outcome(), Outcome::Unavailable);
        assert!(with(24, 404).is_cluster_missing() && !with(1, 503).is_cluster_missing());
    }

    #[test]
    fn silence_is_blamed_on_the_side_whose_turn_it_was() {
        let idle = End {
            flags: 1 << 16,
            ..answered(504)
        };
        assert_eq!(idle.outcome(), Outcome::Timeout);
        let slow_client = End {
            request_complete: false,
            ..idle
        };
        assert_eq!(slow_client.outcome(), Outcome::ClientAbort);
    }

    #[test]
    fn the_proxys_own_answers_say_nothing_of_the_upstream() {
        let denied = End {
            attempts: 0,
            ..answered(403)
        };
        assert_eq!(denied.outcome(), Outcome::LocalReply);
        assert_eq!(End::default().outcome(), Outcome::Unknown);
        assert_eq!(End::default().verdict(), Verdict::Neutral);
    }

    #[test]
    fn a_grpc_error_is_one_though_its_http_status_is_200() {
        let grpc = |status| End {
            grpc_status: Some(status),
            ..answered(200)
        };
        assert_eq!(grpc(0).outcome(), Outcome::Success);
        assert_eq!(grpc(3).outcome(), Outcome::ClientError);
        assert_eq!(grpc(8).outcome(), Outcome::Rejected);
        assert_eq!(grpc(14).outcome(), Outcome::UpstreamError);
    }

    #[test]
    fn only_whole_answers_are_samples() {
        assert!(answered(200).is_sample());
        assert!(!answered(101).is_sample());
        assert!(!answered(404).is_sample());
        let cut = End {
            response_complete: false,
            ..answered(200)
        };
        assert!(!cut.is_sample());
    }

    #[test]
    fn an_answer_that_was_cut_is_no_success() {
        let cut = |details| End {
            response_complete: false,
            details,
            ..answered(200)
        };
        assert_eq!(cut(Details::Timeout).outcome(), Outcome::Timeout);
        assert_eq!(cut(Details::Upstream).outcome(), Outcome::Unknown);
        assert_eq!(cut(Details::None).outcome(), Outcome::Unknown);
        assert_eq!(cut(Details::LocalReply).outcome(), Outcome::LocalReply);
        // What has no end of its own is none.
        let tunnel = End {
            is_tunnel: true,
            ..cut(Details::Upstream)
        };
        assert_eq!(tunnel.outcome(), Outcome::Success);
        let websocket = End {
            status: Some(101),
            ..cut(Details::Upstream)
        };
        assert_eq!(websocket.outcome(), Outcome::Success);
    }

    #[test]
    fn the_proxys_words_say_whose_status_it_is() {
        let says = |status, details| End {
            details,
            ..answered(status)
        };
        assert_eq!(says(504, Details::Timeout).outcome(), Outcome::Timeout);
        assert_eq!(
            says(500, Details::LocalReply).outcome(),
            Outcome::LocalReply
        );
        assert_eq!(
            says(408, Details::SlowClient).outcome(),
            Outcome::ClientAbort
        );
        assert_eq!(
            says(500, Details::Upstream).outcome(),
            Outcome::UpstreamError
        );
        let drained = End {
            flags: 1 << 14,
            ..says(200, Details::ClosedByProxy)
        };
        assert_eq!(drained.outcome(), Outcome::LocalReply);
        assert_eq!(drained.verdict(), Verdict::Neutral);
    }

    #[test]
    fn retry_after_in_seconds_is_read() {
        assert_eq!(parse_retry_after(b" 7 "), Some(Duration::from_secs(7)));
        for other in [
            &b"soon"[..],
            b"-1",
            b"",
            b"\xff\xfe",
            b"Wed, 21 Oct 2015 07:28:00 GMT",
        ] {
            assert_eq!(parse_retry_after(other), None);
        }
    }

    #[test]
    fn every_outcome_has_its_own_label_and_place() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), place);
            let same = Outcome::ALL.iter().filter(|o| o.label() == outcome.label());
            assert_eq!(same.count(), 1);
        }
    }
}
