//! What can be chosen: pools, their members, and the upstreams behind them.
//!
//! An *upstream* is one routing target. A *member* is an upstream in a pool:
//! two pools may share an upstream, and then each has a member of its own,
//! because what is learned of a server depends on the requests that it is sent,
//! while what is outstanding there is the upstream's, whoever sent it.
//!
//! A pool names its upstreams, or one cluster whose endpoints are its upstreams.
//! Endpoints come and go while requests are under way, so numbers hold only
//! within one [`Topology`]; a [`Handle`] finds the same one in the next.

use std::marker::PhantomData;
use std::ops::Range;

use crate::config::{
    self, Accepts, Config, DeadlineMode, LatencySignal, MaxInFlight, Memory, Mode, Reserve,
};
use crate::random::mix;

/// A member's number: its place in the configuration, over all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberIndex(pub usize);

/// An upstream's number: its place in [`Topology::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpstreamIndex(pub usize);

/// A pool's number: its place in [`Topology::pools`] and in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolIndex(pub usize);

/// A device's number: its place in [`Topology::devices`] and in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceIndex(pub usize);

/// A member or an upstream, `T`, to be found again in another topology.
#[derive(Debug)]
pub struct Handle<T> {
    /// Where it was; a shortcut.
    index: usize,
    identity: u64,
    of: PhantomData<fn() -> T>,
}

/// A member, to be found again in another topology.
pub type MemberHandle = Handle<Member>;

/// An upstream, to be found again in another topology.
pub type UpstreamHandle = Handle<Upstream>;

// Derived, these would ask the same of `T`, which a handle does not hold.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.identity) == (other.index, other.identity)
    }
}

impl<T> Eq for Handle<T> {}

impl<T> Handle<T> {
    const fn new(index: usize, identity: u64) -> Self {
        Handle {
            index,
            identity,
            of: PhantomData,
        }
    }

    /// What tells it apart in every topology.
    #[must_use]
    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// The number that it had in the topology that it is from.
    pub(crate) const fn index_then(&self) -> usize {
        self.index
    }
}

/// One upstream in one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which pool it is in.
    pub pool: PoolIndex,
    /// Which upstream it is.
    pub upstream: UpstreamIndex,
    /// Its share relative to the others' of the pool; 0 where it gets no request.
    pub weight: f64,
    /// Which sizes of requests it takes.
    pub accepts: Accepts,
    /// Whether it is kept free for small requests.
    pub is_reserved: bool,
    /// How many requests its upstream may have in flight.
    pub max_in_flight: MaxInFlight,
    /// The number of the device where its requests take memory, and how much.
    pub memory: Option<(DeviceIndex, Memory)>,
    /// Tells it apart in the shared record: a hash of the two names, and of the
    /// pool's signal and source of sizes.
    pub identity: u64,
}

impl Member {
    /// The most requests that may be in flight at its upstream, if anything limits them.
    /// `learned` are the limits of all upstreams for which they are learned.
    #[inline]
    #[must_use]
    pub fn most_in_flight(&self, learned: &[u64]) -> Option<u64> {
        let learned = learned.get(self.upstream.0).copied();
        self.max_in_flight.most(learned)
    }
}

/// One routing target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name of the Envoy cluster.
    pub cluster: String,
    /// Which of the cluster's endpoints it is, `ip:port`; `None` for the cluster
    /// as a whole.
    pub endpoint: Option<String>,
    /// Tells it apart in the shared record: a hash of the names.
    pub identity: u64,
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

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(&self.cluster)
    }
}

/// One pool's part of the members.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Where its members are in [`Topology::members`]; empty where no endpoint is
    /// known.
    pub members: Range<usize>,
    /// The cluster whose endpoints are balanced, if it is one's.
    pub cluster: Option<String>,
    /// What is kept free for small requests, if anything.
    pub reserve: Option<Reserve>,
    /// Whether its upstreams are asked if they are ready.
    pub is_checked: bool,
    /// What deadlines of its requests do.
    pub deadline: DeadlineMode,
    /// How many of its requests may be in flight.
    pub max_in_flight: MaxInFlight,
    /// Which part of its requests goes where Paceline picks.
    pub mode: Mode,
    /// What is taken for the latency of a request to it.
    pub signal: LatencySignal,
    /// Tells it apart in the shared record: a hash of its name, its signal and its
    /// source of sizes.
    pub identity: u64,
}

impl Pool {
    /// The numbers of its members.
    pub fn member_indexes(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        self.members.clone().map(MemberIndex)
    }
}

/// What upstreams share the memory of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The bytes that requests may take.
    pub memory: u64,
}

