use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::{Measurement, Tally};

/// The figures of one run of load. Latencies are in seconds of emulated time.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The seed of its arrivals.
    pub seed: u64,
    /// What became of the measured requests.
    pub requests: Tally,
    /// What became of the requests of the warm-up.
    pub warm_up: Tally,
    /// From when a request was due to the last byte of its answer; `None` if there was no answer. Successes, and timeouts as the
    /// timeout.
    pub latency: Option<Summary>,
    /// From when a request was due to the first byte of its answer's body; `None` if there was no success.
    pub first_byte: Option<Summary>,
    /// The latency's quantiles, as drawn.
    pub distribution: Vec<Quantile>,
    /// Measured requests answered by each server.
    pub upstreams: BTreeMap<String, u64>,
    /// How late the generator was.
    pub schedule_delay: ScheduleDelay,
    /// Seconds of emulated time in one of real time.
    pub time_scale: f64,
    /// How long the run took, in seconds of real time.
    pub elapsed_seconds: f64,
    /// Connections that were opened.
    pub connections: u64,
    /// The first failure other than a status.
    pub first_failure: Option<String>,
    /// What else is to be known of the run, a sentence each.
    pub remarks: Vec<String>,
    /// What the latency's figures are taken from, in microseconds.
    #[serde(skip)]
    pub(super) latencies: Histogram<u64>,
}

/// A distribution in a few figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub struct Summary {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// One point of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// The part of the requests, 0 to 1.
    pub quantile: f64,
    /// They took no longer than this.
    pub seconds: f64,
}

/// How late requests were sent, in milliseconds of real time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScheduleDelay {
    /// Half of the requests were no later.
    pub median_ms: f64,
    /// 99 % of the requests were no later.
    pub p99_ms: f64,
    /// Whether the results are of the servers, not of the generator.
    pub valid: bool,
    /// All that in a line.
    pub line: String,
}

impl RunReport {
    /// The figures of a run on the arrivals of `seed`.
    pub fn new(seed: u64, measurement: Measurement) -> Self {
        let lateness = measurement.lateness();
        Self {
            seed,
            latency: Summary::of(&measurement.latency),
            first_byte: Summary::of(&measurement.first_byte),
            distribution: quantiles(&measurement.latency),
            schedule_delay: ScheduleDelay {
                median_ms: lateness.median.as_secs_f64() * 1e3,
                p99_ms: lateness.p99.as_secs_f64() * 1e3,
                valid: lateness.is_valid(),
                line: lateness.to_string(),
            },
            requests: measurement.tally,
            warm_up: measurement.warm_up,
            upstreams: measurement.upstreams,
            time_scale: measurement.time_scale,
            elapsed_seconds: measurement.elapsed.as_secs_f64(),
            connections: measurement.connections,
            first_failure: measurement.first_failure,
            remarks: Vec::new(),
            latencies: measurement.latency,
        }
    }
}

impl Summary {
    /// The figures of a histogram of microseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| seconds(histogram.value_at_quantile(quantile));
        Some(Self {
            mean: histogram.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: seconds(histogram.max()),
        })
    }
}

/// The distribution in steps that halve twenty times on the way to the slowest request.
pub(super) fn quantiles(histogram: &Histogram<u64>) -> Vec<Quantile> {
    histogram
        .iter_quantiles(10)
        .map(|step| Quantile {
            quantile: step.quantile(),
            seconds: seconds(step.value_iterated_to()),
        })
        .collect()
}

fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}
