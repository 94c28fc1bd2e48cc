//! An amount that workers share exactly: the places of an upstream, the bytes of a
//! device.
//!
//! Its value in shared data, a [`cell`], says which worker holds how much. A worker
//! takes by compare-and-swap, and only if all shares and what it wants are within the
//! limit; so there is never more out than that. What a worker holds it knows itself,
//! and writes whole: a failed write is made up for by the next, and a value that was
//! lost or damaged is restored by its holders on their ticks.
//!
//! A worker that is gone cannot give back. Its share counts as long as its lane does,
//! and whoever needs room takes it out then. The limit is not part of the value: it is
//! whatever the configuration of the worker that takes says.

use super::cell::{self, ATTEMPTS, Change, Found, StateError};
use super::lanes::Lanes;
use super::shares::Shares;
use crate::host::SharedData;
use crate::time::Timestamp;

/// One worker's part of a shared amount.
#[derive(Debug)]
pub struct Budget {
    key: String,
    /// What this worker holds. The truth; the shared value is a copy.
    own: u64,
}

impl Budget {
    /// The amount at `key`, of which this worker holds nothing.
    #[must_use]
    pub fn new(key: String) -> Self {
        Budget { key, own: 0 }
    }

    /// What this worker holds.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own
    }

    /// Takes `amount`, if no more than `limit` is out then. Whether it did.
    ///
    /// # Errors
    /// Nothing is taken: the host failed, others wrote first at every try, or the
    /// value was damaged and has been replaced.
    pub fn take(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        (amount, limit): (u64, u64),
        now: Timestamp,
    ) -> Result<bool, StateError> {
        let wanted = self.own.saturating_add(amount);
        let owner = lanes.owner();
        let committed = cell::change(shared, &self.key, ATTEMPTS, |shared, found| {
            let Some(mut shares) = parse(found) else {
                return Ok(Change::Write(restored(owner, self.own), None));
            };
            let fits = |shares: &Shares| {
                let others = shares.total().saturating_sub(shares.of(owner));
                others.saturating_add(wanted) <= limit
            };
            if !fits(&shares) {
                forget_dead(&mut shares, shared, lanes, now)?;
            }
            let takes = fits(&shares) && shares.set(owner, wanted);
            Ok(match takes {
                true => Change::Write(shares.into_bytes(), Some(true)),
                false => Change::Keep(Some(false)),
            })
        })?;
        match committed.value {
            Some(true) => {
                self.own = wanted;
                Ok(true)
            }
            Some(false) => Ok(false),
            None => Err(StateError::Malformed),
        }
    }

    /// Takes `amount` whatever the limit: for a request that is there already.
    ///
    /// # Errors
    /// The others do not know yet; the next change or [`Budget::renew`] shows it.
    pub fn take_anyway(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        amount: u64,
    ) -> Result<(), StateError> {
        self.own = self.own.saturating_add(amount);
        self.publish(shared, lanes)
    }

    /// Gives `amount` back.
    ///
    /// # Errors
    /// The others do not know yet; the next change or [`Budget::renew`] shows it.
    pub fn give_back(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &Lanes,
        amount: u64,
    ) -> Result<(), StateError> {
        self.own = self.own.saturating_sub(amount);
        self.publish(shared, lanes)
    }

    /// Makes the shared value say what this worker holds, forgets those that are gone,
    /// and returns what is out. To be called several times within a lease.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub fn renew(
        &mut self,
        shared: &mut impl SharedData,
        lanes: &mut Lanes,
        now: Timestamp,
    ) -> Result<u64, StateError> {
        let (owner, own) = (lanes.owner(), self.own);
        let committed = cell::change(shared, &self.key, ATTEMPTS, |shared, found| {
            if found.bytes.is_none() && own == 0 {
                return Ok(Change::Keep(0));
            }
            let Some(mut shares) = parse(found) else {
                return Ok(Change::Write(restored(owner, own), own));
            };
            let before = shares.entries().count();
            forget_dead(&mut shares, shared, lanes, now)?;
            let is_right = shares.of(owner) == own && shares.entries().count() == before;
            shares.set(owner, own);
            let total = shares.total();
            Ok(match is_right {
                true => Change::Keep(total),
                false => Change::Write(shares.into_bytes(), total),
            })
        })?;
        Ok(committed.value)
    }

    /// What is out, as far as anybody knows without looking who still lives.
    ///
    /// # Errors
    /// The host failed.
    pub fn total(&self, shared: &mut impl SharedData) -> Result<u64, StateError> {
        let found = shared.get(&self.key)?;
        let shares = found.and_then(|found| Shares::parse(&found.value));
        Ok(shares.map_or(0, |shares| shares.total()))
    }

    fn publish(&self, shared: &mut impl SharedData, lanes: &Lanes) -> Result<(), StateError> {
        let (owner, own) = (lanes.owner(), self.own);
        let committed = cell::change(shared, &self.key, ATTEMPTS, |_, found| {
            let Some(mut shares) = parse(found) else {
                return Ok(Change::Write(restored(owner, own), ()));
            };
            if shares.of(owner) == own {
                return Ok(Change::Keep(()));
            }
            shares.set(owner, own);
            Ok(Change::Write(shares.into_bytes(), ()))
        });
        committed.map(drop)
    }
}

/// The shares that were found, none where there is no value; `None` where it is
/// damaged.
fn parse(found: Found<'_>) -> Option<Shares> {
    found
        .bytes
        .map_or_else(|| Some(Shares::default()), Shares::parse)
}

/// A value that knows only this worker: the others add theirs on their ticks.
fn restored(owner: u64, own: u64) -> Vec<u8> {
    let mut shares = Shares::default();
    shares.set(owner, own);
    shares.into_bytes()
}

/// Takes out what workers hold that are gone.
#[inline(never)]
fn forget_dead(
    shares: &mut Shares,
    shared: &mut impl SharedData,
    lanes: &mut Lanes,
    now: Timestamp,
) -> Result<(), StateError> {
    let owners: Vec<u64> = shares.entries().map(|(owner, _)| owner).collect();
    for owner in owners {
        if !lanes.lives(shared, owner, now)? {
            shares.set(owner, 0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
