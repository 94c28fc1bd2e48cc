//! Which workers have requests that wait for room, and how these hear of it.
//!
//! When room is made on one worker, the first waiter may be on another. So a worker
//! that has waiters is on the *list* of the pool, a value that changes only when a
//! worker's first waiter comes or its last one goes; and it shows a *notice* of who is
//! first, under a key that only it writes. A worker that makes room reads the list, as a
//! rule an empty one, and calls the worker of the first waiter through a queue of the
//! proxy, which makes the proxy call that worker's root context at once.
//!
//! A call that is lost does no harm: whoever has waiters looks for room on its ticks.

use std::time::Duration;

use crate::host::{Host, QueueId, SharedData};
use crate::pool::{PoolIndex, Topology, identity};
use crate::state::cell::{self, ATTEMPTS, Change};
use crate::state::codec::{put, u64_at};
use crate::state::shares::Shares;
use crate::state::{Lanes, StateError};
use crate::time::Timestamp;

/// A worker with waiters ticks many times in this time. One that was not heard of for
/// so long is not waited for.
const SILENT: Duration = Duration::from_secs(1);

/// A worker's place on a list is never 0: that takes it off.
const ON_THE_LIST: u64 = 1 << 63;

/// What one worker shows the others of the requests that wait on it.
#[derive(Debug)]
pub struct Wake {
    /// Where the workers share their state.
    key: String,
    /// This worker's queue, and the lane whose name it has.
    queue: Option<(usize, QueueId)>,
    pools: Vec<Shown>,
}

/// What is shown of one pool.
#[derive(Debug)]
struct Shown {
    list_key: String,
    identity: u64,
    /// This worker is on the list.
    is_listed: bool,
    notice: Vec<u8>,
}

/// Another worker that has waiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Where it is called.
    pub queue: QueueId,
    /// What it shows; empty where it cannot be read.
    pub notice: Vec<u8>,
}

impl Wake {
    /// Nothing is shown yet. The workers share their state below `key`.
    #[must_use]
    pub fn new(topology: &Topology, key: &str) -> Self {
        let shown = |pool: &crate::pool::Pool| {
            // Not the pool's own identity, which changes with what is learned of it.
            let identity = identity(&["pool", &pool.name]);
            Shown {
                list_key: format!("{key}/waiters/{identity:016x}"),
                identity,
                is_listed: false,
                notice: Vec::new(),
            }
        };
        Wake {
            key: key.to_owned(),
            queue: None,
            pools: topology.pools.iter().map(shown).collect(),
        }
    }

    /// This worker's queue, once it has shown anything.
    #[must_use]
    pub fn queue(&self) -> Option<QueueId> {
        self.queue.map(|(_, queue)| queue)
    }

    /// Shows what waits in `pool` on this worker; `None` where nothing does.
    ///
    /// # Errors
    /// The others do not know; the next call makes up for it.
    pub fn show(
        &mut self,
        host: &mut impl Host,
        lanes: &Lanes,
        pool: PoolIndex,
        notice: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let Some(shown) = self.pools.get_mut(pool.0) else {
            return Ok(());
        };
        let owner = lanes.owner();
        let Some(notice) = notice else {
            if shown.is_listed {
                enter(host, &shown.list_key, owner, 0)?;
                shown.is_listed = false;
            }
            return Ok(());
        };
        // One without a lane is not known to the others in any way.
        let Some(lane) = lanes.number() else {
            return Ok(());
        };
        let is_called_here = self.queue.is_some_and(|(of, _)| of == lane);
        if !is_called_here {
            // Lanes are used again, so the number of queues is bounded.
            let queue = host.own_queue(&format!("{}/lane/{lane}", self.key))?;
            self.queue = Some((lane, queue));
        }
        if shown.notice != notice || !shown.is_listed || !is_called_here {
            let key = notice_key(&self.key, lane, shown.identity);
            let mut bytes = vec![0; 8];
            put(&mut bytes, 0, owner.to_le_bytes());
            bytes.extend(notice);
            host.set(&key, &bytes)?;
            shown.notice = notice.to_vec();
        }
        if !shown.is_listed || !is_called_here {
            let queue = self.queue.map_or(0, |(_, queue)| queue.0);
            let place = ON_THE_LIST | (lane as u64) << 32 | u64::from(queue);
            enter(host, &shown.list_key, owner, place)?;
            shown.is_listed = true;
        }
        Ok(())
    }

    /// Makes sure that the list has this worker if it has waiters: others take those out
    /// that they have not heard of for long. To be called on ticks.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub fn check(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        pool: PoolIndex,
    ) -> Result<(), StateError> {
        if let Some(shown) = self.pools.get_mut(pool.0)
            && shown.is_listed
        {
            let found = shared.get(&shown.list_key)?;
            let list = found.and_then(|found| Shares::parse(&found.value));
            shown.is_listed = list.is_some_and(|list| list.of(lanes.owner()) > 0);
        }
        Ok(())
    }

    /// The other workers that have waiters in `pool`.
    ///
    /// # Errors
    /// The host failed.
    pub fn others(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        pool: PoolIndex,
        now: Timestamp,
    ) -> Result<Vec<Other>, StateError> {
        let Some(shown) = self.pools.get(pool.0) else {
            return Ok(Vec::new());
        };
        let Some(found) = shared.get(&shown.list_key)? else {
            return Ok(Vec::new());
        };
        let list = Shares::parse(&found.value).unwrap_or_default();
        let (own, mut others) = (lanes.owner(), Vec::new());
        for (owner, place) in list.entries().filter(|(it, _)| *it != own) {
            if !lanes.is_heard(shared, owner, SILENT, now)? {
                enter(shared, &shown.list_key, owner, 0)?;
                continue;
            }
            let lane = ((place & !ON_THE_LIST) >> 32) as usize;
            let found = shared.get(&notice_key(&self.key, lane, shown.identity))?;
            let bytes = found.map(|found| found.value).unwrap_or_default();
            let is_its = u64_at(&bytes, 0) == owner;
            let notice = bytes.get(8..).filter(|_| is_its).unwrap_or_default();
            others.push(Other {
                queue: QueueId(place as u32),
                notice: notice.to_vec(),
            });
        }
        Ok(others)
    }
}

fn notice_key(key: &str, lane: usize, pool: u64) -> String {
    format!("{key}/lane/{lane}/waiters/{pool:016x}")
}

/// Sets the place of a worker on a list; 0 takes it off.
fn enter(
    shared: &mut impl SharedData,
    key: &str,
    owner: u64,
    place: u64,
) -> Result<(), StateError> {
    let committed = cell::change(shared, key, ATTEMPTS, |_, found| {
        // A damaged list starts afresh: those who have waiters enter it on a tick.
        let list = found.bytes.and_then(Shares::parse);
        let is_damaged = found.bytes.is_some() && list.is_none();
        let mut list = list.unwrap_or_default();
        if list.of(owner) == place && !is_damaged {
            return Ok(Change::Keep(()));
        }
        list.set(owner, place);
        Ok(Change::Write(list.into_bytes(), ()))
    });
    committed.map(drop)
}

#[cfg(test)]
mod tests;
