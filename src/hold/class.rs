//! The waiters of one priority class, by tenant, and what each tenant has had.
//!
//! Tenants share by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a
//! tenant's *tag* is the work that it has been given, in the virtual time of its class.
//! The tenant with the least tag is next, and its tag rises by the work of what it
//! starts. The class's virtual time is the tag of the last start, and no tag counts
//! less: who did not use its share has no claim to it later. As with deficit round
//! robin, no tenant is more than one request ahead of its share. Unlike there, the order
//! is that of a number, so that workers can compare their waiters: each takes over the
//! highest tags and virtual times that the others show.

use std::collections::VecDeque;

use super::waiter::{Turn, Waiter};
use crate::map::Map;
use crate::state::Work;

/// How many tenants are told apart while they wait. Those that come when there are so
/// many share as many places.
pub(super) const MAX_TENANTS: usize = 256;

/// How many tenants are remembered in all: those that wait, and those that have had
/// more than the class's virtual time.
const MAX_REMEMBERED: usize = 2 * MAX_TENANTS;

/// The waiters of one class.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// The tag of the last start.
    pub(super) virtual_time: u64,
    /// Once all classes together have been given so much, this one is owed a start.
    pub(super) owed_at: u64,
    tenants: Map<u64, Tenant>,
}

/// The waiters of one tenant.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    tag: u64,
    /// In the order of their turns. Most come and go at the ends; in between at most half
    /// of them are moved, which even of thousands takes a few microseconds, and a tree
    /// would be 11 KB of the filter's file.
    pub(super) waiters: VecDeque<Waiter>,
}

impl Class {
    /// Tenants with waiters, and the tags by which they are next.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &Tenant)> {
        let waiting = self.tenants.values().filter(|it| !it.waiters.is_empty());
        waiting.map(|tenant| (tenant.tag.max(self.virtual_time), tenant))
    }

    /// Takes a waiter in; the id of the tenant that it counts for.
    pub(super) fn insert(&mut self, waiter: Waiter) -> u64 {
        let is_known = self.tenants.contains_key(&waiter.tenant);
        let id = if is_known || self.waiting().count() < MAX_TENANTS {
            waiter.tenant
        } else {
            waiter.tenant % MAX_TENANTS as u64
        };
        let waiters = &mut self.tenant(id).waiters;
        let place = waiters.partition_point(|other| other.turn() < waiter.turn());
        waiters.insert(place, waiter);
        id
    }

    /// Takes a waiter of the tenant `id` out.
    pub(super) fn remove(&mut self, id: u64, turn: &Turn) -> Option<Waiter> {
        let tenant = self.tenants.get_mut(&id)?;
        let place = tenant.waiters.binary_search_by_key(turn, Waiter::turn).ok();
        let waiter = place.and_then(|place| tenant.waiters.remove(place));
        if tenant.waiters.is_empty() && tenant.tag <= self.virtual_time {
            self.tenants.remove(&id);
        }
        waiter
    }

    /// The tenant `id` starts a request of so much work.
    pub(super) fn charge(&mut self, id: u64, work: Work) {
        let virtual_time = self.virtual_time;
        let tenant = self.tenant(id);
        let start = tenant.tag.max(virtual_time);
        tenant.tag = start.saturating_add(work.units());
        self.virtual_time = start;
    }

    /// The tags of tenants that have had more than the class's virtual time.
    pub(super) fn tags(&self) -> impl Iterator<Item = (u64, u64)> {
        let tags = self.tenants.iter().map(|(id, tenant)| (*id, tenant.tag));
        tags.filter(|(_, tag)| *tag > self.virtual_time)
    }

    /// Takes over what another worker has given the tenant `id`.
    pub(super) fn take_over(&mut self, id: u64, tag: u64) {
        if tag > self.virtual_time {
            let tenant = self.tenant(id);
            tenant.tag = tenant.tag.max(tag);
        }
    }

    /// Nobody waits any more, on any worker: who has had what is of no consequence.
    pub(super) fn settle(&mut self) {
        let tags = self.tenants.values().map(|tenant| tenant.tag);
        self.virtual_time = tags.fold(self.virtual_time, u64::max);
        self.tenants.clear();
    }

    /// The tenant with the most waiters, of several the one that has the last.
    pub(super) fn fullest(&self) -> Option<&Tenant> {
        let waiting = self.waiting().map(|(_, tenant)| tenant);
        waiting.max_by_key(|tenant| (tenant.waiters.len(), tenant.last().map(Waiter::turn)))
    }

    /// A tenant; one that is new has had nothing.
    fn tenant(&mut self, id: u64) -> &mut Tenant {
        if self.tenants.len() >= MAX_REMEMBERED && !self.tenants.contains_key(&id) {
            let idle = self.tenants.iter().filter(|(_, it)| it.waiters.is_empty());
            let least = idle.min_by_key(|(_, tenant)| tenant.tag);
            if let Some(id) = least.map(|(id, _)| *id) {
                self.tenants.remove(&id);
            }
        }
        self.tenants.entry(id).or_default()
    }
}

impl Tenant {
    /// Its waiter that is next.
    pub(super) fn first(&self) -> Option<&Waiter> {
        self.waiters.front()
    }

    /// Its waiter that would be the last to start.
    pub(super) fn last(&self) -> Option<&Waiter> {
        self.waiters.back()
    }
}
