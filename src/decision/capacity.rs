//! What limits a request's way, and what it has taken of that: places of upstreams and
//! pools, memory of devices.
//!
//! A pick looks for room by the counts that it ranks by, which may be a millisecond
//! old, and takes exactly what it needs from the [`Budget`]s of the winner. Without
//! limits in the configuration there is nothing here, and nothing is asked.

use std::rc::Rc;

use crate::config::{Accepts, MaxInFlight, Memory};
use crate::hold::Fit;
use crate::host::SharedData;
use crate::pool::{DeviceIndex, MemberIndex, PoolIndex, Topology, UpstreamIndex, identity};
use crate::state::{Budget, Estimates, Lanes, StateError};
use crate::time::Timestamp;

/// Learned limits change with the estimates and with turns of a tenth of a second and more:
/// they are looked at again in turns of 2 to the power of this nanoseconds, 8 ms.
const FOLLOWS: u32 = 23;

/// What a request has taken of one budget, until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    budget: Place,
    amount: u64,
}

/// Which budget it is, and where in the list it was when that was last looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    identity: u64,
    at: usize,
}

/// The budgets of which a request at a member needs a part.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    upstream: Option<Place>,
    device: Option<(Place, Memory)>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Requests in flight at an upstream.
    Upstream(UpstreamIndex),
    /// Requests in flight of a pool.
    Pool(PoolIndex),
    /// Bytes of a device.
    Device(DeviceIndex),
}

/// A limit, and what is out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// What is limited.
    pub limited: Limited,
    /// Requests, or bytes.
    pub limit: u64,
    /// As this worker read it last on a tick.
    pub used: u64,
}

/// A device's memory, as a pick sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceRoom {
    /// Bytes that requests may take.
    pub(super) memory: u64,
    /// Bytes of it that are not taken.
    pub(super) free: u64,
}

/// What has room in a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Room {
    /// Nothing.
    None,
    /// Something, for requests of every size.
    Any,
    /// These, for requests that fit them.
    For(Vec<RoomFor>),
}

/// A member that takes one request more, if it fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoomFor {
    accepts: Accepts,
    memory: Option<(Memory, DeviceRoom)>,
}

impl Room {
    /// Whether it matters how large a request is.
    #[must_use]
    pub fn depends_on_size(&self) -> bool {
        matches!(self, Room::For(_))
    }

    /// What it is to a request of this size.
    #[must_use]
    pub fn fits(&self, size: Option<f64>) -> Fit {
        let members = match self {
            Room::None => return Fit::Elsewhere,
            Room::Any => return Fit::Fits,
            Room::For(members) => members,
        };
        let mut fit = Fit::Elsewhere;
        for member in members.iter().filter(|it| it.accepts.accepts(size)) {
            match member.memory {
                Some((memory, room)) if memory.of(size) > room.memory => {}
                Some((memory, room)) if memory.of(size) > room.free => fit = Fit::Short,
                _ => return Fit::Fits,
            }
        }
        fit
    }
}

/// The limits of one worker's topology.
pub(super) struct Capacity {
    /// Where the workers share their state.
    key: String,
    topology: Rc<Topology>,
    /// What is not limited any more stays until it is given back.
    budgets: Vec<Entry>,
    /// Of each pool, whether anything limits its requests.
    is_limited: Vec<bool>,
    /// Of each pool that has a limit, its budget.
    of_pools: Vec<Option<Place>>,
    /// Of each member, what its requests need.
    of_members: Vec<Needs>,
    /// Of each device: its identity and its room as it was last looked at.
    devices: Vec<(u64, DeviceRoom)>,
    /// Of each upstream, how many requests it was learned to take at once; empty where
    /// none is learned.
    learned: Vec<u64>,
    /// What `learned` comes from: a revision of the estimates, and a moment.
    followed: Option<(u64, u64)>,
    /// Pools for which something was given back, since this was last asked.
    freed: Vec<PoolIndex>,
}

struct Entry {
    identity: u64,
    budget: Budget,
    /// What is limited, and to how much; `None` once it is not.
    limit: Option<(Limited, u64)>,
    /// The member in whose row the limit is learned, if it is.
    learner: Option<MemberIndex>,
    /// The pools whose requests need it.
    pools: Vec<PoolIndex>,
    used: u64,
}

