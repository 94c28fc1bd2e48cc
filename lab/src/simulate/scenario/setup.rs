//! From a scenario to the runs that it asks for.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use paceline::random::Rng;

use super::{Length, Offered, Scenario, ScenarioError};
use crate::compare::capacities;
use crate::model::Time;
use crate::simulate::call::{Call, Caller};
use crate::simulate::engine::Setup;
use crate::workload::{MAX_REQUESTS, Request};

/// One combination of a scenario's loads, gateways and workers.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// Whose case it is.
    pub scenario: &'a Scenario,
    /// How much is asked.
    pub offer: Offer,
    /// Requests per second that the servers that are there from the start can do at most.
    pub capacity: f64,
    /// Requests per second that each server can do at most.
    pub capacities: Arc<[f64]>,
    /// Gateway processes.
    pub gateways: usize,
    /// Workers in each.
    pub workers: usize,
}

/// How much is asked of the fleet in one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    /// This part of the capacity.
    Load(f64),
    /// Requests per second.
    Rate(f64),
    /// What a trace recorded.
    Recorded,
    /// So many clients in a closed loop.
    Clients(NonZeroUsize),
}

pub(super) fn cases(scenario: &Scenario) -> Result<Vec<Case<'_>>, ScenarioError> {
    let capacities = capacities(&scenario.fleet, &scenario.workload)?;
    let there = capacities.iter().zip(&scenario.present);
    let there = there.filter(|(_, present)| **present);
    let capacity: f64 = there.map(|(capacity, _)| capacity).sum();
    if !(capacity > 0.0 && capacity.is_finite()) {
        return Err(ScenarioError::Inside(format!(
            "fleet: a capacity of {capacity} requests a second is not allowed: it must be able to do some of the workload, and take some time for it"
        )));
    }
    let offers: Vec<Offer> = match &scenario.offered {
        Offered::Load(loads) => loads.iter().copied().map(Offer::Load).collect(),
        Offered::Rate(rates) => rates.iter().copied().map(Offer::Rate).collect(),
        Offered::Recorded => vec![Offer::Recorded],
        Offered::Clients(clients) => clients.iter().copied().map(Offer::Clients).collect(),
    };
    let capacities: Arc<[f64]> = capacities.into();
    let mut cases = Vec::new();
    for offer in offers {
        for gateways in &scenario.gateways {
            for workers in &scenario.workers {
                cases.push(Case {
                    scenario,
                    offer,
                    capacity,
                    capacities: Arc::clone(&capacities),
                    gateways: *gateways,
                    workers: *workers,
                });
            }
        }
    }
    Ok(cases)
}

impl Case<'_> {
    /// Requests per second, where they are given.
    pub fn rate(&self) -> Option<f64> {
        match self.offer {
            Offer::Load(load) => Some(load * self.capacity),
            Offer::Rate(rate) => Some(rate),
            Offer::Recorded | Offer::Clients(_) => None,
        }
    }

    /// What every policy is run with at this seed.
    ///
    /// # Errors
    /// The workload cannot be made.
    pub fn setup(&self, seed: u64) -> Result<Setup, ScenarioError> {
        let scenario = self.scenario;
        let closed = match self.offer {
            Offer::Clients(clients) => Some(clients),
            Offer::Load(_) | Offer::Rate(_) | Offer::Recorded => None,
        };
        let count = self.requests();
        // In a closed loop the rate is what it becomes, and arrivals are not used.
        let rate = self.rate().or(closed.map(|_| 1.0));
        let requests = self.all_requests(count, rate, seed)?;
        // A stream of its own: neither sizes nor arrivals depend on the gateways.
        let mut rng = Rng::new(seed ^ 0x6761_7465_7761_7973);
        let mut callers = Callers::new(&scenario.callers, seed);
        let calls = requests.iter().enumerate().map(|(id, request)| Call {
            id,
            arrival: Time::ZERO + request.arrival,
            gateway: rng.below(self.gateways),
            worker: rng.below(self.workers),
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            service: request.service,
            size: request.size,
            caller: callers.draw(),
            patience: scenario
                .abandonment
                .filter(|abandonment| rng.unit() < abandonment.share)
                .map(|abandonment| abandonment.after),
        });
        Ok(Setup {
            servers: scenario.fleet.servers().to_vec(),
            devices: scenario.fleet.devices().to_vec(),
            capacities: self.capacities.to_vec(),
            present: scenario.present.clone(),
            calls: calls.collect(),
            callers: scenario.callers.clone(),
            before: scenario.before.len(),
            concurrency: closed,
            incidents: scenario.incidents.clone(),
            timeout: scenario.timeout,
            gateways: self.gateways,
            workers: self.workers,
            seed,
        })
    }

    /// Those that come before the workload, and the workload.
    fn all_requests(
        &self,
        count: usize,
        rate: Option<f64>,
        seed: u64,
    ) -> Result<Vec<Request>, ScenarioError> {
        let Scenario {
            before, workload, ..
        } = self.scenario;
        let mut requests = workload.requests(count, rate, seed)?;
        let Some(first) = before.first() else {
            return Ok(requests);
        };
        for request in &mut requests {
            request.arrival += first.ahead;
        }
        let mut all = Vec::with_capacity(before.len() + requests.len());
        for (it, place) in before.iter().zip(1u64..) {
            // Each is drawn by itself, from seeds that no workload has.
            let drawn = it.workload.requests(1, Some(1.0), (place << 32) | seed)?;
            all.extend(drawn.into_iter().map(|request| Request {
                arrival: first.ahead - it.ahead,
                ..request
            }));
        }
        all.extend(requests);
        Ok(all)
    }

    fn requests(&self) -> usize {
        match self.scenario.length {
            Length::Requests(requests) => requests,
            Length::Seconds(span) => match self.rate() {
                Some(rate) => ((rate * span.as_secs_f64()).round() as usize).clamp(1, MAX_REQUESTS),
                None => self.scenario.workload.available().unwrap_or(MAX_REQUESTS),
            },
        }
    }
}

/// Draws who sends a request.
struct Callers<'a> {
    all: &'a [Caller],
    total: f64,
    /// A stream of its own: who sends a request changes nothing else about it.
    rng: Rng,
}

impl<'a> Callers<'a> {
    fn new(all: &'a [Caller], seed: u64) -> Self {
        Self {
            all,
            total: all.iter().map(|caller| caller.share).sum(),
            rng: Rng::new(seed ^ 0x6361_6c6c_6572),
        }
    }

    fn draw(&mut self) -> usize {
        let mut left = self.rng.unit() * self.total;
        let drawn = self.all.iter().position(|caller| {
            left -= caller.share;
            left < 0.0
        });
        drawn.unwrap_or(0)
    }
}

/// What sets the case apart from the others.
impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offer {
            Offer::Load(load) => write!(
                f,
                "load {:.0} % ({:.3} requests/s)",
                load * 100.0,
                load * self.capacity
            )?,
            Offer::Rate(rate) => write!(
                f,
                "{rate} requests/s ({:.0} % load)",
                rate / self.capacity * 100.0
            )?,
            Offer::Recorded => write!(f, "as recorded")?,
            Offer::Clients(clients) => write!(f, "{clients} clients")?,
        }
        let plural = |count| if count == 1 { "" } else { "s" };
        let (gateways, workers) = (self.gateways, self.workers);
        write!(f, ", {gateways} gateway{}", plural(gateways))?;
        write!(f, " of {workers} worker{}", plural(workers))
    }
}
