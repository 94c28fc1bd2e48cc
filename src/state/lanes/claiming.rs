//! Which worker holds which lane.

use std::time::Duration;

use super::Lanes;
use super::others::{Other, is_fresh, lane_key};
use crate::host::SharedData;
use crate::state::cell::{self, ATTEMPTS, Change, StateError};
use crate::state::directory::{Directory, Holder, MOST_LANES};
use crate::state::lane::Lane;
use crate::time::Timestamp;

impl Lanes {
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

    /// Reads which lanes there are, and whether this worker still holds its own.
    pub(super) fn read_directory(
        &mut self,
        shared: &mut impl SharedData,
    ) -> Result<(), StateError> {
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
    pub(super) fn claim(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
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
