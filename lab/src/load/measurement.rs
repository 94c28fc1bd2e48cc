use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use super::Tally;
use super::record::Record;
use super::settings::MAX_TIMEOUT;
use super::tally::Outcome;

/// What a run of load has shown. Times are emulated unless said otherwise.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// What became of the requests that were measured.
    pub tally: Tally,
    /// What became of those of the warm-up, of which nothing else is told.
    pub warm_up: Tally,
    /// Microseconds from when a request was due to the last byte of its answer: of those answered with a 2xx, and of those that
    /// timed out, as the timeout, for which the truth is no less.
    pub latency: Histogram<u64>,
    /// Microseconds from when a request was due to the first byte of its answer's body, of those answered with a 2xx. (Model servers send
    /// the head of a streamed answer long before its first token.)
    pub first_byte: Histogram<u64>,
    /// Measured requests answered, by the value of the answer's `x-served-by` header; `(unknown)` without one.
    pub upstreams: BTreeMap<String, u64>,
    /// Microseconds of *real* time from when a measured request was due to when it was sent.
    pub schedule_delay: Histogram<u64>,
    /// Seconds of emulated time in one of real time.
    pub time_scale: f64,
    /// How long the run took, in real time.
    pub elapsed: Duration,
    /// Connections that were opened.
    pub connections: u64,
    /// The first failure other than a status, in words.
    pub first_failure: Option<String>,
    /// Every request, those of the warm-up too, in the order of their ends; empty unless the settings ask for them.
    pub records: Vec<Record>,
}

/// The key of [`Measurement::upstreams`] for answers that do not say who served them.
const UNKNOWN: &str = "(unknown)";

impl Measurement {
    pub(super) fn new(time_scale: f64) -> Result<Self, CreationError> {
        Ok(Self {
            tally: Tally::default(),
            warm_up: Tally::default(),
            latency: histogram()?,
            first_byte: histogram()?,
            upstreams: BTreeMap::new(),
            schedule_delay: histogram()?,
            time_scale,
            elapsed: Duration::ZERO,
            connections: 0,
            first_failure: None,
            records: Vec::new(),
        })
    }

    /// Counts a request that was part of the warm-up.
    pub(super) fn record_warm_up(&mut self, outcome: &Outcome) {
        self.warm_up.count(outcome);
        self.note_failure(outcome);
    }

    /// Counts a request that is measured. It was due `delay` before it was sent; `timeout` is in emulated time.
    pub(super) fn record(&mut self, outcome: &Outcome, delay: Duration, timeout: Duration) {
        self.tally.count(outcome);
        self.note_failure(outcome);
        if !matches!(outcome, Outcome::Unsent) {
            self.schedule_delay.saturating_record(microseconds(delay));
        }
        match outcome {
            Outcome::Answered(answer) => {
                let server = answer
                    .served_by
                    .as_ref()
                    .map(|name| String::from_utf8_lossy(name.as_bytes()));
                let server = server.as_deref().unwrap_or(UNKNOWN);
                // Most are known: no key is made for those.
                match self.upstreams.get_mut(server) {
                    Some(count) => *count += 1,
                    None => {
                        self.upstreams.insert(server.to_owned(), 1);
                    }
                }
                if (200..300).contains(&answer.status) {
                    let emulated = |real: Duration| microseconds(real.mul_f64(self.time_scale));
                    self.latency.saturating_record(emulated(answer.total));
                    self.first_byte
                        .saturating_record(emulated(answer.first_byte));
                }
            }
            Outcome::TimedOut => self.latency.saturating_record(microseconds(timeout)),
            Outcome::ConnectFailed(_) | Outcome::Broken(_) | Outcome::Unsent => {}
        }
    }

    fn note_failure(&mut self, outcome: &Outcome) {
        if let (None, Outcome::ConnectFailed(message) | Outcome::Broken(message)) =
            (&self.first_failure, outcome)
        {
            self.first_failure = Some(message.clone());
        }
    }

    /// How late the generator was, and whether that spoils the result.
    pub fn lateness(&self) -> Lateness {
        let real = |histogram: &Histogram<u64>, quantile, scale: f64| {
            Duration::from_micros(histogram.value_at_quantile(quantile)).div_f64(scale)
        };
        let median = real(&self.schedule_delay, 0.5, 1.0);
        let p99 = real(&self.schedule_delay, 0.99, 1.0);
        let within = |delay: Duration, quantile| {
            self.latency.is_empty() || delay * 10 <= real(&self.latency, quantile, self.time_scale)
        };
        Lateness {
            median,
            p99,
            unsent: self.tally.unsent + self.warm_up.unsent,
            fell_behind: median > MAX_MEDIAN_DELAY || !within(median, 0.5) || !within(p99, 0.99),
        }
    }
}

/// A generator that is later than this at the median measures itself (the bound of Kubernetes' inference-perf).
const MAX_MEDIAN_DELAY: Duration = Duration::from_millis(10);

/// How late requests were sent, in real time; shown as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// Half of the requests were no later than this.
    pub median: Duration,
    /// 99 % of the requests were no later than this.
    pub p99: Duration,
    /// How many were never sent, because as many were outstanding as may be.
    pub unsent: u64,
    /// The generator is part of the result: it was more than 10 ms late at the median, or later than a tenth of the latency at the
    /// median or at p99.
    pub fell_behind: bool,
}

impl Lateness {
    /// Whether the results are of the servers, not of the generator.
    pub fn is_valid(&self) -> bool {
        !self.fell_behind && self.unsent == 0
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |delay: Duration| delay.as_secs_f64() * 1e3;
        write!(
            f,
            "schedule delay: median {:.2} ms, p99 {:.2} ms of real time",
            milliseconds(self.median),
            milliseconds(self.p99)
        )?;
        if self.fell_behind {
            write!(
                f,
                "; the generator itself fell behind: these results are void"
            )?;
        }
        if self.unsent > 0 {
            write!(
                f,
                "; {} requests were not sent, too many were outstanding: these results are void",
                self.unsent
            )?;
        }
        Ok(())
    }
}

fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, microseconds(MAX_TIMEOUT), 3)
}

fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