/// All pools, members and upstreams of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// In the order of the configuration.
    pub pools: Vec<Pool>,
    /// Pool by pool, each in the order of the configuration; then those that
    /// no pool can pick any more, but requests still hold.
    pub members: Vec<Member>,
    /// Each upstream once, in the order of first mention.
    pub upstreams: Vec<Upstream>,
    /// In the order of the configuration.
    pub devices: Vec<Device>,
}

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
        let mut known = hashbrown::HashMap::new();
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
        known: &mut hashbrown::HashMap<u64, UpstreamIndex>,
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

    /// A handle for the member with this number.
    #[must_use]
    pub fn member_handle(&self, index: MemberIndex) -> Option<MemberHandle> {
        let identity = self.member(index)?.identity;
        Some(Handle::new(index.0, identity))
    }

    /// A handle for the upstream with this number.
    #[must_use]
    pub fn upstream_handle(&self, index: UpstreamIndex) -> Option<UpstreamHandle> {
        let identity = self.upstream(index)?.identity;
        Some(Handle::new(index.0, identity))
    }

    /// The number of a member in this topology.
    #[must_use]
    #[inline(never)]
    pub fn find_member(&self, handle: MemberHandle) -> Option<MemberIndex> {
        find(handle, &self.members, |member| member.identity).map(MemberIndex)
    }

    /// The number of an upstream in this topology.
    #[must_use]
    #[inline(never)]
    pub fn find_upstream(&self, handle: UpstreamHandle) -> Option<UpstreamIndex> {
        find(handle, &self.upstreams, |upstream| upstream.identity).map(UpstreamIndex)
    }

    /// The member of a pool that is the endpoint with this address.
    #[must_use]
    pub fn endpoint(&self, pool: PoolIndex, address: &str) -> Option<MemberIndex> {
        let is_it = |index: &MemberIndex| {
            let upstream = self.upstream_of(*index);
            upstream.is_some_and(|upstream| upstream.endpoint.as_deref() == Some(address))
        };
        self.pool(pool)?.member_indexes().find(is_it)
    }

    /// The member of a pool whose upstream has this identity.
    #[must_use]
    pub fn member_at(&self, pool: PoolIndex, upstream: u64) -> Option<MemberIndex> {
        let is_it = |index: &MemberIndex| {
            let of_member = self.upstream_of(*index);
            of_member.is_some_and(|it| it.identity == upstream)
        };
        self.pool(pool)?.member_indexes().find(is_it)
    }

    /// The identity of the upstream that is the cluster with this name, if a
    /// pool can pick it.
    #[must_use]
    pub fn identity_of_cluster(&self, name: &str) -> Option<u64> {
        let is_it = |it: &&Upstream| it.endpoint.is_none() && it.cluster == name;
        Some(self.upstreams.iter().find(is_it)?.identity)
    }

    /// The member in whose row it is learned how much this upstream takes at once: the
    /// first, if several pools have the upstream.
    #[must_use]
    pub fn learner(&self, upstream: UpstreamIndex) -> Option<MemberIndex> {
        let is_it = |it: &Member| it.upstream == upstream && it.max_in_flight == MaxInFlight::Auto;
        self.members.iter().position(is_it).map(MemberIndex)
    }

    /// Whether there is anything to learn of how much an upstream takes at once.
    #[must_use]
    pub fn learns_caps(&self) -> bool {
        let mut members = self.members.iter();
        members.any(|it| it.max_in_flight == MaxInFlight::Auto)
    }

    /// The device with this number.
    #[must_use]
    pub fn device(&self, index: DeviceIndex) -> Option<&Device> {
        self.devices.get(index.0)
    }

    /// The pool with this number.
    #[must_use]
    pub fn pool(&self, index: PoolIndex) -> Option<&Pool> {
        self.pools.get(index.0)
    }

    /// The member with this number.
    #[must_use]
    pub fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.members.get(index.0)
    }

    /// The upstream with this number.
    #[must_use]
    pub fn upstream(&self, index: UpstreamIndex) -> Option<&Upstream> {
        self.upstreams.get(index.0)
    }

    /// The upstream of a member.
    #[must_use]
    pub fn upstream_of(&self, member: MemberIndex) -> Option<&Upstream> {
        self.upstream(self.member(member)?.upstream)
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

/// The place of what `handle` stands for: where it was, or wherever it is.
fn find<T>(handle: Handle<T>, all: &[T], identity: impl Fn(&T) -> u64) -> Option<usize> {
    let is_it = |it: &T| identity(it) == handle.identity;
    if all.get(handle.index).is_some_and(is_it) {
        return Some(handle.index);
    }
    all.iter().position(is_it)
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

/// A 64-bit hash of a list of names. It is stored, so it must be the same in
/// every build: FNV-1a (Fowler, Noll and Vo), each name ended by a byte that
/// no name contains, then mixed.
#[inline(never)]
pub fn identity(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_that_share_an_upstream_have_a_member_each() {
        let config = Config::parse(Some(
            br#"{"pools": [
                {"name": "small", "match": {"path_prefix": "/s"}, "upstreams": [{"cluster": "a", "weight": 2}, {"cluster": "b"}]},
                {"name": "large", "upstreams": [{"cluster": "b"}]}
            ]}"#,
        ))
        .unwrap();
        let topology = Topology::new(&config);
        assert_eq!(topology.members.len(), 3);
        assert_eq!(topology.upstreams.len(), 2);
        assert_eq!(topology.pools[1].members, 2..3);
        assert_eq!(topology.members[1].upstream, topology.members[2].upstream);
        assert_eq!(topology.upstream_of(MemberIndex(2)).unwrap().cluster, "b");
        assert_ne!(topology.members[1].identity, topology.members[2].identity);
        assert_eq!(topology.upstream_of(MemberIndex(9)), None);
    }

    #[test]
    fn what_is_held_outlives_the_pool_that_picked_it() {
        let config = Config::parse(Some(br#"{"cluster": "gpus"}"#)).unwrap();
        let with = |addresses: &[&str]| {
            let found: Vec<_> = addresses.iter().map(|it| (*it).to_owned()).collect();
            Topology::with_endpoints(&config, |_| found.clone())
        };
        let old = with(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let handles = |index| {
            (
                old.member_handle(MemberIndex(index)).unwrap(),
                old.upstream_handle(UpstreamIndex(index)).unwrap(),
            )
        };
        let ((gone, gone_there), (stays, stays_there)) = (handles(1), handles(2));
        assert_eq!(old.find_member(gone), Some(MemberIndex(1)));

        let mut new = with(&["10.0.0.3:80", "10.0.0.4:80"]);
        assert_eq!(new.find_member(gone), None);
        new.retain(&old, [1, 2].map(UpstreamIndex).into_iter());
        assert_eq!(new.pools[0].members, 0..2);
        assert_eq!(
            (new.find_member(stays), new.find_upstream(stays_there)),
            (Some(MemberIndex(0)), Some(UpstreamIndex(0)))
        );
        let (member, upstream) = (
            new.find_member(gone).unwrap(),
            new.find_upstream(gone_there).unwrap(),
        );
        assert_eq!((member.0, upstream.0), (2, 2));
        assert_eq!(new.upstream_of(member).unwrap().name(), "10.0.0.2:80");
        assert_eq!((new.members.len(), new.upstreams.len()), (3, 3));
        assert_eq!(
            new.endpoint(PoolIndex(0), "10.0.0.4:80"),
            Some(MemberIndex(1))
        );
        assert_eq!(new.endpoint(PoolIndex(0), "10.0.0.2:80"), None);
    }

    #[test]
    fn what_is_learned_from_other_sizes_or_another_signal_is_kept_apart() {
        let identities = [
            "",
            r#""latency": {"signal": "first_byte"},"#,
            r#""request_size": "openai","#,
            r#""request_size": "openai", "latency": {"signal": "first_byte"},"#,
            r#""request_size": {"header": "x-steps"},"#,
            r#""request_size": {"header": "x-images"},"#,
            r#""request_size": {"json_pointer": "/steps"},"#,
            r#""request_size": {"json_pointer": "/steps/0"},"#,
        ]
        .map(|keys| {
            let json = format!(r#"{{{keys} "upstreams": [{{"cluster": "a"}}]}}"#);
            let topology = Topology::new(&Config::parse(Some(json.as_bytes())).unwrap());
            // What is in flight there is, whatever is learned of it.
            assert_eq!(topology.upstreams[0].identity, identity(&["a"]), "{keys}");
            (topology.pools[0].identity, topology.members[0].identity)
        });
        let all = identities.iter().enumerate();
        for (place, one) in all {
            for other in &identities[..place] {
                assert_ne!(one.0, other.0);
                assert_ne!(one.1, other.1);
            }
        }
        assert_eq!(identities[0].0, identity(&["default"]));
    }

    #[test]
    fn identities_do_not_run_names_together() {
        assert_ne!(identity(&["ab", "c"]), identity(&["a", "bc"]));
        assert_ne!(identity(&["a"]), identity(&["a", ""]));
    }
}
