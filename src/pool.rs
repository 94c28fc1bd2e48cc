//! What can be chosen: pools, their members, and the upstreams behind them.
//!
//! An *upstream* is one routing target. A *member* is an upstream in a pool:
//! two pools may share an upstream, and then each has a member of its own,
//! because what is learned of a server depends on the requests that it is sent,
//! while what is outstanding there is the upstream's, whoever sent it.

use std::ops::Range;

use crate::config::Config;
use crate::random::mix;

/// A member's number: its place in the configuration, over all pools.
pub type MemberIndex = usize;

/// An upstream's number: its place in [`Topology::upstreams`].
pub type UpstreamIndex = usize;

/// One upstream in one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Which pool it is in.
    pub pool: usize,
    /// Which upstream it is.
    pub upstream: UpstreamIndex,
    /// Its share relative to the others' of the pool; positive.
    pub weight: f64,
    /// Tells it apart in the shared record: a hash of the two names.
    pub identity: u64,
}

/// One routing target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name of the Envoy cluster.
    pub cluster: String,
    /// Tells it apart in the shared record: a hash of that name.
    pub identity: u64,
}

/// One pool's part of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: Range<MemberIndex>,
    /// Tells it apart in the shared record: a hash of its name.
    pub identity: u64,
}

/// All pools, members and upstreams of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// In the order of the configuration.
    pub pools: Vec<Pool>,
    /// Pool by pool, each in the order of the configuration.
    pub members: Vec<Member>,
    /// Each cluster once, in the order of first mention.
    pub upstreams: Vec<Upstream>,
}

impl Topology {
    /// What `config` can choose from.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut topology = Topology {
            pools: Vec::with_capacity(config.pools.len()),
            members: Vec::new(),
            upstreams: Vec::new(),
        };
        let mut known = hashbrown::HashMap::new();
        for (number, pool) in config.pools.iter().enumerate() {
            let start = topology.members.len();
            for configured in &pool.upstreams {
                let cluster = configured.cluster.as_str();
                let upstream = *known.entry(cluster).or_insert_with(|| {
                    topology.upstreams.push(Upstream {
                        cluster: cluster.to_owned(),
                        identity: identity(&[cluster]),
                    });
                    topology.upstreams.len() - 1
                });
                topology.members.push(Member {
                    pool: number,
                    upstream,
                    weight: f64::from(configured.weight),
                    identity: identity(&[&pool.name, cluster]),
                });
            }
            topology.pools.push(Pool {
                name: pool.name.clone(),
                members: start..topology.members.len(),
                identity: identity(&[&pool.name]),
            });
        }
        topology
    }

    /// The upstream of a member.
    #[must_use]
    pub fn upstream_of(&self, member: MemberIndex) -> Option<&Upstream> {
        self.upstreams.get(self.members.get(member)?.upstream)
    }
}

/// A 64-bit hash of a list of names. It is stored, so it must be the same in
/// every build: FNV-1a (Fowler, Noll and Vo), each name ended by a byte that
/// no name contains, then mixed.
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
    fn identities_do_not_run_names_together() {
        assert_ne!(identity(&["ab", "c"]), identity(&["a", "bc"]));
        assert_ne!(identity(&["a"]), identity(&["a", ""]));
    }
}
