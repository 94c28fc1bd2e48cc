//! What is outstanding at each upstream, over all workers.
//!
//! Each worker counts what it has outstanding, and publishes its counts in
//! a *lane*: a key of its own that no other worker writes, so no request ever
//! competes for it. The total at an upstream is the worker's own count plus the
//! sum over the lanes of the other live workers, as they were read a moment ago.
//!
//! The owner writes its lane as a whole, from its counts, at each pick and end. So
//! nothing can leak: the next write makes up for a failed one and restores a lost
//! or damaged lane, and the lane of a dead worker stops counting when its lease
//! ends. A worker that was only stalled and lost its lane claims another and
//! publishes there.
//!
//! Only the list of lanes ([`super::directory`]) is changed by compare-and-swap,
//! when a worker comes or goes.

use std::time::Duration;

use hashbrown::HashMap;

use super::cell::{self, ATTEMPTS, Change, StateError};
use super::directory::{Directory, Holder, MOST_LANES};
use super::lane::{Lane, OwnLane, fingerprint};
use super::outstanding::{Job, Outstanding};
use crate::host::{SharedData, Version};
use crate::pool::{Topology, UpstreamIndex};
use crate::time::Timestamp;

/// One worker's counts, and what it has read of the others'.
#[derive(Debug)]
pub struct Lanes {
    /// Where the workers share their state; lanes and their list are below it.
    key: String,
    directory_key: String,
    owner: u64,
    lease: Duration,
    /// How old what was read of the others may be, for each of them.
    stale_after: Duration,
    fingerprint: u64,
    /// Upstreams by identity.
    places: HashMap<u64, UpstreamIndex>,
    /// Outstanding from this worker, by upstream. The truth; the lane is a copy.
    own: Vec<Outstanding>,
    lane: OwnLane,
    /// Which lane this worker holds, and its key.
    slot: Option<(usize, String)>,
    written_at: Timestamp,
    /// The version of the list of lanes that `others` was made from.
    directory: Option<Version>,
    others: Vec<Other>,
    /// Outstanding from the others that live, by upstream.
    sums: Vec<Outstanding>,
    /// Both together.
    totals: Vec<Outstanding>,
    read_at: Option<Timestamp>,
    /// Tries at the list of lanes that failed because another wrote first.
    retries: u32,
}

/// The lane of another worker, as it was last read.
#[derive(Debug)]
struct Other {
    slot: usize,
    owner: u64,
    key: String,
    version: Option<Version>,
    heartbeat: Timestamp,
    /// By upstream; empty where nothing is outstanding.
    counts: Vec<Outstanding>,
}

/// Reading all lanes takes about a microsecond each. So much time must pass for
/// each lane between two readings, whatever `stale_after` is: reading costs at
/// most 2 % of a core, however many workers there are.
const PAUSE_PER_LANE: Duration = Duration::from_micros(50);

impl Lanes {
    /// Nothing outstanding. `owner` tells this worker apart from all others: it
    /// is drawn at random. What others wrote is read again when it is older
    /// than `stale_after`.
    #[must_use]
    pub fn new(
        topology: &Topology,
        key: &str,
        owner: u64,
        lease: Duration,
        stale_after: Duration,
    ) -> Self {
        let owner = owner.max(1);
        let mut lanes = Lanes {
            key: key.to_owned(),
            directory_key: format!("{key}/lanes"),
            owner,
            lease,
            stale_after,
            fingerprint: 0,
            places: HashMap::new(),
            own: Vec::new(),
            lane: OwnLane::new(owner, std::iter::empty()),
            slot: None,
            written_at: Timestamp::ZERO,
            directory: None,
            others: Vec::new(),
            sums: Vec::new(),
            totals: Vec::new(),
            read_at: None,
            retries: 0,
        };
        lanes.set_topology(topology);
        lanes
    }

    /// Follows a change of what can be chosen from. Every upstream at which this
    /// worker has something outstanding must still be there, see
    /// [`Lanes::held`].
    pub fn set_topology(&mut self, topology: &Topology) {
        let old = std::mem::take(&mut self.places);
        let identities = topology.upstreams.iter().map(|it| it.identity);
        self.fingerprint = fingerprint(identities.clone());
        self.places = identities.clone().zip((0..).map(UpstreamIndex)).collect();
        let own = identities.clone().map(|identity| {
            let place = old.get(&identity);
            let own = place.and_then(|place| self.own.get(place.0));
            own.copied().unwrap_or_default()
        });
        self.own = own.collect();
        self.lane = OwnLane::new(self.owner, identities);
        for (upstream, own) in self.own.iter().enumerate() {
            self.lane.set(upstream, *own);
        }
        self.sums = vec![Outstanding::default(); self.own.len()];
        self.totals.clone_from(&self.own);
        self.directory = None;
        self.others.clear();
        self.read_at = None;
    }

