//! Envoy's own balancers, written from their documentation and the behaviour of `source/extensions/load_balancing_policies`.
//!
//! Weights are equal here, as an emulated fleet has none. Counts of active requests belong to a process: Envoy's workers share
//! a host's statistics.

mod checks;
mod guarded;
mod outliers;

use paceline::random::Rng;

use crate::model::Time;
use crate::simulate::balancer::{Ended, LoadBalancer, Pick};
use crate::simulate::call::Call;
use crate::simulate::fleet::Fleet;

pub use guarded::Guarded;

/// `LEAST_REQUEST` with equal weights.
#[derive(Debug)]
pub struct LeastRequest {
    /// How many hosts are drawn, with replacement; `None` is `FULL_SCAN`.
    choices: Option<usize>,
    rng: Rng,
    present: Vec<usize>,
    /// Active requests by process and host.
    active: Vec<Vec<u32>>,
}

impl LeastRequest {
    /// Draws `choices` hosts, by default 2 in Envoy, with replacement; `None` compares all hosts and breaks ties at random.
    pub fn new(choices: Option<usize>, gateways: usize, seed: u64) -> Self {
        Self {
            choices,
            rng: Rng::new(seed),
            present: Vec::new(),
            active: vec![Vec::new(); gateways],
        }
    }
}

impl LeastRequest {
    /// The host among these that takes a call, which counts there from now on.
    pub(super) fn pick_among(&mut self, hosts: &[usize], call: &Call, fleet: &Fleet) -> Pick {
        let Some(active) = self.active.get_mut(call.gateway) else {
            return Pick::Unavailable;
        };
        active.resize(fleet.replicas().len(), 0);
        let load = |host: usize| active.get(host).copied().unwrap_or(0);
        let best = match self.choices {
            Some(choices) => {
                let drawn = (0..choices).filter_map(|_| {
                    let place = self.rng.below(hosts.len());
                    hosts.get(place).copied()
                });
                // The first drawn stays unless a later one has fewer.
                drawn.reduce(
                    |best, host| {
                        if load(host) < load(best) { host } else { best }
                    },
                )
            }
            None => least(
                hosts.iter().copied(),
                |host| f64::from(load(host)),
                &mut self.rng,
            ),
        };
        let Some(best) = best else {
            return Pick::Unavailable;
        };
        if let Some(count) = active.get_mut(best) {
            *count += 1;
        }
        Pick::Server(best)
    }
}

impl LoadBalancer for LeastRequest {
    fn pick(&mut self, call: &Call, _now: Time, fleet: &Fleet) -> Pick {
        let present = std::mem::take(&mut self.present);
        let pick = self.pick_among(&present, call, fleet);
        self.present = present;
        pick
    }

    fn ended(&mut self, ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {
        let active = self.active.get_mut(ended.call.gateway);
        if let Some(count) = active.and_then(|active| active.get_mut(ended.server)) {
            *count -= 1;
        }
    }

    fn membership(&mut self, _now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(host, _)| host).collect();
    }
}

/// `ROUND_ROBIN` with equal weights: each worker goes round on its own, from a random start.
#[derive(Debug)]
pub struct RoundRobin {
    workers: usize,
    rng: Rng,
    present: Vec<usize>,
    next: Vec<usize>,
}

impl RoundRobin {
    /// For so many processes with so many workers each.
    pub fn new(gateways: usize, workers: usize, seed: u64) -> Self {
        Self {
            workers,
            rng: Rng::new(seed),
            present: Vec::new(),
            next: vec![0; gateways * workers],
        }
    }
}

impl LoadBalancer for RoundRobin {
    fn pick(&mut self, call: &Call, _now: Time, _fleet: &Fleet) -> Pick {
        let turn = call.gateway * self.workers + call.worker;
        let Some(turn) = self.next.get_mut(turn) else {
            return Pick::Unavailable;
        };
        *turn = (*turn + 1) % self.present.len().max(1);
        self.present
            .get(*turn)
            .map_or(Pick::Unavailable, |host| Pick::Server(*host))
    }

    fn ended(&mut self, _ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {}

    fn membership(&mut self, _now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(host, _)| host).collect();
        for turn in &mut self.next {
            *turn = self.rng.below(self.present.len());
        }
    }
}

/// `RANDOM`.
#[derive(Debug)]
pub struct Random {
    rng: Rng,
    present: Vec<usize>,
}

impl Random {
    /// Draws from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            present: Vec::new(),
        }
    }
}

impl LoadBalancer for Random {
    fn pick(&mut self, _call: &Call, _now: Time, _fleet: &Fleet) -> Pick {
        let place = self.rng.below(self.present.len());
        self.present
            .get(place)
            .map_or(Pick::Unavailable, |host| Pick::Server(*host))
    }

    fn ended(&mut self, _ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {}

    fn membership(&mut self, _now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(host, _)| host).collect();
    }
}

/// The server of the least score; of several, each is as likely.
pub(in crate::simulate) fn least(
    servers: impl Iterator<Item = usize>,
    mut score: impl FnMut(usize) -> f64,
    rng: &mut Rng,
) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    let mut ties = 1;
    for server in servers {
        let score = score(server);
        match best {
            Some((_, least)) if score > least => continue,
            Some((_, least)) if score == least => {
                ties += 1;
                if rng.below(ties) > 0 {
                    continue;
                }
            }
            _ => ties = 1,
        }
        best = Some((server, score));
    }
    best.map(|(server, _)| server)
}