impl Capacity {
    /// The limits of `topology`. The workers share their state below `key`.
    pub(super) fn new(topology: Rc<Topology>, key: &str) -> Self {
        let mut capacity = Capacity {
            key: key.to_owned(),
            topology: Rc::clone(&topology),
            budgets: Vec::new(),
            is_limited: Vec::new(),
            of_pools: Vec::new(),
            of_members: Vec::new(),
            devices: Vec::new(),
            learned: Vec::new(),
            followed: None,
            freed: Vec::new(),
        };
        capacity.set_topology(topology);
        capacity
    }

    /// Follows a change of what can be chosen from.
    pub(super) fn set_topology(&mut self, topology: Rc<Topology>) {
        for entry in &mut self.budgets {
            entry.limit = None;
            entry.learner = None;
            entry.pools.clear();
        }
        self.learned.clear();
        self.followed = None;
        if (topology.members.iter()).any(|it| it.max_in_flight == MaxInFlight::Auto) {
            self.learned.resize(topology.upstreams.len(), 1);
        }
        let device = |(number, device): (usize, &crate::pool::Device)| {
            let room = DeviceRoom {
                memory: device.memory,
                free: device.memory,
            };
            (of_device(&topology, DeviceIndex(number)), room)
        };
        self.devices = topology.devices.iter().enumerate().map(device).collect();
        self.is_limited = vec![false; topology.pools.len()];
        self.of_pools = vec![None; topology.pools.len()];
        self.of_members.clear();
        for member in &topology.members {
            let mut needs = Needs::default();
            if let Some(most) = member.most_in_flight(&self.learned) {
                let limited = Limited::Upstream(member.upstream);
                let identity = of_upstream(&topology, member.upstream);
                needs.upstream = Some(self.limit(identity, limited, most, member.pool));
                if let Some(entry) = needs.upstream.and_then(|place| self.entry(place)) {
                    entry.learner = topology.learner(member.upstream);
                }
            }
            if let Some((device, memory)) = member.memory
                && let Some((identity, room)) = self.devices.get(device.0).copied()
            {
                let limited = Limited::Device(device);
                let place = self.limit(identity, limited, room.memory, member.pool);
                needs.device = Some((place, memory));
            }
            self.of_members.push(needs);
        }
        for (number, pool) in topology.pools.iter().enumerate() {
            let number = PoolIndex(number);
            if let Some(most) = pool.max_in_flight.most(None) {
                let identity = of_pool(&topology, number);
                let place = self.limit(identity, Limited::Pool(number), most, number);
                if let Some(of_pool) = self.of_pools.get_mut(number.0) {
                    *of_pool = Some(place);
                }
            }
        }
        self.budgets
            .retain(|entry| entry.limit.is_some() || entry.budget.own() > 0);
        self.topology = topology;
    }

    fn limit(&mut self, identity: u64, limited: Limited, most: u64, pool: PoolIndex) -> Place {
        let mut budgets = self.budgets.iter();
        let found = budgets.position(|entry| entry.identity == identity);
        let at = found.unwrap_or(self.budgets.len());
        if found.is_none() {
            self.budgets.push(Entry {
                identity,
                budget: Budget::new(format!("{}/budget/{identity:016x}", self.key)),
                limit: None,
                learner: None,
                pools: Vec::new(),
                used: 0,
            });
        }
        let place = Place { identity, at };
        if let Some(entry) = self.entry(place) {
            entry.limit = Some((limited, most));
            if !entry.pools.contains(&pool) {
                entry.pools.push(pool);
            }
        }
        if let Some(is_limited) = self.is_limited.get_mut(pool.0) {
            *is_limited = true;
        }
        place
    }

    /// The budget, also if others before it in the list are gone.
    fn entry(&mut self, place: Place) -> Option<&mut Entry> {
        let is_it = |entry: &Entry| entry.identity == place.identity;
        let at = match self.budgets.get(place.at) {
            Some(entry) if is_it(entry) => place.at,
            _ => self.budgets.iter().position(is_it)?,
        };
        self.budgets.get_mut(at)
    }

    /// Whether anything limits the requests of `pool`.
    #[inline]
    pub(super) fn limits(&self, pool: PoolIndex) -> bool {
        self.is_limited.get(pool.0) == Some(&true)
    }

