//! Upstreams with a gateway in front of them.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::gateway::{Balancing, Gateway, Place, Topology, filter_module};
use serde_json::{Value, json};

use super::client::{Answer, Connection, Pending, get};
use super::place::place;
use super::upstream::{Arrival, Behaviour, Upstream};
use super::{SOON, eventually};

/// Some upstreams, named `a`, `b`, `c`, ..., and a gateway.
pub(crate) struct Fleet {
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) gateway: Gateway,
    pub(crate) topology: Topology,
}

/// A request that an upstream holds.
pub(crate) struct Held {
    pub(crate) connection: Connection,
    pub(crate) response: Pending,
    pub(crate) arrival: Arrival,
}

impl Held {
    /// The upstream that holds it.
    pub(crate) fn upstream(&self) -> &str {
        &self.arrival.upstream
    }
}

/// Where the connection manager's configuration is in Envoy's.
pub(crate) const CONNECTION_MANAGER: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// Where the HTTP filters are.
pub(crate) const HTTP_FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";

/// Names of the first upstreams.
const NAMES: [&str; 30] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x", "y", "z", "aa", "ab", "ac", "ad",
];

/// The configuration of the first `count` upstreams in one pool.
pub(crate) fn one_pool(count: usize, policy: impl Into<Value>) -> Value {
    let upstreams: Vec<_> = NAMES[..count]
        .iter()
        .map(|name| json!({ "cluster": name }))
        .collect();
    json!({ "upstreams": upstreams, "policy": policy.into() })
}

/// A filter with this configuration.
pub(crate) fn paceline(config: &Value) -> Balancing {
    let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
    Balancing::Filter {
        module,
        config: config.to_string(),
    }
}

impl Fleet {
    /// Upstreams that behave alike behind a filter with this configuration.
    pub(crate) async fn start(count: usize, behaviour: Behaviour, config: &Value) -> Self {
        Self::start_with(count, behaviour, paceline(config), |_| {}).await
    }

    /// The same on so many workers.
    pub(crate) async fn start_on(
        workers: u32,
        count: usize,
        behaviour: Behaviour,
        config: &Value,
    ) -> Self {
        Self::start_with(count, behaviour, paceline(config), |topology| {
            topology.workers = workers;
        })
        .await
    }

