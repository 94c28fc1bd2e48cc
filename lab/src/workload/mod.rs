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
mod hint;
mod lognormal;
mod options;
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
pub use hint::SizeHint;
pub use options::{WorkloadArgs, clamp_to_trace};
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
    /// The size that it shows to gateways before it runs: a prompt's tokens, or what a workload of service times says. `None`:
    /// it shows none.
    pub size: Option<u64>,
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
    Service(ServiceTimes, Option<Box<SizeHint>>),
    /// All alike: tokens that go in, and tokens that come out.
    Tokens(NonZeroU32, NonZeroU32),
    /// Each request is of one of these, at random by their shares.
    Mix(Vec<Part>),
    /// The requests are of these one after the other, so many of each.
    Phases(Vec<Part>),
}

/// A workload that is a part of another.
#[derive(Clone, Debug)]
pub struct Part {
    /// How much of the requests, relative to the other parts: 0.001 to 1000.
    pub share: f64,
    /// What they are. How they arrive is the whole's.
    pub workload: Workload,
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
            sizes: Sizes::Service(times, None),
            arrivals: Arrivals::Poisson,
        }
    }

    /// The same, and each request shows a size.
    ///
    /// # Errors
    /// Sizes correlate with lognormal service times only.
    pub fn of_sized_service(times: ServiceTimes, hint: SizeHint) -> Result<Self, String> {
        if times.lognormal().is_none() {
            return Err(format!(
                "a service time, {times}, is not allowed: sizes correlate with lognormal ones"
            ));
        }
        Ok(Self {
            sizes: Sizes::Service(times, Some(Box::new(hint))),
            arrivals: Arrivals::Poisson,
        })
    }

    /// Requests that are all alike, with so many tokens in and out, in Poisson arrivals.
    ///
    /// # Errors
    /// Names the number that is not allowed and what is.
    pub fn of_tokens(prompt: u32, output: u32) -> Result<Self, String> {
        let checked = |name: &str, tokens: u32| {
            NonZeroU32::new(tokens)
                .filter(|tokens| tokens.get() <= MAX_TOKENS)
                .ok_or_else(|| format!("{name}: {tokens} is not allowed: 1 to {MAX_TOKENS} tokens"))
        };
        Ok(Self {
            sizes: Sizes::Tokens(checked("prompt", prompt)?, checked("output", output)?),
            arrivals: Arrivals::Poisson,
        })
    }

    /// Requests of several workloads side by side, in Poisson arrivals.
    ///
    /// # Errors
    /// See [`Workload::of_phases`].
    pub fn of_mix(parts: Vec<Part>) -> Result<Self, String> {
        Ok(Self {
            sizes: Sizes::Mix(check_parts(parts)?),
            arrivals: Arrivals::Poisson,
        })
    }

    /// Requests of several workloads one after the other, in Poisson arrivals.
    ///
    /// # Errors
    /// Names the first part that cannot be one, from `[0]`: a trace, another such workload, a share out of range, or one that
    /// is for other servers than the first.
    pub fn of_phases(parts: Vec<Part>) -> Result<Self, String> {
        Ok(Self {
            sizes: Sizes::Phases(check_parts(parts)?),
            arrivals: Arrivals::Poisson,
        })
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
            Sizes::Service(times, _) if arrivals == Arrivals::Recorded => {
                Err(WorkloadError::NoTimes(format!("a service time, {times},")))
            }
            Sizes::Tokens(..) if arrivals == Arrivals::Recorded => {
                Err(WorkloadError::NoTimes("a number of tokens".to_owned()))
            }
            Sizes::Mix(_) | Sizes::Phases(_) if arrivals == Arrivals::Recorded => {
                Err(WorkloadError::NoTimes("a workload of parts".to_owned()))
            }
            sizes => Ok(Self { sizes, arrivals }),
        }
    }

    /// How many different requests there are; `None` where they are generated and there is no end of them.
    pub fn available(&self) -> Option<usize> {
        match &self.sizes {
            Sizes::Shape(_)
            | Sizes::Service(..)
            | Sizes::Tokens(..)
            | Sizes::Mix(_)
            | Sizes::Phases(_) => None,
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
        match &self.sizes {
            Sizes::Shape(shape) => *shape == Shape::Diffusion,
            Sizes::Service(..) => true,
            Sizes::Trace(_) | Sizes::Tokens(..) => false,
            Sizes::Mix(parts) | Sizes::Phases(parts) => {
                parts.iter().any(|part| part.workload.has_service_times())
            }
        }
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
        let mut requests = self.sizes.sample(count, &mut Streams::new(seed));
        let mut arrival_rng = Stream::Arrivals.rng(seed);
        self.arrivals
            .assign(&mut requests, rate, &mut arrival_rng)?;
        Ok(requests)
    }
}

