//! When requests arrive.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::Exp1;

use super::{Request, WorkloadError};

/// How requests arrive. Its text form is `poisson`, `recorded` or `bursty:CV`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independently of each other.
    Poisson,
    /// When the trace says; scaled to the rate, if one is given.
    Recorded,
    /// In bursts: an interrupted Poisson process. Requests come at 3 times the mean rate while it is on and not at all
    /// while it is off, and the phases last as long as the coefficient of variation asks.
    ///
    /// A run of few bursts would stray far from its rate, so its times are then scaled to have exactly the rate asked for,
    /// which leaves the coefficient as it is.
    Bursty {
        /// The coefficient of variation of the times between arrivals, 1.1 to 100; Poisson arrivals have 1.
        cv: f64,
    },
}

/// How many times the mean rate a burst has.
const PEAK: f64 = 3.0;

impl Arrivals {
    /// Gives the requests their arrival times: the first of them at about zero, in their order.
    ///
    /// # Errors
    /// See [`WorkloadError`].
    pub(super) fn assign(
        self,
        requests: &mut [Request],
        rate: Option<f64>,
        rng: &mut impl Rng,
    ) -> Result<(), WorkloadError> {
        match self {
            Self::Poisson => {
                let rate = rate.ok_or(WorkloadError::NoRate)?;
                let mut at = 0.0;
                for request in requests {
                    at += rng.sample::<f64, _>(Exp1) / rate;
                    request.arrival = Duration::from_secs_f64(at);
                }
            }
            Self::Bursty { cv } => {
                let rate = rate.ok_or(WorkloadError::NoRate)?;
                let mut process = InterruptedPoisson::new(cv);
                let mut at = 0.0;
                for request in &mut *requests {
                    at += process.gap(rng);
                    request.arrival = Duration::from_secs_f64(at);
                }
                scale_to(requests, rate)?;
            }
            Self::Recorded => {
                let start = requests
                    .first()
                    .map_or(Duration::ZERO, |first| first.arrival);
                for request in &mut *requests {
                    request.arrival = request.arrival.saturating_sub(start);
                }
                if let Some(rate) = rate {
                    scale_to(requests, rate)?;
                }
            }
        }
        Ok(())
    }
}

/// Stretches the arrivals so that they come at `rate` from the first to the last.
fn scale_to(requests: &mut [Request], rate: f64) -> Result<(), WorkloadError> {
    let ends = requests.first().zip(requests.last());
    let (start, span) = ends.map_or((Duration::ZERO, Duration::ZERO), |(first, last)| {
        (first.arrival, last.arrival.saturating_sub(first.arrival))
    });
    if requests.len() > 1 && span.is_zero() {
        return Err(WorkloadError::NoSpan(requests.len()));
    }
    let gaps = requests.len().saturating_sub(1).max(1) as f64;
    let factor = if span.is_zero() {
        1.0
    } else {
        gaps / (rate * span.as_secs_f64())
    };
    for request in requests {
        let offset = request.arrival.saturating_sub(start);
        request.arrival = offset.mul_f64(factor);
    }
    Ok(())
}

/// A Poisson process of mean rate 1 that an exponential clock switches on and off.
///
/// With the rate `r` while on, `off` the rate of switching off and `on` that of switching on again, times
/// between arrivals have the squared coefficient of variation `1 + 2 r off / (off + on)^2` (Kuczura, "The interrupted Poisson process as
/// an overflow process", 1973). The part of the time that it is on is `1 / r`.
struct InterruptedPoisson {
    switch_off: f64,
    switch_on: f64,
}

impl InterruptedPoisson {
    fn new(cv: f64) -> Self {
        let on_share = 1.0 / PEAK;
        let switching = 2.0 * PEAK * (1.0 - on_share) / (cv * cv - 1.0);
        Self {
            switch_off: switching * (1.0 - on_share),
            switch_on: switching * on_share,
        }
    }

    /// The time from one arrival to the next. Just after an arrival the process is on.
    fn gap(&mut self, rng: &mut impl Rng) -> f64 {
        let mut gap = 0.0;
        loop {
            gap += rng.sample::<f64, _>(Exp1) / (PEAK + self.switch_off);
            if rng.random::<f64>() * (PEAK + self.switch_off) < PEAK {
                return gap;
            }
            gap += rng.sample::<f64, _>(Exp1) / self.switch_on;
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisson => f.write_str("poisson"),
            Self::Recorded => f.write_str("recorded"),
            Self::Bursty { cv } => write!(f, "bursty:{cv}"),
        }
    }
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "poisson" => Ok(Self::Poisson),
            "recorded" => Ok(Self::Recorded),
            _ => text
                .strip_prefix("bursty:")
                .and_then(|cv| cv.parse().ok())
                .filter(|cv| (1.1..=100.0).contains(cv))
                .map(|cv| Self::Bursty { cv })
                .ok_or_else(|| {
                    format!(
                        "no arrivals are called {text:?}: allowed are poisson, recorded and bursty:CV with a coefficient of variation CV of 1.1 to 100"
                    )
                }),
        }
    }
}
