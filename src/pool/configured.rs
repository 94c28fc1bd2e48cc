//! The topology of a configuration, and what is kept of the one before.

use super::identity::{Handle, identity};
use super::{Device, DeviceIndex, Member, Pool, PoolIndex, Topology, Upstream, UpstreamIndex};
use crate::config::{self, Accepts, Config, LatencySignal, MaxInFlight, Memory};
use crate::map::Map;

impl Topology {
    /// What `config` can choose from by itself.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Topology::with_endpoints(config, |_| Vec::new())
    }

    /// What `config` can choose from, with the endpoints that were discovered
    /// of the clusters that it leaves to discovery.
    #[must_use]
    pub fn with_endpoints(config: &Config, discovered: impl Fn(&str) -> Vec<String>) -> Self {
        let mut topology = Topology {
            pools: Vec::with_capacity(config.pools.len()),
            members: Vec::new(),
            upstreams: Vec::new(),
            devices: config.devices.iter().map(Device::new).collect(),
        };
        let mut known = Map::default();
        for (number, pool) in config.pools.iter().enumerate() {
            let signal = pool.latency.signal;
            let learned_from = learned_from(pool);
            let start = topology.members.len();
            let count = pool.upstreams.len();
            let reserved = pool.reserve.map_or(0, |reserve| reserve.count(count));
            for (place, configured) in pool.upstreams.iter().enumerate() {
                let upstream = Upstream::cluster(&configured.cluster);
                let name = (PoolIndex(number), pool.name.as_str());
                let weight = configured.weight;
                let added = topology.add(&mut known, name, upstream, weight, &learned_from);
                if let Some(member) = added {
                    member.accepts = configured.accepts;
                    member.is_reserved = place + reserved >= count;
                    member.max_in_flight = configured.max_in_flight;
                    member.memory = placed(config, configured);
                }
            }
            if let Some(endpoints) = &pool.endpoints {
                let cluster = &endpoints.cluster;
                for endpoint in endpoints.fixed.iter().flatten() {
                    let upstream = Upstream::endpoint(cluster, endpoint.address.clone());
                    let added = topology.add(
                        &mut known,
                        (PoolIndex(number), &pool.name),
                        upstream,
                        endpoint.weight,
                        &learned_from,
                    );
                    if let Some(member) = added {
                        member.max_in_flight = endpoint.max_in_flight;
                    }
                }
                if endpoints.fixed.is_none() {
                    for address in discovered(cluster) {
                        let upstream = Upstream::endpoint(cluster, address);
                        let name = (PoolIndex(number), pool.name.as_str());
                        let added = topology.add(&mut known, name, upstream, 1, &learned_from);
                        if let Some(member) = added {
                            member.max_in_flight = endpoints.each;
                        }
                    }
                }
            }
            let cluster = pool.endpoints.as_ref();
            topology.pools.push(Pool {
                name: pool.name.clone(),
                members: start..topology.members.len(),
                cluster: cluster.map(|endpoints| endpoints.cluster.clone()),
                reserve: pool.reserve,
                is_checked: pool.health_check.is_some(),
                deadline: pool.admission.deadline_mode(),
                max_in_flight: pool.max_in_flight,
                mode: pool.mode,
                signal,
                identity: identity(&[&[&*pool.name], learned_from.as_slice()].concat()),
            });
        }
        topology
    }

    fn add(
        &mut self,
        known: &mut Map<u64, UpstreamIndex>,
        (pool, name): (PoolIndex, &str),
        upstream: Upstream,
        weight: u32,
        learned_from: &[&str],
    ) -> Option<&mut Member> {
        let mut names = vec![name, &upstream.cluster];
        names.extend(upstream.endpoint.as_deref());
        names.extend(learned_from);
        let identity = identity(&names);
        let index = *known.entry(upstream.identity).or_insert_with(|| {
            self.upstreams.push(upstream);
            UpstreamIndex(self.upstreams.len() - 1)
        });
        self.members.push(Member {
            pool,
            upstream: index,
            weight: f64::from(weight),
            accepts: Accepts::ALL,
            is_reserved: false,
            max_in_flight: MaxInFlight::Unlimited,
            memory: None,
            identity,
        });
        self.members.last_mut()
    }

    /// Keeps of `old` the upstreams with these numbers, and their members,
    /// though no pool can pick them any more.
    pub fn retain(&mut self, old: &Topology, held: impl Iterator<Item = UpstreamIndex>) {
        for index in held {
            let Some(upstream) = old.upstream(index) else {
                continue;
            };
            let place = self.find_upstream(Handle::new(index.0, upstream.identity));
            let place = place.unwrap_or_else(|| {
                self.upstreams.push(upstream.clone());
                UpstreamIndex(self.upstreams.len() - 1)
            });
            for member in old.members.iter().filter(|it| it.upstream == index) {
                if !self.members.iter().any(|it| it.identity == member.identity) {
                    self.members.push(Member {
                        upstream: place,
                        ..member.clone()
                    });
                }
            }
        }
    }
}

impl Upstream {
    fn cluster(name: &str) -> Self {
        Upstream {
            cluster: name.to_owned(),
            endpoint: None,
            identity: identity(&[name]),
        }
    }

    fn endpoint(cluster: &str, address: String) -> Self {
        Upstream {
            cluster: cluster.to_owned(),
            identity: identity(&[cluster, &address]),
            endpoint: Some(address),
        }
    }
}

impl Device {
    fn new(configured: &config::Device) -> Self {
        Device {
            name: configured.name.clone(),
            memory: configured.memory,
        }
    }
}

/// Where requests of an upstream take memory, and how much.
fn placed(config: &Config, upstream: &config::Upstream) -> Option<(DeviceIndex, Memory)> {
    let placement = upstream.placement.as_ref()?;
    let mut devices = config.devices.iter();
    let device = devices.position(|it| it.name == placement.device)?;
    Some((DeviceIndex(device), placement.memory))
}

/// What tells apart, in a hash of names, what was learned under another signal or
/// from sizes of another source than the usual: it says nothing under these. No
/// cluster's endpoint is called so.
fn learned_from(pool: &config::Pool) -> Vec<&str> {
    let mut names = match pool.latency.signal {
        LatencySignal::Complete => Vec::new(),
        LatencySignal::FirstByte => vec!["first_byte"],
    };
    names.extend(pool.request_size.names());
    names
}
