//! What is known of one upstream's health, and its way out of the pool and back.
//!
//! ```text
//!           evidence                 time            3 answers
//! in ─────────────────────> ejected ──────> half-open ────────> in, and warming
//!                              ^               │
//!                              └───────────────┘ a failure: for twice as long
//! ```
//!
//! Only the ends of requests change what is stored; that an ejection is over follows from
//! the time. Each ejection lasts twice as long as the one before, up to a limit, and an
//! upstream that has been back for as long as it was ejected is forgiven one doubling.

use std::time::Duration;

use super::failures::Failures;
use super::fullness::Fullness;
use super::moment::Moment;
use super::slowness::Slowness;
use super::warming::{WARM_REQUESTS, warmth};
use crate::config::{OutlierDetection, SlowStart};
use crate::time::Timestamp;

/// Why an upstream was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It failed several times in a row.
    ConsecutiveFailures,
    /// Too many of its requests failed.
    FailureRate,
    /// It refuses (4xx) what the others of its pool serve.
    Refusals,
    /// It has become many times slower than it was, compared with the pool.
    Latency,
    /// It takes requests and does not answer them.
    NoAnswer,
}

impl Reason {
    /// All reasons, in the order of [`Reason::index`].
    pub const ALL: [Reason; 5] = [
        Reason::ConsecutiveFailures,
        Reason::FailureRate,
        Reason::Refusals,
        Reason::Latency,
        Reason::NoAnswer,
    ];

    /// The reason's place in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the reason in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::ConsecutiveFailures => "consecutive_failures",
            Reason::FailureRate => "failure_rate",
            Reason::Refusals => "refusals",
            Reason::Latency => "latency",
            Reason::NoAnswer => "no_answer",
        }
    }

    /// Whether it was ejected for being slow: then how fast it was says nothing when it
    /// is back.
    #[must_use]
    pub const fn is_slowness(self) -> bool {
        matches!(self, Reason::Latency | Reason::NoAnswer)
    }
}

/// Where an upstream stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    In,
    /// It takes none.
    Ejected(Reason),
    /// It takes one request at a time, until it has answered some.
    HalfOpen(Reason),
}

/// What the end of a request did to an upstream's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was ejected.
    Ejected(Reason),
    /// It came back.
    Returned,
}

/// What is stored of an upstream's health. By default it is in, warm, and nothing is
/// known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why it is out; `None` while it is in.
    out: Option<Reason>,
    /// Since when it is in; until when it is ejected, while it is out.
    at: Moment,
    /// How often its ejection has doubled.
    doublings: u8,
    /// Requests completed since then; [`WARM`] once nothing depends on it any more.
    completed: Completed,
    /// When it last answered well.
    succeeded_at: Moment,
    /// How often it fails.
    pub failures: Failures,
    /// How often it was full.
    pub fullness: Fullness,
    /// How slow it is.
    pub slowness: Slowness,
}

/// How many requests an upstream has completed since it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Completed(u8);

impl Default for Completed {
    fn default() -> Self {
        WARM
    }
}

/// It was there from the start, or has long been warm.
const WARM: Completed = Completed(u8::MAX);

/// So many answers bring an upstream back.
const TRIALS: u8 = 3;

/// A request of an upstream that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// When it was sent there.
    pub picked_at: Timestamp,
    /// When it ended.
    pub now: Timestamp,
    /// Seconds since the last outcome of the upstream.
    pub elapsed: f64,
    /// When upstreams of its pool are ejected; `None` is never.
    pub detection: Option<&'a OutlierDetection>,
}

impl Health {
    /// Bytes of its encoded form.
    pub const SIZE: usize = 24;

