//! What is asked of a fleet, and when: requests with their arrival times and sizes.
//!
//! A [`Workload`] is where the sizes come from (a published [`Shape`] or the rows of a [`Trace`]) and how
//! requests arrive ([`Arrivals`]). [`Workload::requests`] makes the same requests from the same seed, on every platform,
//! so that policies can be compared on equal arrivals:
//!
//! ```
//! use lab::workload::{Shape, Workload};
//!
//! let workload = Workload::of_shape(Shape::Conversation);
//! let requests = workload.requests(1000, Some(20.0), 1)?;
//! assert_eq!(requests, workload.requests(1000, Some(20.0), 1)?);
//! assert!(requests.is_sorted_by_key(|request| request.arrival));
//! # Ok::<(), lab::workload::WorkloadError>(())
//! ```

mod arrivals;
mod lognormal;
mod service;
mod shape;
mod trace;

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

pub use arrivals::Arrivals;
pub use service::ServiceTimes;
pub use shape::Shape;
pub use trace::{MAX_TOKENS, Trace, TraceError};

/// One request of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it is sent, counted from the start of the run.
    pub arrival: Duration,
    /// Tokens that go in.
    pub prompt_tokens: NonZeroU32,
    /// Tokens that come out.
    pub output_tokens: NonZeroU32,
    /// How long a slot server of speed 1 works at it, where that is known.
    pub service: Option<Duration>,
}

/// Where requests come from. See the [module](self).
#[derive(Clone, Debug)]
pub struct Workload {
    sizes: Sizes,
    arrivals: Arrivals,
}

#[derive(Clone, Debug)]
enum Sizes {
    Shape(Shape),
    Trace(Arc<Trace>),
    Service(ServiceTimes),
}

/// A workload that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// No such rate.
    #[error("a rate of {0} requests per second is not allowed, 0.001 to 1000000 is")]
    Rate(f64),
    /// A generated workload without a rate.
    #[error("a generated workload needs a rate: only a trace has one of its own")]
    NoRate,
    /// No such number of requests.
    #[error("{0} requests are not allowed, 1 to {MAX_REQUESTS} are")]
    Count(usize),
    /// A generated workload has no times of its own to replay.
    #[error("recorded arrivals need a trace, {0} is generated: use poisson or bursty:CV")]
    NoTimes(String),
    /// Times that are all the same have no rate.
    #[error(
        "the {0} rows used of the trace all have one timestamp, so they have no rate: use --arrivals poisson and a rate"
    )]
    NoSpan(usize),
}

/// The greatest number of requests in one run.
pub const MAX_REQUESTS: usize = 10_000_000;

impl Workload {
    /// Sizes drawn from a published shape, arriving as was published of it.
    pub fn of_shape(shape: Shape) -> Self {
        Self {
            sizes: Sizes::Shape(shape),
            arrivals: shape.arrivals(),
        }
    }

    /// The rows of a trace, arriving when they did.
    pub fn of_trace(trace: Arc<Trace>) -> Self {
        Self {
            sizes: Sizes::Trace(trace),
            arrivals: Arrivals::Recorded,
        }
    }

    /// Requests that say how long a slot server works at them, in Poisson arrivals.
    pub fn of_service(times: ServiceTimes) -> Self {
        Self {
            sizes: Sizes::Service(times),
            arrivals: Arrivals::Poisson,
        }
    }

    /// The same sizes, arriving otherwise.
    ///
    /// # Errors
    /// [`WorkloadError::NoTimes`] if recorded arrivals are asked of a shape.
    pub fn arriving(self, arrivals: Arrivals) -> Result<Self, WorkloadError> {
        match self.sizes {
            Sizes::Shape(shape) if arrivals == Arrivals::Recorded => {
                Err(WorkloadError::NoTimes(shape.name().to_owned()))
            }
            Sizes::Service(times) if arrivals == Arrivals::Recorded => {
                Err(WorkloadError::NoTimes(format!("a service time, {times},")))
            }
            sizes => Ok(Self { sizes, arrivals }),
        }
    }

    /// How many different requests there are; `None` where they are generated and there is no end of them.
    pub fn available(&self) -> Option<usize> {
        match &self.sizes {
            Sizes::Shape(_) | Sizes::Service(_) => None,
            Sizes::Trace(trace) => Some(trace.rows().len()),
        }
    }

    /// Whether requests come when a trace says, and so have a rate of their own.
    pub fn is_recorded(&self) -> bool {
        self.arrivals == Arrivals::Recorded
    }

    /// Requests per second of a trace that is replayed when it says; `None` of anything else, and of one that takes no time.
    pub fn recorded_rate(&self) -> Option<f64> {
        let Sizes::Trace(trace) = &self.sizes else {
            return None;
        };
        let rows = trace.rows();
        let span = rows.last()?.arrival.as_secs_f64();
        let rate = (rows.len() - 1) as f64 / span;
        Some(rate).filter(|rate| self.is_recorded() && rate.is_finite())
    }

    /// Whether requests say how long a slot server works at them.
    pub fn has_service_times(&self) -> bool {
        matches!(
            self.sizes,
            Sizes::Shape(Shape::Diffusion) | Sizes::Service(_)
        )
    }

    /// Makes `count` requests in the order of their arrival, at a mean of `rate` per second.
    ///
    /// Of a trace with more rows than `count`, the seed chooses the stretch of successive rows; one with fewer
    /// gives all the rows it has. Without a rate, recorded arrivals keep their own pace.
    ///
    /// # Errors
    /// A count or a rate out of range, or no rate where one is needed.
    pub fn requests(
        &self,
        count: usize,
        rate: Option<f64>,
        seed: u64,
    ) -> Result<Vec<Request>, WorkloadError> {
        if !(1..=MAX_REQUESTS).contains(&count) {
            return Err(WorkloadError::Count(count));
        }
        if let Some(rate) = rate.filter(|rate| !(0.001..=1e6).contains(rate)) {
            return Err(WorkloadError::Rate(rate));
        }
        // Sizes and arrivals draw from streams of their own: another rate or
        // another way of arriving leaves the sizes as they are.
        let mut size_rng = Stream::Sizes.rng(seed);
        let mut requests = match &self.sizes {
            Sizes::Shape(shape) => shape.sample(count, &mut size_rng),
            Sizes::Service(times) => times.sample(count, &mut size_rng),
            Sizes::Trace(trace) => {
                let rows = trace.rows();
                let count = count.min(rows.len());
                let start = size_rng.random_range(0..=rows.len() - count);
                rows.iter().skip(start).take(count).copied().collect()
            }
        };
        let mut arrival_rng = Stream::Arrivals.rng(seed);
        self.arrivals
            .assign(&mut requests, rate, &mut arrival_rng)?;
        Ok(requests)
    }
}

/// The independent random streams of one seed.
#[derive(Clone, Copy)]
enum Stream {
    Sizes,
    Arrivals,
}

impl Stream {
    fn rng(self, seed: u64) -> Pcg64 {
        // Successive seeds are expanded to unrelated states by `seed_from_u64`,
        // so two streams a seed need no more than twice as many seeds.
        Pcg64::seed_from_u64(seed.wrapping_mul(2).wrapping_add(self as u64))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sizes {
            Sizes::Shape(shape) => write!(f, "{}", shape.name())?,
            Sizes::Service(times) => write!(f, "service times {times}")?,
            Sizes::Trace(trace) => write!(f, "trace {}", trace.name())?,
        }
        write!(f, ", arrivals {}", self.arrivals)
    }
}