impl Sizes {
    /// So many requests, or as many as there are; their arrivals are to be assigned.
    fn sample(&self, count: usize, streams: &mut Streams) -> Vec<Request> {
        match self {
            Sizes::Shape(shape) => shape.sample(count, streams),
            Sizes::Service(times, hint) => {
                let mut requests = times.sample(count, &mut streams.sizes);
                if let (Some(hint), Some(service)) = (hint, times.lognormal()) {
                    hint.assign(&mut requests, service, &mut streams.hints);
                }
                requests
            }
            Sizes::Tokens(prompt, output) => {
                let request = Request {
                    arrival: Duration::ZERO,
                    prompt_tokens: *prompt,
                    output_tokens: *output,
                    service: None,
                    size: Some(u64::from(prompt.get())),
                };
                vec![request; count]
            }
            Sizes::Trace(trace) => {
                let rows = trace.rows();
                let count = count.min(rows.len());
                let start = streams.sizes.random_range(0..=rows.len() - count);
                rows.iter().skip(start).take(count).copied().collect()
            }
            Sizes::Mix(parts) => {
                let each: Vec<Vec<Request>> = parts
                    .iter()
                    .map(|part| part.workload.sizes.sample(count, streams))
                    .collect();
                let total: f64 = parts.iter().map(|part| part.share).sum();
                let draw = |place: usize| {
                    let mut left = total * streams.hints.random::<f64>();
                    let mut of_parts = parts.iter().zip(&each);
                    let drawn = of_parts.find(|(part, _)| {
                        left -= part.share;
                        left < 0.0
                    });
                    let (_, requests) = drawn.or(parts.iter().zip(&each).next_back())?;
                    requests.get(place).copied()
                };
                (0..count).filter_map(draw).collect()
            }
            Sizes::Phases(parts) => {
                let total: f64 = parts.iter().map(|part| part.share).sum();
                let mut requests = Vec::with_capacity(count);
                let mut shares = 0.0;
                for part in parts {
                    shares += part.share;
                    let until = (count as f64 * shares / total).round() as usize;
                    let length = until.saturating_sub(requests.len());
                    requests.extend(part.workload.sizes.sample(length, streams));
                }
                requests
            }
        }
    }
}

fn check_parts(parts: Vec<Part>) -> Result<Vec<Part>, String> {
    let Some(first) = parts.first() else {
        return Err(": no part is not allowed: at least one".to_owned());
    };
    let of_first = first.workload.has_service_times();
    for (place, part) in parts.iter().enumerate() {
        if !(0.001..=1000.0).contains(&part.share) {
            return Err(format!(
                "[{place}].share: {} is not allowed: 0.001 to 1000",
                part.share
            ));
        }
        let refused = match &part.workload.sizes {
            Sizes::Trace(_) | Sizes::Mix(_) | Sizes::Phases(_) => {
                Some("a shape, tokens or service times")
            }
            Sizes::Shape(_) | Sizes::Service(..) | Sizes::Tokens(..) => {
                let alike = part.workload.has_service_times() == of_first;
                (!alike).then_some("all parts with service times, or none")
            }
        };
        if let Some(allowed) = refused {
            return Err(format!(
                "[{place}].workload: {} is not allowed: {allowed}",
                part.workload.sizes
            ));
        }
    }
    Ok(parts)
}

/// The independent random streams from which requests are drawn: what they show of themselves leaves alone what they are.
struct Streams {
    sizes: Pcg64,
    hints: Pcg64,
}

impl Streams {
    fn new(seed: u64) -> Self {
        Self {
            sizes: Stream::Sizes.rng(seed),
            // Far from the other two of any seed that is used.
            hints: Pcg64::seed_from_u64(seed ^ 0x6869_6e74_7300_0000),
        }
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
        write!(f, "{}, arrivals {}", self.sizes, self.arrivals)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = |parts: &[Part], between: &str| {
            for (place, part) in parts.iter().enumerate() {
                let between = if place == 0 { "" } else { between };
                write!(f, "{between}{} x {}", part.share, part.workload.sizes)?;
            }
            Ok(())
        };
        match self {
            Sizes::Mix(parts) => list(parts, " with "),
            Sizes::Phases(parts) => list(parts, " then "),
            Sizes::Shape(shape) => write!(f, "{}", shape.name()),
            Sizes::Tokens(prompt, output) => write!(f, "{prompt} tokens in and {output} out"),
            Sizes::Service(times, None) => write!(f, "service times {times}"),
            Sizes::Service(times, Some(hint)) => write!(f, "service times {times} with {hint}"),
            Sizes::Trace(trace) => write!(f, "trace {}", trace.name()),
        }
    }
}
