//! Paceline's gateways: the filter's own code, at virtual time.

use std::time::Duration;

use paceline::config::{Config, PolicyConfig};
use paceline::decision::{Balancer, Demand, Finished, Reservation};
use paceline::host::memory::Memory;
use paceline::random::Rng;
use paceline::time::Timestamp;

use super::balancer::{Counters, Ended, LoadBalancer, Pick};
use super::call::Call;
use super::envoy::LeastRequest;
use super::fleet::Fleet;
use super::settings::Settings;
use crate::model::Time;

/// Where the workers of a process share their record.
const KEY: &str = "paceline/simulated";
/// The gateways' clocks have run for so long when a run begins: an hour.
const UPTIME: u64 = 3_600_000_000_000;

/// All gateways: each a process with shared data of its own, and workers with a balancer each.
pub struct Gateways {
    settings: Settings,
    rng: Rng,
    gateways: Vec<Gateway>,
    /// What calls in flight give back, by call.
    tickets: Vec<Option<Ticket>>,
    /// The route that takes what passes through.
    fallback: LeastRequest,
    passed_through: u64,
    /// Numbers the balancers there have ever been.
    instances: u64,
    lease: Duration,
}

#[derive(Default)]
struct Gateway {
    shared: Memory,
    workers: Vec<Worker>,
}

/// A worker's balancers: the one for the configuration that is in force, and those before it that still have calls.
#[derive(Default)]
struct Worker {
    current: Option<Instance>,
    draining: Vec<Instance>,
}

struct Instance {
    number: u64,
    balancer: Balancer,
    /// The server of each member.
    servers: Vec<usize>,
    /// Whether what it measures decides anything.
    ranks_latencies: bool,
    /// When its lane was last renewed.
    renewed_at: Time,
    outstanding: usize,
}

enum Ticket {
    Reserved {
        instance: u64,
        reservation: Reservation,
    },
    PassedThrough,
}