    /// Takes over the limits that were learned, as they are at `now`.
    pub(super) fn follow(&mut self, estimates: &Estimates, now: Timestamp) {
        if self.learned.is_empty() {
            return;
        }
        let moment = (estimates.revision(), now.as_nanos() >> FOLLOWS);
        if self.followed.replace(moment) == Some(moment) {
            return;
        }
        for entry in &mut self.budgets {
            if let (Some(learner), Some((Limited::Upstream(upstream), limit))) =
                (entry.learner, &mut entry.limit)
                && let Some(member) = estimates.member(learner)
                && let Some(learned) = self.learned.get_mut(upstream.0)
            {
                *learned = member.limit.at(now);
                *limit = *learned;
            }
        }
    }

    /// Whether any limit is learned.
    pub(super) fn learns(&self) -> bool {
        !self.learned.is_empty()
    }

    /// Of each upstream, how many requests it was learned to take at once; empty where
    /// none is learned.
    pub(super) fn learned(&self) -> &[u64] {
        &self.learned
    }

    /// The room of each device, in the order of [`Topology::devices`]; that of the
    /// pool's devices as it is now.
    pub(super) fn look(
        &mut self,
        shared: &mut impl SharedData,
        pool: PoolIndex,
    ) -> Result<impl Iterator<Item = DeviceRoom> + '_, StateError> {
        for (identity, room) in &mut self.devices {
            let mut budgets = self.budgets.iter();
            let entry = budgets.find(|entry| entry.identity == *identity);
            if let Some(entry) = entry.filter(|entry| entry.pools.contains(&pool)) {
                room.free = room.memory.saturating_sub(entry.budget.total(shared)?);
            }
        }
        Ok(self.devices.iter().map(|(_, room)| *room))
    }

    /// What has room in `pool`, by the counts that this worker knows.
    pub(super) fn room(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        pool: PoolIndex,
    ) -> Result<Room, StateError> {
        let topology = Rc::clone(&self.topology);
        let devices: Vec<DeviceRoom> = self.look(shared, pool)?.collect();
        let Some(pool) = topology.pool(pool) else {
            return Ok(Room::None);
        };
        let members = topology.members.get(pool.members.clone());
        let with_room = members.unwrap_or_default().iter().filter(|member| {
            let in_flight = lanes.outstanding(member.upstream).requests();
            let most = member.most_in_flight(&self.learned);
            member.weight > 0.0 && most.is_none_or(|most| in_flight < most)
        });
        let with_room: Vec<RoomFor> = with_room
            .map(|member| RoomFor {
                accepts: member.accepts,
                memory: member
                    .memory
                    .and_then(|(device, memory)| Some((memory, *devices.get(device.0)?))),
            })
            .collect();
        let takes_all = |it: &RoomFor| it.accepts == Accepts::ALL && it.memory.is_none();
        Ok(match with_room.is_empty() {
            true => Room::None,
            false if with_room.iter().all(takes_all) => Room::Any,
            false => Room::For(with_room),
        })
    }

    /// Takes a place of the pool, if it has a limit. Whether there was room.
    pub(super) fn claim_pool(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        pool: PoolIndex,
        claims: &mut Vec<Claim>,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        match self.of_pools.get(pool.0).copied().flatten() {
            Some(budget) => {
                let claim = Claim { budget, amount: 1 };
                self.claim(shared, lanes, claim, claims, now)
            }
            None => Ok(true),
        }
    }

    /// Takes what a request of this size needs at a member. Whether there was room;
    /// where there was not, nothing is taken.
    pub(super) fn claim_member(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        (member, size): (MemberIndex, Option<f64>),
        claims: &mut Vec<Claim>,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let before = claims.len();
        for claim in self.needs(member, size).into_iter().flatten() {
            let claimed = self.claim(shared, lanes, claim, claims, now);
            if claimed != Ok(true) {
                let taken = claims.split_off(before);
                let _ = self.return_all(shared, lanes, &taken);
                return claimed;
            }
        }
        Ok(true)
    }

    /// Takes what a request needs at the member that serves it, room or no room. What
    /// the others cannot be told now they learn by [`Capacity::renew`].
    pub(super) fn claim_anyway(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        (member, size): (MemberIndex, Option<f64>),
    ) -> Vec<Claim> {
        let pool = self.topology.member(member).map(|it| it.pool);
        let of_pool = pool.and_then(|pool| self.of_pools.get(pool.0).copied().flatten());
        let of_pool = of_pool.map(|budget| Claim { budget, amount: 1 });
        let needs = self.needs(member, size).into_iter().chain([of_pool]);
        let claims: Vec<Claim> = needs.flatten().collect();
        for claim in &claims {
            if let Some(entry) = self.entry(claim.budget) {
                let _ = entry.budget.take_anyway(shared, lanes, claim.amount);
            }
        }
        claims
    }

    /// Gives back what a request has taken. Whoever waits for it is to be told, see
    /// [`Capacity::take_freed`].
    ///
    /// # Errors
    /// The others do not know all of it yet; [`Capacity::renew`] makes up for it.
    pub(super) fn give_back(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        claims: &[Claim],
    ) -> Result<(), StateError> {
        for claim in claims {
            let mut freed = std::mem::take(&mut self.freed);
            let entry = self.entry(claim.budget);
            for pool in entry.into_iter().flat_map(|entry| &entry.pools) {
                if !freed.contains(pool) {
                    freed.push(*pool);
                }
            }
            self.freed = freed;
        }
        self.return_all(shared, lanes, claims)
    }

    /// Gives back what a pick has taken that came to nothing. Nobody is told: who found
    /// no room meanwhile looks again on a tick.
    pub(super) fn undo(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        claims: &[Claim],
    ) -> Result<(), StateError> {
        self.return_all(shared, lanes, claims)
    }

    /// The pools for which something was given back, since this was last asked.
    pub(super) fn take_freed(&mut self) -> Vec<PoolIndex> {
        std::mem::take(&mut self.freed)
    }

    /// Makes what the workers share say what this one holds, and reads what is out.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub(super) fn renew(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let mut result = Ok(());
        for entry in &mut self.budgets {
            match entry.budget.renew(shared, lanes, now) {
                Ok(used) => entry.used = used,
                Err(error) => result = Err(error),
            }
        }
        self.budgets
            .retain(|entry| entry.limit.is_some() || entry.budget.own() > 0);
        result
    }

    /// All limits, and what is out of them as it was last read.
    pub(super) fn uses(&self) -> impl Iterator<Item = Use> + '_ {
        self.budgets.iter().filter_map(|entry| {
            let (limited, limit) = entry.limit?;
            Some(Use {
                limited,
                limit,
                used: entry.used,
            })
        })
    }

    /// What a request of this size takes at a member.
    fn needs(&self, member: MemberIndex, size: Option<f64>) -> [Option<Claim>; 2] {
        let needs = self.of_members.get(member.0).copied().unwrap_or_default();
        let upstream = needs.upstream.map(|budget| Claim { budget, amount: 1 });
        let device = needs.device.map(|(budget, memory)| Claim {
            budget,
            amount: memory.of(size),
        });
        [upstream, device]
    }

    fn claim(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        claim: Claim,
        claims: &mut Vec<Claim>,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let Some(entry) = self.entry(claim.budget) else {
            return Ok(true);
        };
        let Some((_, limit)) = entry.limit else {
            return Ok(true);
        };
        let taken = entry
            .budget
            .take(shared, lanes, (claim.amount, limit), now)?;
        if taken {
            claims.push(claim);
        }
        Ok(taken)
    }

    fn return_all(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        claims: &[Claim],
    ) -> Result<(), StateError> {
        let mut result = Ok(());
        for claim in claims {
            if let Some(entry) = self.entry(claim.budget) {
                let returned = entry.budget.give_back(shared, lanes, claim.amount);
                result = result.and(returned);
            }
        }
        result
    }
}

// What tells budgets apart: a hash of a kind and names. They belong to names, so
// workers of two configurations share them.

fn of_upstream(topology: &Topology, upstream: UpstreamIndex) -> u64 {
    let upstream = topology.upstream(upstream);
    let cluster = upstream.map_or("", |upstream| &upstream.cluster);
    let endpoint = upstream.and_then(|upstream| upstream.endpoint.as_deref());
    identity(&["upstream", cluster, endpoint.unwrap_or_default()])
}

fn of_pool(topology: &Topology, pool: PoolIndex) -> u64 {
    identity(&["pool", topology.pool(pool).map_or("", |pool| &pool.name)])
}

fn of_device(topology: &Topology, device: DeviceIndex) -> u64 {
    let device = topology.device(device);
    identity(&["device", device.map_or("", |device| &device.name)])
}
