//! Prequal's hot-cold lexicographic rule on a pool of asynchronous probes, written from Wydrowski, Kleinberg, Rumble and Archer,
//! "Load is not what you should balance: introducing Prequal", NSDI 2024. There is no public code.
//!
//! Favourable to it: probes take no time and no capacity. As in the paper's own description, there is no defence against
//! servers that fail fast.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use paceline::outcome::Outcome;
use paceline::random::Rng;

use super::balancer::{Ended, LoadBalancer, Pick};
use super::call::Call;
use super::fleet::Fleet;
use crate::model::Time;

/// Probes that a query sends.
const PROBES: usize = 3;
/// Probes that a process keeps.
const POOL: usize = 16;
/// A probe older than this is not used.
const OLDEST: Duration = Duration::from_secs(1);
/// Probes that are removed for each query.
const REMOVALS: f64 = 1.0;
/// How fast the pool may grow: the paper's delta.
const GROWTH: f64 = 1.0;
/// A server with more requests in flight than this quantile of all is hot: 2^-0.25.
const HOT: f64 = 0.840_896_415;
/// How many probes the distribution of requests in flight is estimated from.
const RECENT: usize = 128;
/// Latencies that a server remembers of each number of requests in flight.
const REMEMBERED: usize = 16;

/// The hot-cold lexicographic rule.
#[derive(Debug)]
pub struct Prequal {
    rng: Rng,
    present: Vec<usize>,
    /// By process.
    clients: Vec<Client>,
    /// What servers remember, by server.
    servers: Vec<Memory>,
    /// Requests in flight at the server when each call arrived there.
    seen: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// In the order of their age.
    pool: VecDeque<Probe>,
    /// Requests in flight of the latest probes.
    recent: VecDeque<usize>,
    /// Whether the oldest is to be removed next, or the worst.
    oldest_next: bool,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    server: usize,
    in_flight: usize,
    latency: f64,
    at: Time,
    uses: u32,
}

/// Latencies by the requests that were in flight when the request arrived.
#[derive(Clone, Debug, Default)]
struct Memory(BTreeMap<usize, VecDeque<f64>>);

impl Memory {
    fn add(&mut self, in_flight: usize, latency: f64) {
        let latencies = self.0.entry(in_flight).or_default();
        if latencies.len() == REMEMBERED {
            latencies.pop_front();
        }
        latencies.push_back(latency);
    }

    /// The median of those seen at the nearest number in flight; 0 where none was.
    fn estimate(&self, in_flight: usize) -> f64 {
        let below = self.0.range(..=in_flight).next_back();
        let above = self.0.range(in_flight..).next();
        let nearest = [below, above]
            .into_iter()
            .flatten()
            .min_by_key(|(seen, _)| seen.abs_diff(in_flight));
        nearest.map_or(0.0, |(_, latencies)| {
            let mut sorted: Vec<f64> = latencies.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
        })
    }
}

impl Client {
    /// The place in the pool of the probe to act on: the cold one of least latency, or of only hot ones that with the fewest in flight.
    fn best(&self, threshold: usize) -> Option<usize> {
        let probes = || self.pool.iter().enumerate();
        let cold = probes()
            .filter(|(_, probe)| probe.in_flight <= threshold)
            .min_by(|(_, a), (_, b)| a.latency.total_cmp(&b.latency));
        let best = cold.or_else(|| probes().min_by_key(|(_, probe)| probe.in_flight));
        best.map(|(place, _)| place)
    }

    /// The place of the probe that is worth least: the hot one with the most in flight, or of only cold ones the slowest.
    fn worst(&self, threshold: usize) -> Option<usize> {
        let probes = || self.pool.iter().enumerate();
        let hot = probes()
            .filter(|(_, probe)| probe.in_flight > threshold)
            .max_by_key(|(_, probe)| probe.in_flight);
        let worst =
            hot.or_else(|| probes().max_by(|(_, a), (_, b)| a.latency.total_cmp(&b.latency)));
        worst.map(|(place, _)| place)
    }

    fn threshold(&self) -> usize {
        let mut sorted: Vec<usize> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * HOT) as usize;
        sorted.get(place).copied().unwrap_or(0)
    }
}