impl Gateways {
    /// So many processes with so many workers each, for a run of `calls` calls.
    pub fn new(
        settings: Settings,
        gateways: usize,
        workers: usize,
        calls: usize,
        seed: u64,
    ) -> Self {
        let gateway = || Gateway {
            shared: Memory::default(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
        };
        Self {
            settings,
            rng: Rng::new(seed),
            gateways: (0..gateways).map(|_| gateway()).collect(),
            tickets: (0..calls).map(|_| None).collect(),
            fallback: LeastRequest::new(Some(2), gateways, seed ^ 0x5eed),
            passed_through: 0,
            instances: 0,
            lease: Duration::ZERO,
        }
    }

    fn instance(&mut self, config: &Config, servers: Vec<usize>, now: Time) -> Instance {
        self.instances += 1;
        Instance {
            number: self.instances,
            balancer: Balancer::tuned(
                config,
                KEY.to_owned(),
                self.rng.next_u64(),
                self.settings.tuning(),
            ),
            servers,
            ranks_latencies: config
                .pools
                .iter()
                .any(|pool| matches!(pool.policy, PolicyConfig::LatencyPercentile { .. })),
            renewed_at: now,
            outstanding: 0,
        }
    }

    /// Gives every worker a balancer for the servers that are present; an empty or refused set leaves calls to the fallback.
    fn configure(&mut self, now: Time, fleet: &Fleet) {
        self.fallback.membership(now, fleet);
        let names = fleet
            .present()
            .map(|(_, replica)| replica.spec.name.as_str());
        let config = self.settings.config(names).ok();
        let servers: Vec<usize> = fleet.present().map(|(server, _)| server).collect();
        for gateway in 0..self.gateways.len() {
            let workers = self.gateways.get(gateway).map_or(0, |it| it.workers.len());
            for worker in 0..workers {
                let new = config.as_ref().map(|config| {
                    self.lease = config.lease;
                    self.instance(config, servers.clone(), now)
                });
                if let Some(worker) = self.worker(gateway, worker) {
                    let old = std::mem::replace(&mut worker.current, new);
                    worker.draining.extend(old);
                }
            }
        }
    }

    fn worker(&mut self, gateway: usize, worker: usize) -> Option<&mut Worker> {
        self.gateways.get_mut(gateway)?.workers.get_mut(worker)
    }

    fn try_pick(&mut self, call: &Call, now: Time) -> Option<usize> {
        let Gateway { shared, workers } = self.gateways.get_mut(call.gateway)?;
        let instance = workers.get_mut(call.worker)?.current.as_mut()?;
        let demand = Demand {
            pool: 0,
            size: call.size.map(|size| size as f64),
        };
        let route = instance.balancer.pick(shared, &demand, at(now)).ok()?;
        let server = *instance.servers.get(route.member)?;
        instance.renewed_at = now;
        instance.outstanding += 1;
        *self.tickets.get_mut(call.id)? = Some(Ticket::Reserved {
            instance: instance.number,
            reservation: route.reservation,
        });
        Some(server)
    }
}

impl LoadBalancer for Gateways {
    fn pick(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick {
        if let Some(server) = self.try_pick(call, now) {
            return Pick::Server(server);
        }
        self.passed_through += 1;
        if let Some(ticket) = self.tickets.get_mut(call.id) {
            *ticket = Some(Ticket::PassedThrough);
        }
        self.fallback.pick(call, now, fleet)
    }

    fn ended(&mut self, ended: &Ended<'_>, now: Time, fleet: &Fleet) {
        let ticket = self.tickets.get_mut(ended.call.id).and_then(std::mem::take);
        let (number, reservation) = match ticket {
            None => return,
            Some(Ticket::PassedThrough) => return self.fallback.ended(ended, now, fleet),
            Some(Ticket::Reserved {
                instance,
                reservation,
            }) => (instance, reservation),
        };
        let Some(Gateway { shared, workers }) = self.gateways.get_mut(ended.call.gateway) else {
            return;
        };
        let Some(worker) = workers.get_mut(ended.call.worker) else {
            return;
        };
        // A worker that was restarted knows nothing of what its predecessor had in flight.
        let mut instances = worker.draining.iter_mut().chain(&mut worker.current);
        let Some(instance) = instances.find(|it| it.number == number) else {
            return;
        };
        instance.outstanding -= 1;
        let first_byte_at = ended.finished.first_byte_at;
        let finished = Finished {
            first_byte_at: first_byte_at.map(|at| at.after(Duration::from_nanos(UPTIME))),
            ..*ended.finished
        };
        let released = instance
            .balancer
            .release(shared, reservation, &finished, at(now));
        if released.is_ok() {
            instance.renewed_at = now;
        }
        worker.retire(shared);
    }

    fn membership(&mut self, now: Time, fleet: &Fleet) {
        self.configure(now, fleet);
    }

    /// Renews lanes as the filter's tick does, and exchanges latencies where a policy ranks by them. A renewal within half a lease of a worker's last transaction changes
    /// nothing that anyone could see, so it is left out.
    fn tick(&mut self, now: Time) {
        let lease = self.lease;
        for Gateway { shared, workers } in &mut self.gateways {
            for worker in workers {
                for instance in worker.draining.iter_mut().chain(&mut worker.current) {
                    let due = now.since(instance.renewed_at) >= lease / 2;
                    if instance.ranks_latencies {
                        // In memory it does not fail.
                        let _ = instance
                            .balancer
                            .exchange_latencies(shared, at(now), |_, _| {});
                    }
                    if due && instance.balancer.renew(shared, at(now)).is_ok() {
                        instance.renewed_at = now;
                    }
                }
                worker.retire(shared);
            }
        }
    }

    fn restart_worker(&mut self, gateway: usize, worker: usize, now: Time) {
        let Some(place) = self.worker(gateway, worker) else {
            return;
        };
        place.draining.clear();
        let Some(old) = place.current.take() else {
            return;
        };
        let topology = old.balancer.topology().clone();
        let names = topology.upstreams.iter().map(|it| it.cluster.as_str());
        let config = self.settings.config(names).ok();
        let new = config.map(|config| self.instance(&config, old.servers, now));
        if let Some(place) = self.worker(gateway, worker) {
            place.current = new;
        }
    }

    fn counters(&mut self, now: Time) -> Counters {
        // By then the leases of all that died are over.
        let late = now + self.lease + self.lease;
        let mut leaked = 0;
        for Gateway { shared, workers } in &mut self.gateways {
            let instances = workers
                .iter_mut()
                .flat_map(|worker| worker.draining.iter_mut().chain(&mut worker.current));
            let totals = instances.filter_map(|it| it.balancer.renew(shared, at(late)).ok());
            leaked += totals
                .last()
                .map_or(0, |in_flight| in_flight.iter().sum::<u64>());
        }
        Counters {
            pass_through: self.passed_through,
            leaked,
        }
    }
}

impl Worker {
    /// Lets go of balancers of former configurations once nothing of theirs is in flight.
    fn retire(&mut self, shared: &mut Memory) {
        self.draining
            .retain_mut(|it| it.outstanding > 0 || it.balancer.leave(shared).is_err());
    }
}

fn at(time: Time) -> Timestamp {
    Timestamp::from_nanos(UPTIME + time.as_nanos())
}
