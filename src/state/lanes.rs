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

use super::cell::StateError;
use super::lane::{OwnLane, fingerprint};
use super::outstanding::{Job, Outstanding};
use crate::host::{SharedData, Version};
use crate::map::Map;
use crate::pool::{Topology, UpstreamIndex};
use crate::time::Timestamp;

mod claiming;
mod others;

use others::Other;

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
    places: Map<u64, UpstreamIndex>,
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
            places: Map::default(),
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
}

#[cfg(test)]
mod tests;
