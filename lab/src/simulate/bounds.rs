//! Bounds: what could be reached by one who knows everything, at once and for nothing.
//!
//! None of them can be deployed. They are references, not proofs: the best of them is the best that is known, and
//! a policy may beat one or the other.

use std::collections::VecDeque;

use paceline::random::Rng;

use super::balancer::{Ended, LoadBalancer, Pick};
use super::call::Call;
use super::envoy::least;
use super::fleet::{Fleet, Replica};
use crate::model::{EventKind, Kind, ServerSpec, Time};

/// Late binding: calls wait in one line for all servers, first come first served, and go to the fastest server with a free slot.
///
/// For slot servers only: a batching server has no number of requests that it should not exceed.
#[derive(Debug)]
pub struct CentralQueue {
    rng: Rng,
    line: VecDeque<usize>,
}

impl CentralQueue {
    /// Breaks ties by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            line: VecDeque::new(),
        }
    }
}

impl LoadBalancer for CentralQueue {
    fn pick(&mut self, call: &Call, _now: Time, _fleet: &Fleet) -> Pick {
        self.line.push_back(call.id);
        Pick::Hold
    }

    fn ended(&mut self, _ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {}

    fn dequeue(&mut self, _now: Time, fleet: &Fleet) -> Option<(usize, usize)> {
        if self.line.is_empty() {
            return None;
        }
        let free = fleet.present().filter(|(_, replica)| has_slot(replica));
        let slowness = |server| {
            let replica = fleet.replicas().get(server);
            replica.map_or(f64::INFINITY, |it| 1.0 / speed(it))
        };
        let server = least(free.map(|(server, _)| server), slowness, &mut self.rng)?;
        Some((self.line.pop_front()?, server))
    }

    fn abandon(&mut self, call: &Call) {
        self.line.retain(|waiting| *waiting != call.id);
    }
}

fn has_slot(replica: &Replica) -> bool {
    match &replica.spec.kind {
        Kind::Slots(slots) => replica.outstanding < slots.slots.get(),
        Kind::Batching(_) => false,
    }
}

/// The speed that the server has now, slow-downs included.
fn speed(replica: &Replica) -> f64 {
    let now = replica.server.condition(Time::ZERO).speed;
    replica.spec.speed * now
}

/// What a request of the workload is on the average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanCall {
    prompt: f64,
    output: f64,
    /// Seconds on a slot of speed 1.
    service: Option<f64>,
}

impl MeanCall {
    /// Of these calls.
    pub fn of(calls: &[Call]) -> Self {
        let mean = |part: fn(&Call) -> f64| super::statistics::mean(calls.iter().map(part));
        let services = calls.iter().filter_map(|call| call.service);
        let service = super::statistics::mean(services.map(|it| it.as_secs_f64()));
        Self {
            prompt: mean(|call| f64::from(call.prompt_tokens.get())),
            output: mean(|call| f64::from(call.output_tokens.get())),
            service: Some(service).filter(|it| it.is_finite()),
        }
    }

    /// Seconds that a mean request takes on this server at speed 1 where it always shares it with so many others.
    fn delay(&self, spec: &ServerSpec, others: usize) -> f64 {
        let load = others as f64 + 1.0;
        match &spec.kind {
            Kind::Slots(slots) => {
                let by_tokens = slots
                    .service
                    .of(self.prompt.round() as u32, self.output.round() as u32);
                let service = self.service.unwrap_or(by_tokens.as_secs_f64());
                service * (load / slots.slots.get() as f64).max(1.0)
            }
            Kind::Batching(batching) => {
                // In each step every request decodes a token, and its prompt's share of a prefill is computed.
                let tokens = load * (1.0 + self.prompt / self.output);
                let context = load * (self.prompt + self.output / 2.0);
                let step = batching
                    .cost
                    .nanos(tokens.round() as u64, context.round() as u64);
                self.output * step as f64 / 1e9
            }
        }
    }
}

/// Shortest expected delay, knowing the true speed of all servers and the true number of requests at each.
#[derive(Debug)]
pub struct Oracle {
    rule: Rule,
    mean: MeanCall,
    /// Seconds of work that a mean request is for each server in saturation, at its own speed.
    pace: Vec<f64>,
    rng: Rng,
}

/// What an [`Oracle`] minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The delay to expect of a server that stays as busy as it is.
    OwnDelay,
    /// That delay and what the request adds to the others'.
    AddedDelay,
    /// The time of a mean request in saturation, times the requests there.
    PaceTimesLoad,
    /// The same, among the servers that are ready and serve what they get, as long as there are any.
    PaceOfServing,
}

impl Oracle {
    /// For calls like these; `pace` is the reciprocal of each server's capacity.
    pub fn new(rule: Rule, mean: MeanCall, pace: Vec<f64>, seed: u64) -> Self {
        Self {
            rule,
            mean,
            pace,
            rng: Rng::new(seed),
        }
    }

