//! Paceline's gateways: the filter's own code, at virtual time.

use std::time::Duration;

use paceline::config::{Admission, Config, PolicyConfig};
use paceline::decision::{Balancer, Decision, Demand, Finished, Reservation, Route};
use paceline::hold::Waiter;
use paceline::host::memory::Memory;
use paceline::pool::{PoolIndex, identity};
use paceline::random::Rng;
use paceline::rejection::Reason;
use paceline::state::Work;
use paceline::time::Timestamp;

use super::balancer::{Counters, Ended, LoadBalancer, Pick, Refused};
use super::call::{Call, Caller};
use super::engine::Setup;
use super::envoy::LeastRequest;
use super::fleet::Fleet;
use super::holding::Holding;
use super::probing::Probing;
use super::settings::{ANY, Settings};
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
    /// All calls, by number.
    calls: Vec<Call>,
    callers: Vec<Caller>,
    admission: Admission,
    /// Calls that had to go for others that wait, and the status of their answers.
    refused: Vec<Refused>,
}

struct Gateway {
    shared: Memory,
    workers: Vec<Worker>,
    holding: Holding,
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
    /// If its pool has a health check.
    probing: Option<Probing>,
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
    /// All gateways of a run.
    pub fn new(settings: Settings, setup: &Setup) -> Self {
        let (gateways, workers, seed) = (setup.gateways, setup.workers, setup.seed);
        let config = settings.config(std::iter::once(ANY)).ok();
        let pool = config.and_then(|config| config.pools.into_iter().next());
        let admission = pool.map(|pool| pool.admission).unwrap_or_default();
        let gateway = || Gateway {
            shared: Memory::default(),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            holding: Holding::new(&admission, workers),
        };
        Self {
            settings,
            rng: Rng::new(seed),
            gateways: (0..gateways).map(|_| gateway()).collect(),
            tickets: setup.calls.iter().map(|_| None).collect(),
            fallback: LeastRequest::new(Some(2), gateways, seed ^ 0x5eed),
            passed_through: 0,
            instances: 0,
            lease: Duration::ZERO,
            calls: setup.calls.clone(),
            callers: setup.callers.clone(),
            admission,
            refused: Vec::new(),
        }
    }

    fn instance(&mut self, config: &Config, servers: Vec<usize>, now: Time) -> Instance {
        self.instances += 1;
        let (number, seed) = (self.instances, self.rng.next_u64());
        let balancer = Balancer::tuned(config, KEY.to_owned(), seed, self.settings.tuning());
        Instance {
            number,
            probing: Probing::new(config, balancer.topology(), KEY, seed),
            balancer,
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
                let Some(gateway) = self.gateways.get_mut(gateway) else {
                    continue;
                };
                if let Some(worker) = gateway.workers.get_mut(worker) {
                    let mut old = std::mem::replace(&mut worker.current, new);
                    if let Some(probing) = old.as_mut().and_then(|old| old.probing.take()) {
                        probing.leave(&mut gateway.shared, fleet, at(now));
                    }
                    worker.draining.extend(old);
                }
            }
        }
    }

    fn worker(&mut self, gateway: usize, worker: usize) -> Option<&mut Worker> {
        self.gateways.get_mut(gateway)?.workers.get_mut(worker)
    }

    /// What is decided about a call; `None` where its worker has no configuration.
    fn decide(&mut self, call: &Call, waiting: u32, now: Time) -> Option<Decision> {
        let demand = Demand {
            waiting,
            waited: now.since(call.arrival),
            ..self.demand(call)
        };
        let Gateway {
            shared, workers, ..
        } = self.gateways.get_mut(call.gateway)?;
        let instance = workers.get_mut(call.worker)?.current.as_mut()?;
        Some(instance.balancer.decide(shared, &demand, at(now)))
    }

    /// The call goes where it was decided.
    fn send(&mut self, call: &Call, route: Route, now: Time) -> Option<usize> {
        let workers = &mut self.gateways.get_mut(call.gateway)?.workers;
        let instance = workers.get_mut(call.worker)?.current.as_mut()?;
        let server = *instance.servers.get(route.member.0)?;
        instance.renewed_at = now;
        instance.outstanding += 1;
        *self.tickets.get_mut(call.id)? = Some(Ticket::Reserved {
            instance: instance.number,
            reservation: route.reservation,
        });
        Some(server)
    }

    fn pass_through(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick {
        self.passed_through += 1;
        if let Some(ticket) = self.tickets.get_mut(call.id) {
            *ticket = Some(Ticket::PassedThrough);
        }
        self.fallback.pick(call, now, fleet)
    }

    /// The call waits in its gateway, unless it is refused.
    fn hold(&mut self, call: &Call, now: Time) -> Pick {
        let waiter = self.waiter(call, now);
        let draw = self.rng.unit();
        let Some(gateway) = self.gateways.get_mut(call.gateway) else {
            return Pick::Unavailable;
        };
        // One more that waits may make it worthwhile for the first not to wait longer.
        gateway.holding.may_have_room = true;
        let mut held = Pick::Hold;
        for (gone, cause) in gateway.holding.offer(call.worker, waiter, draw) {
            let status = Reason::from(cause).status();
            if gone == call.id {
                held = Pick::Refused(status);
            } else {
                self.refused.push(Refused { call: gone, status });
            }
        }
        held
    }

    fn waiter(&self, call: &Call, now: Time) -> Waiter {
        let caller = self.callers.get(call.caller);
        let named = |of: fn(&Caller) -> Option<&String>| caller.and_then(of);
        let class = self.admission.priority.as_ref().map_or(0, |priority| {
            let named = named(|caller| caller.priority.as_ref());
            let place = named.and_then(|name| priority.classes.iter().position(|it| it == name));
            place.unwrap_or(priority.default)
        });
        let tenant = named(|caller| caller.tenant.as_ref());
        let worker = self.gateways.get(call.gateway);
        let worker = worker.and_then(|gateway| gateway.workers.get(call.worker));
        let instance = worker.and_then(|worker| worker.current.as_ref());
        let demand = self.demand(call);
        let work = instance.map(|it| it.balancer.expected_work(&demand));
        let latest = instance.and_then(|it| it.balancer.latest_start(&demand, at(now)));
        let until = at(now).after(self.admission.queue.max_wait);
        Waiter {
            context: call.id as u32,
            class,
            tenant: tenant.map_or(0, |tenant| identity(&[tenant])),
            work: work.unwrap_or(Work::MEAN),
            size: call.size.map(|size| size as f64),
            bytes: 0,
            arrived: at(now),
            until: latest.map_or(until, |latest| latest.min(until)),
        }
    }

    /// The next call of this gateway that waits and can go, and where.
    fn dequeue_from(&mut self, gateway: usize, now: Time, fleet: &Fleet) -> Option<(usize, usize)> {
        let holding = &mut self.gateways.get_mut(gateway)?.holding;
        if !holding.may_have_room {
            return None;
        }
        let Some((worker, context)) = holding.first() else {
            holding.may_have_room = false;
            return None;
        };
        let waiting = holding.waiting();
        let call = *self.calls.get(context as usize)?;
        let decided = self.decide(&call, waiting, now);
        let holding = &mut self.gateways.get_mut(gateway)?.holding;
        match decided {
            Some(Decision::Hold(_)) => {
                holding.may_have_room = false;
                None
            }
            Some(Decision::Route(route)) => {
                holding.start(worker, context);
                let server = self.send(&call, route, now)?;
                Some((call.id, server))
            }
            Some(Decision::Reject(rejection)) => {
                holding.remove(worker, context);
                self.refused.push(Refused {
                    call: call.id,
                    status: rejection.status(),
                });
                None
            }
            Some(Decision::PassThrough(_)) | None => {
                holding.remove(worker, context);
                match self.pass_through(&call, now, fleet) {
                    Pick::Server(server) => Some((call.id, server)),
                    _ => {
                        let status = 503;
                        self.refused.push(Refused {
                            call: call.id,
                            status,
                        });
                        None
                    }
                }
            }
        }
    }

    /// What a call asks of its pool.
    fn demand(&self, call: &Call) -> Demand {
        let caller = self.callers.get(call.caller);
        let allowed = caller.and_then(|caller| caller.deadline);
        Demand {
            pool: PoolIndex(0),
            size: call.size.map(|size| size as f64),
            due: allowed.map(|allowed| at(call.arrival).after(allowed)),
            ..Demand::default()
        }
    }

    fn may_have_room(&mut self) {
        for gateway in &mut self.gateways {
            gateway.holding.may_have_room = true;
        }
    }
}