impl Prequal {
    /// For so many processes and calls.
    pub fn new(gateways: usize, calls: usize, seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            present: Vec::new(),
            clients: vec![Client::default(); gateways],
            servers: Vec::new(),
            seen: vec![0; calls],
        }
    }

    /// How often a probe may be used: enough for the pool not to run dry. In a fleet hardly larger than the pool that
    /// is without end, and age alone ends a probe.
    fn uses(&mut self) -> u32 {
        let servers = self.present.len().max(1) as f64;
        let fresh = (1.0 - POOL as f64 / servers) * PROBES as f64 - REMOVALS;
        if fresh <= 0.0 {
            return u32::MAX;
        }
        let uses = ((1.0 + GROWTH) / fresh).max(1.0);
        let rounded = uses.floor() + f64::from(self.rng.unit() < uses.fract());
        rounded as u32
    }

    fn choose(&mut self, gateway: usize, now: Time) -> Option<usize> {
        let random = self.rng.below(self.present.len());
        let client = self.clients.get_mut(gateway)?;
        client.pool.retain(|probe| now.since(probe.at) <= OLDEST);
        let threshold = client.threshold();
        let place = client.best(threshold).filter(|_| client.pool.len() >= 2);
        let Some(place) = place else {
            return self.present.get(random).copied();
        };
        let probe = client.pool.get_mut(place)?;
        let server = probe.server;
        probe.uses = probe.uses.saturating_sub(1);
        if probe.uses == 0 {
            client.pool.remove(place);
        }
        for probe in client.pool.iter_mut().filter(|it| it.server == server) {
            probe.in_flight += 1;
        }
        Some(server)
    }

    fn probe(&mut self, gateway: usize, now: Time, fleet: &Fleet) {
        for _ in 0..PROBES {
            let uses = self.uses();
            let place = self.rng.below(self.present.len());
            let Some(&server) = self.present.get(place) else {
                return;
            };
            let in_flight = fleet.replicas().get(server).map_or(0, |it| it.outstanding);
            let latency = self
                .servers
                .get(server)
                .map_or(0.0, |it| it.estimate(in_flight));
            let Some(client) = self.clients.get_mut(gateway) else {
                return;
            };
            if client.pool.len() == POOL {
                client.pool.pop_front();
            }
            client.pool.push_back(Probe {
                server,
                in_flight,
                latency,
                at: now,
                uses,
            });
            if client.recent.len() == RECENT {
                client.recent.pop_front();
            }
            client.recent.push_back(in_flight);
        }
    }
}

impl LoadBalancer for Prequal {
    fn pick(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick {
        let Some(server) = self.choose(call.gateway, now) else {
            return Pick::Unavailable;
        };
        if let Some(client) = self.clients.get_mut(call.gateway) {
            client.oldest_next = !client.oldest_next;
            if client.oldest_next {
                client.pool.pop_front();
            } else if let Some(worst) = client.worst(client.threshold()) {
                client.pool.remove(worst);
            }
        }
        self.probe(call.gateway, now, fleet);
        if let Some(seen) = self.seen.get_mut(call.id) {
            *seen = fleet.replicas().get(server).map_or(0, |it| it.outstanding);
        }
        Pick::Server(server)
    }

    fn ended(&mut self, ended: &Ended<'_>, _now: Time, _fleet: &Fleet) {
        let seen = self.seen.get(ended.call.id).copied().unwrap_or(0);
        if ended.finished.end.outcome() == Outcome::Success
            && let Some(memory) = self.servers.get_mut(ended.server)
        {
            memory.add(seen, ended.latency.as_secs_f64());
        }
    }

    fn membership(&mut self, _now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(server, _)| server).collect();
        self.servers
            .resize_with(fleet.replicas().len(), Memory::default);
        for client in &mut self.clients {
            client
                .pool
                .retain(|probe| self.present.contains(&probe.server));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(probes: &[(usize, f64)]) -> Client {
        let probe = |(server, (in_flight, latency)): (usize, &(usize, f64))| Probe {
            server,
            in_flight: *in_flight,
            latency: *latency,
            at: Time::ZERO,
            uses: 1,
        };
        Client {
            pool: probes.iter().enumerate().map(probe).collect(),
            ..Client::default()
        }
    }

    #[test]
    fn the_fastest_of_the_cold_is_best_and_the_fullest_of_the_hot_worst() {
        let client = client(&[(9, 0.1), (3, 0.5), (4, 0.3), (8, 0.1)]);
        assert_eq!(client.best(4), Some(2));
        assert_eq!(client.worst(4), Some(0));
        assert_eq!(client.best(2), Some(1), "all hot: the fewest in flight");
        assert_eq!(client.worst(9), Some(1), "all cold: the slowest");
    }

    #[test]
    fn a_server_tells_the_latency_at_the_nearest_load() {
        let mut memory = Memory::default();
        assert_eq!(memory.estimate(3), 0.0);
        for latency in [1.0, 3.0, 2.0] {
            memory.add(2, latency);
        }
        memory.add(10, 9.0);
        assert_eq!(memory.estimate(5), 2.0);
        assert_eq!(memory.estimate(7), 9.0);
        for _ in 0..REMEMBERED {
            memory.add(2, 5.0);
        }
        assert_eq!(memory.estimate(0), 5.0, "the oldest are forgotten");
    }
}