    /// Upstreams and a gateway as `adjust` wants it. It does not retry unless
    /// that says so: one try has one end.
    pub(crate) async fn start_with(
        count: usize,
        behaviour: Behaviour,
        balancing: Balancing,
        adjust: impl FnOnce(&mut Topology),
    ) -> Self {
        let mut upstreams = Vec::new();
        for name in &NAMES[..count] {
            upstreams.push(Upstream::start(name, behaviour.clone()).await);
        }
        let addresses = upstreams
            .iter()
            .map(|upstream| (upstream.name.clone(), upstream.address));
        let mut topology = Topology::new(addresses, balancing);
        topology.retries = false;
        adjust(&mut topology);
        // Of a container, the listener for the status cannot be reached.
        let place = if topology.status {
            Place::Process
        } else {
            place()
        };
        let gateway = Gateway::start_in(place, &topology)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            upstreams,
            gateway,
            topology,
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.gateway.address()).await
    }

    /// One connection to each worker, in the order of the workers. The kernel
    /// decides which worker gets a connection, so as many are made as it takes:
    /// more than 60 for two workers with probability 2^-59.
    pub(crate) async fn connect_to_each_worker(&self) -> Vec<Connection> {
        let mut connections: BTreeMap<u32, Connection> = BTreeMap::new();
        let mut others = Vec::new();
        let mut before = self.connections_by_worker().await;
        for _ in 0..60 {
            let connection = self.connect().await;
            let worker = eventually("a worker to take the connection", SOON, async || {
                let now = self.connections_by_worker().await;
                let grown = (0..self.topology.workers).find(|worker| now[worker] > before[worker]);
                grown.ok_or(format!("{now:?}"))
            })
            .await;
            *before.get_mut(&worker).unwrap() += 1;
            match connections.entry(worker) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(connection);
                }
                std::collections::btree_map::Entry::Occupied(_) => others.push(connection),
            }
            if connections.len() == self.topology.workers as usize {
                return connections.into_values().collect();
            }
        }
        panic!("60 connections did not reach each worker");
    }

    async fn connections_by_worker(&self) -> BTreeMap<u32, u64> {
        let stats = self.gateway.stats().await.unwrap();
        let connections = |worker: u32| -> u64 {
            let suffix = format!(".worker_{worker}.downstream_cx_total");
            let of_worker = stats.iter().filter(|sample| {
                sample.name.starts_with("listener.") && sample.name.ends_with(&suffix)
            });
            of_worker.map(|sample| sample.value).sum()
        };
        (0..self.topology.workers)
            .map(|worker| (worker, connections(worker)))
            .collect()
    }

    /// Sends so many GET requests, one after the other.
    pub(crate) async fn get_in_turn(&self, count: usize) -> Vec<Answer> {
        let mut connection = self.connect().await;
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(connection.get().await);
        }
        answers
    }

    /// The next request that any upstream holds.
    pub(crate) async fn arrival(&mut self) -> Arrival {
        eventually("a request at any upstream", SOON, async || {
            let held = self.upstreams.iter_mut().find_map(Upstream::try_arrival);
            held.ok_or("none".to_owned())
        })
        .await
    }

    /// Sends a request and waits until an upstream holds it.
    pub(crate) async fn hold_on(&mut self, mut connection: Connection) -> Held {
        let response = connection.start(get());
        let arrival = self.arrival().await;
        Held {
            connection,
            response,
            arrival,
        }
    }

    /// Sends so many requests, each on a connection of its own and after the
    /// one before is held.
    pub(crate) async fn hold(&mut self, count: usize) -> Vec<Held> {
        let mut held = Vec::new();
        for _ in 0..count {
            let connection = self.connect().await;
            held.push(self.hold_on(connection).await);
        }
        held
    }

    /// Lets so many clients send so many requests each, one after the other.
    /// Returns the statuses of all answers.
    pub(crate) async fn load(&self, clients: usize, requests: usize) -> Vec<u16> {
        let gateway = self.gateway.address();
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                tokio::spawn(async move {
                    let mut connection = Connection::open(gateway).await;
                    let mut statuses = Vec::new();
                    for _ in 0..requests {
                        statuses.push(connection.get().await.status.as_u16());
                    }
                    statuses
                })
            })
            .collect();
        let mut statuses = Vec::new();
        for client in clients {
            statuses.extend(client.await.unwrap());
        }
        statuses
    }

    /// Waits until the gauges say that so many requests are in flight.
    pub(crate) async fn expect_in_flight(&self, expected: u64, within: Duration) {
        eventually(&format!("{expected} in flight"), within, async || {
            let stats = self.gateway.stats().await.unwrap();
            let gauges = stats.by_label("paceline_in_flight", "upstream");
            let sum: u64 = gauges
                .values()
                .fold(0, |sum, gauge| sum.wrapping_add(*gauge));
            if sum == expected {
                Ok(())
            } else {
                Err(format!("{gauges:?}"))
            }
        })
        .await;
    }

    /// The value of a counter of the filter, over all labels but these.
    pub(crate) async fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.gateway.stats().await.unwrap().sum(name, labels)
    }

    /// Lets all upstreams behave like this from now on.
    pub(crate) fn set(&self, behaviour: Behaviour) {
        for upstream in &self.upstreams {
            upstream.set(behaviour.clone());
        }
    }

    /// How many requests each upstream has got.
    pub(crate) fn counts(&self) -> Vec<usize> {
        self.upstreams.iter().map(Upstream::count).collect()
    }
}