impl LoadBalancer for Gateways {
    fn pick(&mut self, call: &Call, now: Time, fleet: &Fleet) -> Pick {
        let gateway = self.gateways.get(call.gateway);
        if gateway.is_some_and(|gateway| !gateway.holding.is_empty()) {
            return self.hold(call, now);
        }
        match self.decide(call, 0, now) {
            Some(Decision::Route(route)) => match self.send(call, route, now) {
                Some(server) => Pick::Server(server),
                None => self.pass_through(call, now, fleet),
            },
            Some(Decision::Hold(_)) => self.hold(call, now),
            Some(Decision::Reject(rejection)) => Pick::Refused(rejection.status()),
            Some(Decision::PassThrough(_)) | None => self.pass_through(call, now, fleet),
        }
    }

    fn dequeue(&mut self, now: Time, fleet: &Fleet) -> Option<(usize, usize)> {
        (0..self.gateways.len()).find_map(|gateway| self.dequeue_from(gateway, now, fleet))
    }

    fn refuse(&mut self, now: Time) -> Option<Refused> {
        if let Some(refused) = self.refused.pop() {
            return Some(refused);
        }
        let mut gateways = self.gateways.iter_mut();
        let expired = gateways.find_map(|gateway| gateway.holding.expire(at(now)));
        expired.map(|call| Refused {
            call,
            status: Reason::MaxWait.status(),
        })
    }

    fn abandon(&mut self, call: &Call) {
        if let Some(gateway) = self.gateways.get_mut(call.gateway) {
            gateway.holding.remove(call.worker, call.id as u32);
        }
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
        let Some(gateway) = self.gateways.get_mut(ended.call.gateway) else {
            return;
        };
        gateway.holding.may_have_room = true;
        let Gateway {
            shared, workers, ..
        } = gateway;
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
        self.may_have_room();
    }

    /// Asks servers whether they are ready, looks for those that hang, renews lanes as the filter's tick does, and exchanges latencies
    /// where a policy ranks by them. A renewal within half a lease of a worker's last transaction changes nothing that anyone could see,
    /// so it is left out.
    fn tick(&mut self, now: Time, fleet: &Fleet) {
        let lease = self.lease;
        self.may_have_room();
        for Gateway {
            shared, workers, ..
        } in &mut self.gateways
        {
            for worker in workers {
                for instance in worker.draining.iter_mut().chain(&mut worker.current) {
                    let probing = instance.probing.as_mut();
                    let ready = probing.map(|it| it.tick(shared, fleet, (now, at(now))));
                    let ready = ready.unwrap_or_default();
                    instance.balancer.restart(&ready);
                    instance.balancer.watch(shared, at(now));
                    let due = now.since(instance.renewed_at) >= lease / 2 || !ready.is_empty();
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
        for Gateway {
            shared, workers, ..
        } in &mut self.gateways
        {
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