    /// The upstreams at which this worker has something outstanding.
    pub fn held(&self) -> impl Iterator<Item = UpstreamIndex> + '_ {
        let own = self.own.iter().enumerate();
        own.filter(|(_, own)| own.requests() > 0)
            .map(|(upstream, _)| UpstreamIndex(upstream))
    }

    /// The number of this worker's lane, once it has one.
    #[must_use]
    pub fn number(&self) -> Option<usize> {
        self.slot.as_ref().map(|(number, _)| *number)
    }

    /// The random number that tells this worker apart.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// Whether the worker with this number counts: its lease has not ended. One that is
    /// not known is looked for, because it may have come a moment ago.
    ///
    /// # Errors
    /// The host failed, and it is not known.
    pub fn lives(
        &mut self,
        shared: &mut impl SharedData,
        owner: u64,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        self.is_heard(shared, owner, self.lease, now)
    }

    /// Like [`Lanes::lives`], for a worker that was heard of within `within`.
    ///
    /// # Errors
    /// The host failed, and it is not known.
    pub fn is_heard(
        &mut self,
        shared: &mut impl SharedData,
        owner: u64,
        within: Duration,
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let is_known = |lanes: &Lanes| {
            let mut others = lanes.others.iter();
            owner == lanes.owner
                || others.any(|it| it.owner == owner && is_fresh(it.heartbeat, now, within))
        };
        if is_known(self) {
            return Ok(true);
        }
        self.reread(shared, now)?;
        Ok(is_known(self))
    }

    /// Reads what the others have outstanding, however old what is known is.
    ///
    /// # Errors
    /// The host failed.
    pub fn reread(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.read_at = None;
        self.read(shared, now)
    }

    /// What is outstanding at `upstream`: from this worker now, from the others
    /// as of the last reading.
    #[inline]
    #[must_use]
    pub fn outstanding(&self, upstream: UpstreamIndex) -> Outstanding {
        self.totals.get(upstream.0).copied().unwrap_or_default()
    }

    /// What is outstanding at each upstream, by its number; see
    /// [`Lanes::outstanding`].
    #[inline]
    #[must_use]
    pub fn totals(&self) -> &[Outstanding] {
        &self.totals
    }

    /// The workers whose leases have not ended: the numbers of their lanes, when they
    /// were last heard of, and what is outstanding from each, as of the last reading.
    pub fn workers(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (usize, Timestamp, Outstanding)> + '_ {
        let sum = |counts: &[Outstanding]| {
            let all = counts.iter();
            all.fold(Outstanding::default(), |sum, count| sum.plus(*count))
        };
        let own = self
            .number()
            .map(|slot| (slot, self.written_at, sum(&self.own)));
        let others = self.others.iter();
        let living = others.filter(move |it| is_fresh(it.heartbeat, now, self.lease));
        own.into_iter()
            .chain(living.map(move |it| (it.slot, it.heartbeat, sum(&it.counts))))
    }

    /// Requests in flight at each upstream, in the order of
    /// [`Topology::upstreams`].
    #[must_use]
    pub fn in_flight(&self) -> Vec<u64> {
        self.totals.iter().map(|it| it.requests()).collect()
    }

    /// Tries that failed because another worker wrote first, since this was
    /// last asked.
    pub fn take_retries(&mut self) -> u32 {
        std::mem::take(&mut self.retries)
    }

    /// Prepares a pick: this worker holds a lane, and knows what the others
    /// have outstanding.
    ///
    /// # Errors
    /// There is no lane to be had, or the host failed.
    pub fn begin(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.hold(shared, now)?;
        self.read(shared, now)?;
        if self.slot.is_none() {
            // It was just read that the lane was taken.
            self.claim(shared, now)?;
        }
        Ok(())
    }

    /// Counts one request more at `upstream`.
    ///
    /// # Errors
    /// The host failed, and the request is not counted.
    pub fn reserve(
        &mut self,
        shared: &mut impl SharedData,
        upstream: UpstreamIndex,
        job: Job,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.change(upstream, |own| own.add(job));
        let published = self.publish(shared, now);
        if published.is_err() {
            self.change(upstream, |own| own.remove(job));
        }
        published
    }

    /// Counts one request less at `upstream`: the `job` that was reserved there.
    ///
    /// # Errors
    /// The others do not know yet; the next write of the lane shows it.
    pub fn release(
        &mut self,
        shared: &mut impl SharedData,
        upstream: UpstreamIndex,
        job: Job,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.change(upstream, |own| own.remove(job));
        self.hold(shared, now)?;
        self.publish(shared, now)
    }

    /// Shows that this worker lives, if it has taken part, and reads what the
    /// others have outstanding. To be called several times within a lease.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub fn renew(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.read_at = None;
        if self.slot.is_none() && self.held().next().is_none() {
            return self.read(shared, now);
        }
        self.begin(shared, now)?;
        self.publish(shared, now)
    }

    /// Gives the lane up, where nothing is outstanding: for a worker that ends.
    ///
    /// # Errors
    /// The lane is still listed; it stops counting when its lease ends.
    pub fn leave(&mut self, shared: &mut impl SharedData) -> Result<(), StateError> {
        if self.slot.is_none() || self.held().next().is_some() {
            return Ok(());
        }
        let owner = self.owner;
        let committed = cell::change(shared, &self.directory_key, ATTEMPTS, |_, found| {
            let Some(mut directory) = found.bytes.and_then(Directory::parse) else {
                return Ok(Change::Keep(()));
            };
            let lane = directory.holders().position(|it| it.owner == owner);
            let Some(lane) = lane else {
                return Ok(Change::Keep(()));
            };
            let nobody = Holder {
                owner: 0,
                claimed_at: Timestamp::ZERO,
            };
            directory.set(lane, nobody);
            Ok(Change::Write(directory.into_bytes(), ()))
        })?;
        self.retries = self.retries.saturating_add(committed.retries);
        self.slot = None;
        Ok(())
    }

    #[inline]
    fn change(&mut self, upstream: UpstreamIndex, change: impl FnOnce(&mut Outstanding)) {
        if let Some(own) = self.own.get_mut(upstream.0) {
            change(own);
            self.lane.set(upstream.0, *own);
            let others = self.sums.get(upstream.0).copied().unwrap_or_default();
            if let Some(total) = self.totals.get_mut(upstream.0) {
                *total = own.plus(others);
            }
        }
    }

    /// Makes sure that this worker holds a lane that nobody else may have
    /// claimed. Within half a lease of the last write nobody can.
    fn hold(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        if self.slot.is_some() {
            if now.since(self.written_at) <= self.lease / 2 {
                return Ok(());
            }
            self.directory = None;
            self.read_directory(shared)?;
        }
        match self.slot {
            Some(_) => Ok(()),
            None => self.claim(shared, now),
        }
    }

    fn publish(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        let Some((_, key)) = &self.slot else {
            return Ok(());
        };
        shared.set(key, self.lane.stamped(now))?;
        self.written_at = now;
        Ok(())
    }

    /// Reads the others' lanes, unless they were read a moment ago.
    fn read(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        let pause = PAUSE_PER_LANE * (self.others.len() as u32);
        let pause = pause.max(self.stale_after);
        if self.read_at.is_some_and(|at| now.since(at) < pause) {
            return Ok(());
        }
        let read = self.read_others(shared, now);
        for ((total, own), others) in self.totals.iter_mut().zip(&self.own).zip(&self.sums) {
            *total = own.plus(*others);
        }
        read?;
        self.read_at = Some(now);
        Ok(())
    }

    fn read_others(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.read_directory(shared)?;
        self.sums.fill(Outstanding::default());
        for other in &mut self.others {
            let found = shared.get(&other.key)?;
            let version = found.as_ref().map(|found| found.version);
            if version != other.version {
                let lane = found.as_ref().and_then(|found| Lane::parse(&found.value));
                other.version = version;
                // Somebody who has lost the lane may have written it once more.
                let lane = lane.filter(|lane| lane.owner == other.owner);
                other.take(lane, self.fingerprint, &self.places);
            }
            if is_fresh(other.heartbeat, now, self.lease) {
                for (sum, count) in self.sums.iter_mut().zip(&other.counts) {
                    *sum = sum.plus(*count);
                }
            }
        }
        Ok(())
    }

    /// Reads which lanes there are, and whether this worker still holds its own.
    fn read_directory(&mut self, shared: &mut impl SharedData) -> Result<(), StateError> {
        let found = shared.get(&self.directory_key)?;
        let version = found.as_ref().map(|found| found.version);
        if version.is_some() && version == self.directory {
            return Ok(());
        }
        self.directory = version;
        let directory = found.and_then(|found| Directory::parse(&found.value));
        let mut known = std::mem::take(&mut self.others);
        let mut holds = false;
        for (slot, holder) in directory.unwrap_or_default().holders().enumerate() {
            if holder.owner == self.owner {
                holds |= self.number() == Some(slot);
            } else if holder.owner != 0 {
                let is_it = |it: &Other| it.slot == slot && it.owner == holder.owner;
                let other = match known.iter().position(is_it) {
                    Some(place) => known.swap_remove(place),
                    None => Other::new(&self.key, slot, holder.owner),
                };
                self.others.push(other);
            }
        }
        if !holds {
            self.slot = None;
        }
        Ok(())
    }

    /// Claims a lane: the one that this worker holds already, or one whose
    /// holder is dead, or a new one.
    fn claim(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        let Lanes {
            key, owner, lease, ..
        } = self;
        let (owner, lease) = (*owner, *lease);
        let committed = cell::change(shared, &self.directory_key, ATTEMPTS, |shared, found| {
            let parsed = found.bytes.and_then(Directory::parse);
            let is_malformed = found.bytes.is_some() && parsed.is_none();
            let mut directory = match parsed {
                Some(directory) => directory,
                None => living(shared, key, now, lease)?,
            };
            let mut free = None;
            for (lane, holder) in directory.holders().enumerate() {
                if holder.owner == owner {
                    free = Some(lane);
                    break;
                }
                if free.is_none() && is_dead(shared, key, lane, holder, now, lease)? {
                    free = Some(lane);
                }
            }
            let lane = free.unwrap_or_else(|| directory.holders().count());
            let holder = Holder {
                owner,
                claimed_at: now,
            };
            if !directory.set(lane, holder) {
                return Err(StateError::Contended);
            }
            Ok(Change::Write(directory.into_bytes(), (lane, is_malformed)))
        })?;
        self.retries = self.retries.saturating_add(committed.retries);
        let (lane, is_malformed) = committed.value;
        self.slot = Some((lane, lane_key(&self.key, lane)));
        self.directory = None;
        self.read_at = None;
        self.publish(shared, now)?;
        if is_malformed {
            return Err(StateError::Malformed);
        }
        self.read(shared, now)
    }
}

