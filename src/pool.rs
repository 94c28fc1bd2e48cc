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

use crate::config::{Accepts, DeadlineMode, LatencySignal, MaxInFlight, Memory, Mode, Reserve};

mod configured;
mod identity;
#[cfg(test)]
mod tests;

use identity::find;
pub use identity::{Handle, identity};

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

/// A member, to be found again in another topology.
pub type MemberHandle = Handle<Member>;

/// An upstream, to be found again in another topology.
pub type UpstreamHandle = Handle<Upstream>;

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