    /// An upstream that came at `now`, and is not warm.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Health {
            at: Moment::of(now),
            completed: Completed(0),
            ..Health::default()
        }
    }

    /// The upstream is cold again at `now`, as one that is new: it has started anew, or
    /// has only now become ready. What is known of its failures and its speed was
    /// somebody else's. An ejection ends.
    pub fn restart(&mut self, now: Timestamp) {
        *self = Health {
            doublings: self.doublings,
            ..Health::new(now)
        };
    }

    /// Where it stands at `now`.
    #[inline]
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> Phase {
        match self.out {
            None => Phase::In,
            Some(reason) if self.is_ejected(now) => Phase::Ejected(reason),
            Some(reason) => Phase::HalfOpen(reason),
        }
    }

    /// An end further ahead than any that is configured cannot be right.
    fn is_ejected(&self, now: Timestamp) -> bool {
        const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
        let until = self.at.time();
        until > now && until.since(now) <= LONGEST
    }

    /// When it came, or became ready, if it was never ejected.
    #[must_use]
    pub fn came_at(&self) -> Option<Timestamp> {
        (self.out.is_none() && self.doublings == 0).then(|| self.at.time())
    }

    /// Until when it is or was ejected, unless it is in.
    #[must_use]
    pub fn out_until(&self) -> Timestamp {
        self.at.time()
    }

    /// Whether a pick need not look at it: it is in, warm and not full.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.out.is_none() && self.completed == WARM && self.fullness.is_none()
    }

    /// Whether it has long been in.
    #[must_use]
    pub fn is_warm(&self, slow_start: &SlowStart, now: Timestamp) -> bool {
        self.warmth(slow_start, now) >= 1.0
    }

    /// The part of its weight that it gets at `now`.
    #[must_use]
    pub fn warmth(&self, slow_start: &SlowStart, now: Timestamp) -> f64 {
        let since = self.at.time();
        // What came in the future came at another clock's time.
        if self.completed == WARM || since > now.after(Duration::from_secs(1)) {
            return 1.0;
        }
        let completed = u32::from(self.completed.0);
        warmth(slow_start, now.seconds_since(since), completed)
    }

    /// Whether it answered well within the last `seconds`: then an answer that there is no
    /// room means that it is full, and not that it is broken.
    #[must_use]
    pub fn answers_others(&self, now: Timestamp, seconds: f64) -> bool {
        self.succeeded_at > Moment::BEGINNING
            && now.seconds_since(self.succeeded_at.time()) <= seconds
    }

    /// Whether the end of a request counts: not that of one from before an ejection.
    #[must_use]
    pub fn counts(&self, ended: &Ended<'_>) -> bool {
        match self.phase(ended.now) {
            Phase::In => true,
            Phase::Ejected(_) => false,
            Phase::HalfOpen(_) => ended.picked_at >= self.at.time(),
        }
    }

    /// Takes in an answer that is no failure. Its time, if it tells any, comes first, in
    /// [`Health::slowness`].
    pub fn succeed(&mut self, ended: &Ended<'_>) -> Option<Event> {
        let counts = self.counts(ended);
        self.succeeded_at = self.succeeded_at.max(Moment::of(ended.now));
        if !counts {
            return None;
        }
        self.failures.succeed(ended.elapsed);
        self.complete();
        let reason = self.out?;
        if self.completed.0 < TRIALS {
            return None;
        }
        if let Some(detection) = ended.detection
            && reason.is_slowness()
            && detection.latency_factor > 0.0
            && self.slowness.recent() > detection.latency_factor.ln()
        {
            return Some(self.eject(reason, ended.now, detection));
        }
        self.out = None;
        self.at = Moment::of(ended.now);
        self.completed = Completed(0);
        self.slowness.forget_recent();
        Some(Event::Returned)
    }

    fn complete(&mut self) {
        // One that stays below is not warm before its time is over, either.
        if self.completed != WARM {
            self.completed.0 = (self.completed.0 + 1).min(WARM_REQUESTS as u8);
        }
    }

    /// Takes in an answer that is neither a failure nor of use to a client: the upstream
    /// is there, and no more is said.
    pub fn answer(&mut self, ended: &Ended<'_>) {
        if self.out.is_none() {
            self.failures.succeed(ended.elapsed);
        }
    }

    /// If it is warm, nothing depends any more on when it came and what it has completed.
    pub fn settle(&mut self, slow_start: Option<&SlowStart>, now: Timestamp) {
        let is_warm = slow_start.is_none_or(|slow_start| self.is_warm(slow_start, now));
        if self.out.is_none() && is_warm {
            self.completed = WARM;
        }
    }

    /// Takes in a failure. One that is half-open is ejected again, whatever for.
    pub fn fail(&mut self, ended: &Ended<'_>) -> Option<Event> {
        if !self.counts(ended) {
            return None;
        }
        self.failures.fail(ended.elapsed);
        let (reason, detection) = (self.out?, ended.detection?);
        Some(self.eject(reason, ended.now, detection))
    }

    /// Ejects it at `now`, for twice as long as the last time.
    pub fn eject(&mut self, reason: Reason, now: Timestamp, detection: &OutlierDetection) -> Event {
        let (base, longest) = (
            detection.base_ejection_time,
            detection
                .max_ejection_time
                .max(detection.base_ejection_time),
        );
        let lasts = |doublings: u8| {
            let factor = 1u32.checked_shl(doublings.into()).unwrap_or(u32::MAX);
            base.saturating_mul(factor).min(longest)
        };
        if self.out.is_none() {
            let mut good = now.since(self.at.time());
            while let Some(fewer) = self.doublings.checked_sub(1)
                && let Some(rest) = good.checked_sub(lasts(fewer))
            {
                (self.doublings, good) = (fewer, rest);
            }
        }
        let time = lasts(self.doublings);
        if time < longest {
            self.doublings = self.doublings.saturating_add(1);
        }
        // Moments are rounded down, and an ejection is never too short.
        let until = now.after(time).after(Duration::from_millis(68));
        *self = Health {
            out: Some(reason),
            at: Moment::of(until),
            completed: Completed(0),
            failures: Failures::default(),
            ..*self
        };
        self.slowness.forget_recent();
        Event::Ejected(reason)
    }

    /// Its bytes, to be stored.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let out = self.out.map_or(0, |reason| reason.index() as u8 + 1);
        let (in_row, outcomes, failed) = self.failures.parts();
        let (recent, samples, usual, learned) = self.slowness.parts();
        let [a, b] = outcomes.to_le_bytes();
        let [c, d] = failed.to_le_bytes();
        let [e, f] = self.fullness.part().to_le_bytes();
        let [g, h] = recent.to_le_bytes();
        let [i, j] = usual.to_le_bytes();
        let [k, l, m, n] = self.at.to_bytes();
        let [o, p, q, r] = self.succeeded_at.to_bytes();
        // What is in, warm and unknown, as a row is that an older version has written, is
        // all zeros.
        let completed = !self.completed.0;
        [
            out,
            self.doublings,
            in_row,
            samples, //
            a,
            b,
            c,
            d, //
            k,
            l,
            m,
            n, //
            o,
            p,
            q,
            r, //
            completed,
            learned,
            e,
            f, //
            g,
            h,
            i,
            j,
        ]
    }

    /// From its bytes; what makes no sense is as if nothing were known.
    #[must_use]
    pub fn decode(words: [[u8; 4]; Self::SIZE / 4]) -> Self {
        let [
            [out, doublings, in_row, samples],
            [a, b, c, d],
            at,
            succeeded_at,
            [completed, learned, e, f],
            [g, h, i, j],
        ] = words;
        let (outcomes, failed) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let (recent, usual) = (i16::from_le_bytes([g, h]), i16::from_le_bytes([i, j]));
        let reason = usize::from(out).checked_sub(1);
        Health {
            out: reason.and_then(|reason| Reason::ALL.get(reason).copied()),
            at: Moment::from_bytes(at),
            doublings,
            completed: Completed(!completed),
            succeeded_at: Moment::from_bytes(succeeded_at),
            failures: Failures::from_parts(in_row, outcomes, failed),
            fullness: Fullness::from_part(u16::from_le_bytes([e, f])),
            slowness: Slowness::from_parts(recent, samples, usual, learned),
        }
    }
}