impl Other {
    fn new(key: &str, slot: usize, owner: u64) -> Self {
        Other {
            slot,
            owner,
            key: lane_key(key, slot),
            version: None,
            heartbeat: Timestamp::ZERO,
            counts: Vec::new(),
        }
    }

    /// Takes over what the lane says; nothing where it is none of its owner's.
    fn take(
        &mut self,
        lane: Option<Lane<'_>>,
        own_fingerprint: u64,
        places: &HashMap<u64, UpstreamIndex>,
    ) {
        self.counts.clear();
        let Some(lane) = lane else {
            self.heartbeat = Timestamp::ZERO;
            return;
        };
        self.heartbeat = lane.heartbeat;
        if lane.fingerprint == own_fingerprint {
            self.counts.extend(lane.entries().map(|(_, count)| count));
            return;
        }
        self.counts.resize(places.len(), Outstanding::default());
        for (identity, count) in lane.entries() {
            let place = places.get(&identity);
            if let Some(own) = place.and_then(|place| self.counts.get_mut(place.0)) {
                *own = own.plus(count);
            }
        }
    }
}

fn lane_key(key: &str, lane: usize) -> String {
    format!("{key}/lane/{lane}")
}

/// Whether who was heard of at `heartbeat` still counts at `now`. What is from
/// further in the future than a lease is not a clock that was read a moment
/// later: it is garbage, and would count for ever.
fn is_fresh(heartbeat: Timestamp, now: Timestamp, lease: Duration) -> bool {
    now.since(heartbeat) <= lease && heartbeat.since(now) <= lease
}