    fn score(&self, server: usize, replica: &Replica) -> f64 {
        let there = replica.outstanding;
        let delay = |others| self.mean.delay(&replica.spec, others) / speed(replica);
        match self.rule {
            Rule::OwnDelay => delay(there),
            Rule::AddedDelay => {
                let others = there as f64;
                let before = there.checked_sub(1).map_or(0.0, &delay);
                (others + 1.0) * delay(there) - others * before
            }
            Rule::PaceTimesLoad | Rule::PaceOfServing => {
                let pace = self.pace.get(server).copied().unwrap_or(f64::INFINITY);
                let slowed = replica.spec.speed / speed(replica);
                pace * slowed * (there as f64 + 1.0)
            }
        }
    }
}

impl LoadBalancer for Oracle {
    fn pick(&mut self, _call: &Call, now: Time, fleet: &Fleet) -> Pick {
        let serves = |replica: &Replica| {
            let condition = replica.server.condition(now);
            condition.healthy && condition.serves()
        };
        let knows = self.rule == Rule::PaceOfServing;
        let leaves_out = knows && fleet.present().any(|(_, replica)| serves(replica));
        let scores: Vec<(usize, f64)> = fleet
            .present()
            .filter(|(_, replica)| !leaves_out || serves(replica))
            .map(|(server, replica)| (server, self.score(server, replica)))
            .collect();
        let score_of = |place: usize| scores.get(place).map_or(f64::INFINITY, |it| it.1);
        let best = least(0..scores.len(), score_of, &mut self.rng);
        let best = best.and_then(|place| scores.get(place));
        best.map_or(Pick::Unavailable, |(server, _)| Pick::Server(*server))
    }

    fn ended(&mut self, _ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {}
}

/// Least work left to begin with: knows the true speed of all servers and how long each of them will work at every call
/// that it is sent, but not how much of that is done.
///
/// For slot servers only, where a call's work is a time of its own. This is what a policy that is told perfect sizes can come to.
#[derive(Debug)]
pub struct TrueWork {
    rng: Rng,
    /// Seconds of work at speed 1 that were sent to each server and have not ended.
    outstanding: Vec<f64>,
}

impl TrueWork {
    /// Breaks ties by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            outstanding: Vec::new(),
        }
    }

    /// Seconds that a slot of speed 1 works at the call.
    fn work(call: &Call, replica: &Replica) -> f64 {
        let by_tokens = || match &replica.spec.kind {
            Kind::Slots(slots) => slots
                .service
                .of(call.prompt_tokens.get(), call.output_tokens.get()),
            Kind::Batching(_) => std::time::Duration::ZERO,
        };
        call.service.unwrap_or_else(by_tokens).as_secs_f64()
    }
}

impl LoadBalancer for TrueWork {
    fn pick(&mut self, call: &Call, _now: Time, fleet: &Fleet) -> Pick {
        self.outstanding.resize(fleet.replicas().len(), 0.0);
        let (outstanding, rng) = (&mut self.outstanding, &mut self.rng);
        let delay = |server: usize| {
            let replica = fleet.replicas().get(server)?;
            let there = outstanding.get(server)?;
            Some((there + Self::work(call, replica)) / speed(replica))
        };
        let present = fleet.present().map(|(server, _)| server);
        let best = least(present, |it| delay(it).unwrap_or(f64::INFINITY), rng);
        let Some(server) = best else {
            return Pick::Unavailable;
        };
        let replica = fleet.replicas().get(server);
        if let (Some(there), Some(replica)) = (outstanding.get_mut(server), replica) {
            *there += Self::work(call, replica);
        }
        Pick::Server(server)
    }

    fn ended(&mut self, ended: &Ended<'_>, _now: Time, fleet: &Fleet) {
        let replica = fleet.replicas().get(ended.server);
        if let (Some(there), Some(replica)) = (self.outstanding.get_mut(ended.server), replica) {
            *there -= Self::work(ended.call, replica);
        }
    }
}

/// Clairvoyant shortest delay: knows all sizes to come to light, and works out what each server would do with the request
/// if none came after it.
#[derive(Debug)]
pub struct Clairvoyant {
    rng: Rng,
}

impl Clairvoyant {
    /// Breaks ties by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
        }
    }
}

impl LoadBalancer for Clairvoyant {
    fn pick(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick {
        let mut events = Vec::new();
        let mut end = |server: usize| -> f64 {
            let Some(mut twin) = fleet.replicas().get(server).map(|it| it.server.clone()) else {
                return f64::INFINITY;
            };
            let job = call.job();
            events.clear();
            if twin.arrive(now, job, &mut events).is_err() {
                return f64::INFINITY;
            }
            loop {
                let done =
                    |it: &&crate::model::Event| it.job == job.id && it.kind == EventKind::Done;
                if let Some(done) = events.iter().find(done) {
                    return done.at.since(now).as_secs_f64();
                }
                events.clear();
                match twin.next_event() {
                    Some(next) => twin.advance(next, &mut events),
                    None => return f64::INFINITY,
                }
            }
        };
        let present = fleet.present().map(|(server, _)| server);
        least(present, &mut end, &mut self.rng).map_or(Pick::Unavailable, Pick::Server)
    }

    fn ended(&mut self, _ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {}
}
