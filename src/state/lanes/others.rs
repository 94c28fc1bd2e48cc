//! What one worker has read of the others' lanes.

use std::time::Duration;

use super::Lanes;
use crate::host::{SharedData, Version};
use crate::map::Map;
use crate::pool::UpstreamIndex;
use crate::state::cell::StateError;
use crate::state::lane::Lane;
use crate::state::outstanding::Outstanding;
use crate::time::Timestamp;

/// The lane of another worker, as it was last read.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) slot: usize,
    pub(super) owner: u64,
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

    /// Reads the others' lanes, unless they were read a moment ago.
    pub(super) fn read(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
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
}

impl Other {
    pub(super) fn new(key: &str, slot: usize, owner: u64) -> Self {
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
        places: &Map<u64, UpstreamIndex>,
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

pub(super) fn lane_key(key: &str, lane: usize) -> String {
    format!("{key}/lane/{lane}")
}

/// Whether who was heard of at `heartbeat` still counts at `now`. What is from
/// further in the future than a lease is not a clock that was read a moment
/// later: it is garbage, and would count for ever.
pub(super) fn is_fresh(heartbeat: Timestamp, now: Timestamp, lease: Duration) -> bool {
    now.since(heartbeat) <= lease && heartbeat.since(now) <= lease
}