/// Whether nobody living holds the lane. Its holder may have claimed it and not
/// written it yet.
fn is_dead(
    shared: &mut impl SharedData,
    key: &str,
    lane: usize,
    holder: Holder,
    now: Timestamp,
    lease: Duration,
) -> Result<bool, StateError> {
    if holder.owner == 0 {
        return Ok(true);
    }
    if is_fresh(holder.claimed_at, now, lease) {
        return Ok(false);
    }
    let found = shared.get(&lane_key(key, lane))?;
    let written = found.as_ref().and_then(|found| Lane::parse(&found.value));
    Ok(written
        .filter(|lane| lane.owner == holder.owner)
        .is_none_or(|written| !is_fresh(written.heartbeat, now, lease)))
}

/// The list of lanes made anew from the lanes, where it was lost.
#[inline(never)]
fn living(
    shared: &mut impl SharedData,
    key: &str,
    now: Timestamp,
    lease: Duration,
) -> Result<Directory, StateError> {
    let mut directory = Directory::default();
    for number in 0..MOST_LANES {
        let Some(found) = shared.get(&lane_key(key, number))? else {
            break;
        };
        let written = Lane::parse(&found.value);
        let alive = written.filter(|lane| is_fresh(lane.heartbeat, now, lease));
        let holder = Holder {
            owner: alive.map_or(0, |lane| lane.owner),
            claimed_at: now,
        };
        directory.set(number, holder);
    }
    Ok(directory)
}

#[cfg(test)]
mod tests;
