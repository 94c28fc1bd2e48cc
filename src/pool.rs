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

use std::ops::Range;

use crate::config::{Accepts, Config, LatencySignal, Reserve};
use crate::random::mix;

/// A member's number: its place in the configuration, over all pools.
pub type MemberIndex = usize;

/// An upstream's number: its place in [`Topology::upstreams`].
pub type UpstreamIndex = usize;

/// A member or an upstream, to be found again in another topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where it was; a shortcut.
    index: usize,
    identity: u64,
}

/// One upstream in one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which pool it is in.
    pub pool: usize,
    /// Which upstream it is.
    pub upstream: UpstreamIndex,
    /// Its share relative to the others' of the pool; positive.
    pub weight: f64,
    /// Which sizes of requests it takes.
    pub accepts: Accepts,
    /// Whether it is kept free for small requests.
    pub is_reserved: bool,
    /// Tells it apart in the shared record: a hash of the two names and the
    /// pool's signal.
    pub identity: u64,
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
    /// Its members; none where no endpoint is known.
    pub members: Range<MemberIndex>,
    /// The cluster whose endpoints are balanced, if it is one's.
    pub cluster: Option<String>,
    /// What is kept free for small requests, if anything.
    pub reserve: Option<Reserve>,
    /// Whether any member takes some sizes of requests only.
    pub limits_sizes: bool,
    /// What is taken for the latency of a request to it.
    pub signal: LatencySignal,
    /// Tells it apart in the shared record: a hash of its name and signal.
    pub identity: u64,
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
        };
        let mut known = hashbrown::HashMap::new();
        for (number, pool) in config.pools.iter().enumerate() {
            let signal = pool.latency.signal;
            let start = topology.members.len();
            let count = pool.upstreams.len();
            let reserved = pool.reserve.map_or(0, |reserve| reserve.count(count));
            for (place, configured) in pool.upstreams.iter().enumerate() {
                let upstream = Upstream::cluster(&configured.cluster);
                let name = (number, pool.name.as_str());
                let added = topology.add(&mut known, name, upstream, configured.weight, signal);
                if let Some(member) = added {
                    member.accepts = configured.accepts;
                    member.is_reserved = place + reserved >= count;
                }
            }
            if let Some(endpoints) = &pool.endpoints {
                let cluster = &endpoints.cluster;
                for endpoint in endpoints.fixed.iter().flatten() {
                    let upstream = Upstream::endpoint(cluster, endpoint.address.clone());
                    topology.add(
                        &mut known,
                        (number, &pool.name),
                        upstream,
                        endpoint.weight,
                        signal,
                    );
                }
                if endpoints.fixed.is_none() {
                    for address in discovered(cluster) {
                        let upstream = Upstream::endpoint(cluster, address);
                        topology.add(&mut known, (number, &pool.name), upstream, 1, signal);
                    }
                }
            }
            let cluster = pool.endpoints.as_ref();
            topology.pools.push(Pool {
                name: pool.name.clone(),
                members: start..topology.members.len(),
                cluster: cluster.map(|endpoints| endpoints.cluster.clone()),
                reserve: pool.reserve,
                limits_sizes: pool.upstreams.iter().any(|it| it.accepts != Accepts::ALL),
                signal,
                identity: identity(&[&[&*pool.name], learned_from(signal)].concat()),
            });
        }
        topology
    }

    fn add(
        &mut self,
        known: &mut hashbrown::HashMap<u64, UpstreamIndex>,
        (pool, name): (usize, &str),
        upstream: Upstream,
        weight: u32,
        signal: LatencySignal,
    ) -> Option<&mut Member> {
        let mut names = vec![name, &upstream.cluster];
        names.extend(upstream.endpoint.as_deref());
        names.extend(learned_from(signal));
        let identity = identity(&names);
        let index = *known.entry(upstream.identity).or_insert_with(|| {
            self.upstreams.push(upstream);
            self.upstreams.len() - 1
        });
        self.members.push(Member {
            pool,
            upstream: index,
            weight: f64::from(weight),
            accepts: Accepts::ALL,
            is_reserved: false,
            identity,
        });
        self.members.last_mut()
    }

    /// Keeps of `old` the upstreams with these numbers, and their members,
    /// though no pool can pick them any more.
    pub fn retain(&mut self, old: &Topology, held: impl Iterator<Item = UpstreamIndex>) {
        for index in held {
            let Some(upstream) = old.upstreams.get(index) else {
                continue;
            };
            let place = self.find_upstream(Handle {
                index,
                identity: upstream.identity,
            });
            let place = place.unwrap_or_else(|| {
                self.upstreams.push(upstream.clone());
                self.upstreams.len() - 1
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
    pub fn member_handle(&self, index: MemberIndex) -> Option<Handle> {
        let identity = self.members.get(index)?.identity;
        Some(Handle { index, identity })
    }

    /// A handle for the upstream with this number.
    #[must_use]
    pub fn upstream_handle(&self, index: UpstreamIndex) -> Option<Handle> {
        let identity = self.upstreams.get(index)?.identity;
        Some(Handle { index, identity })
    }

    /// The number of a member in this topology.
    #[must_use]
    #[inline(never)]
    pub fn find_member(&self, handle: Handle) -> Option<MemberIndex> {
        find(handle, &self.members, |member| member.identity)
    }

    /// The number of an upstream in this topology.
    #[must_use]
    #[inline(never)]
    pub fn find_upstream(&self, handle: Handle) -> Option<UpstreamIndex> {
        find(handle, &self.upstreams, |upstream| upstream.identity)
    }

    /// The member of a pool that is the endpoint with this address.
    #[must_use]
    pub fn endpoint(&self, pool: usize, address: &str) -> Option<MemberIndex> {
        let is_it = |index: &MemberIndex| {
            let upstream = self.upstream_of(*index);
            upstream.is_some_and(|upstream| upstream.endpoint.as_deref() == Some(address))
        };
        self.pools.get(pool)?.members.clone().find(is_it)
    }

    /// The upstream of a member.
    #[must_use]
    pub fn upstream_of(&self, member: MemberIndex) -> Option<&Upstream> {
        self.upstreams.get(self.members.get(member)?.upstream)
    }
}

/// The place of what `handle` stands for: where it was, or wherever it is.
fn find<T>(handle: Handle, all: &[T], identity: impl Fn(&T) -> u64) -> Option<usize> {
    let is_it = |it: &T| identity(it) == handle.identity;
    if all.get(handle.index).is_some_and(is_it) {
        return Some(handle.index);
    }
    all.iter().position(is_it)
}

/// What tells apart, in a hash of names, what was learned under another signal
/// than the usual: it says nothing under this one. No cluster's endpoint is
/// called so.
fn learned_from(signal: LatencySignal) -> &'static [&'static str] {
    match signal {
        LatencySignal::Complete => &[],
        LatencySignal::FirstByte => &["first_byte"],
    }
}

/// A 64-bit hash of a list of names. It is stored, so it must be the same in
/// every build: FNV-1a (Fowler, Noll and Vo), each name ended by a byte that
/// no name contains, then mixed.
#[inline(never)]
fn identity(names: &[&str]) -> u64 {
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
        assert_eq!(topology.upstream_of(2).unwrap().cluster, "b");
        assert_ne!(topology.members[1].identity, topology.members[2].identity);
        assert_eq!(topology.upstream_of(9), None);
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
                old.member_handle(index).unwrap(),
                old.upstream_handle(index).unwrap(),
            )
        };
        let ((gone, gone_there), (stays, stays_there)) = (handles(1), handles(2));
        assert_eq!(old.find_member(gone), Some(1));

        let mut new = with(&["10.0.0.3:80", "10.0.0.4:80"]);
        assert_eq!(new.find_member(gone), None);
        new.retain(&old, [1, 2].into_iter());
        assert_eq!(new.pools[0].members, 0..2);
        assert_eq!(
            (new.find_member(stays), new.find_upstream(stays_there)),
            (Some(0), Some(0))
        );
        let (member, upstream) = (
            new.find_member(gone).unwrap(),
            new.find_upstream(gone_there).unwrap(),
        );
        assert_eq!((member, upstream), (2, 2));
        assert_eq!(new.upstream_of(member).unwrap().name(), "10.0.0.2:80");
        assert_eq!((new.members.len(), new.upstreams.len()), (3, 3));
        assert_eq!(new.endpoint(0, "10.0.0.4:80"), Some(1));
        assert_eq!(new.endpoint(0, "10.0.0.2:80"), None);
    }

    #[test]
    fn identities_do_not_run_names_together() {
        assert_ne!(identity(&["ab", "c"]), identity(&["a", "bc"]));
        assert_ne!(identity(&["a"]), identity(&["a", ""]));
    }
}
