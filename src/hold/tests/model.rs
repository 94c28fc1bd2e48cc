//! A queue as simple as can be: a list that is searched for everything.

use std::collections::HashMap;

use crate::config::Admission;
use crate::hold::{Fit, Waiter};

/// The waiters of one worker, in no order.
pub(super) struct Model {
    classes: usize,
    is_fair: bool,
    max_requests: usize,
    max_bytes: u64,
    pub(super) waiters: Vec<Waiter>,
    /// By class.
    virtual_time: Vec<u64>,
    owed_at: Vec<u64>,
    tags: HashMap<(usize, u64), u64>,
    given: u64,
}

impl Model {
    pub(super) fn new(admission: &Admission) -> Self {
        let classes = admission.class_count();
        Model {
            classes,
            is_fair: admission.fairness.is_some(),
            max_requests: admission.queue.max_requests as usize,
            max_bytes: admission.queue.max_bytes.into(),
            waiters: Vec::new(),
            virtual_time: vec![0; classes],
            owed_at: vec![0; classes],
            tags: HashMap::new(),
            given: 0,
        }
    }

    fn of(&self, class: usize) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter().filter(move |it| it.class == class)
    }

    fn bytes(&self, up_to: usize) -> u64 {
        let counted = self.waiters.iter().filter(|it| it.class <= up_to);
        counted.map(|it| u64::from(it.bytes)).sum()
    }

    /// Those that have to go for the waiter, perhaps itself; `None` where it is refused
    /// before that.
    pub(super) fn offer(&mut self, waiter: Waiter) -> Option<Vec<u32>> {
        let waiter = Waiter {
            tenant: if self.is_fair { waiter.tenant } else { 0 },
            ..waiter
        };
        let is_known = self.waiters.iter().any(|it| it.context == waiter.context);
        if is_known || self.bytes(waiter.class) + u64::from(waiter.bytes) > self.max_bytes {
            return None;
        }
        if self.of(waiter.class).next().is_none() {
            let owed_at = self.given + 1024 * (10 * (self.classes as u64 - 1)).saturating_sub(1);
            self.owed_at[waiter.class] = self.owed_at[waiter.class].max(owed_at);
        }
        self.waiters.push(waiter);
        let mut gone = Vec::new();
        while self.waiters.len() > self.max_requests || self.bytes(self.classes) > self.max_bytes {
            let lowest = self.waiters.iter().map(|it| it.class).max().unwrap();
            let length = |tenant| self.of(lowest).filter(|it| it.tenant == tenant).count();
            let last = |it: &&Waiter| (length(it.tenant), it.until, it.arrived, it.context);
            let context = self.of(lowest).max_by_key(last).unwrap().context;
            self.remove(context);
            gone.push(context);
        }
        Some(gone)
    }

    pub(super) fn remove(&mut self, context: u32) -> Option<Waiter> {
        let place = self.waiters.iter().position(|it| it.context == context)?;
        let waiter = self.waiters.remove(place);
        self.settle(waiter.class);
        Some(waiter)
    }

    fn settle(&mut self, class: usize) {
        if self.of(class).next().is_none() {
            let of_class = self.tags.iter().filter(|((of, _), _)| *of == class);
            let latest = of_class.map(|(_, tag)| *tag).max().unwrap_or(0);
            self.virtual_time[class] = self.virtual_time[class].max(latest);
            self.tags.retain(|(of, _), _| *of != class);
        }
    }

    pub(super) fn first(&self, fit: impl Fn(&Waiter) -> Fit) -> Option<u32> {
        let rank = |it: &&Waiter| {
            let is_owed = it.class > 0 && self.given >= self.owed_at[it.class];
            let level = if is_owed { 0 } else { it.class + 1 };
            (level, self.tag(it), it.until, it.arrived, it.context)
        };
        let fitting = self.waiters.iter().filter(|it| fit(it) == Fit::Fits);
        fitting.min_by_key(rank).map(|it| it.context)
    }

    fn tag(&self, waiter: &Waiter) -> u64 {
        let tag = self.tags.get(&(waiter.class, waiter.tenant)).copied();
        tag.unwrap_or(0).max(self.virtual_time[waiter.class])
    }

    pub(super) fn start(&mut self, context: u32) {
        let place = self.waiters.iter().position(|it| it.context == context);
        let waiter = self.waiters.remove(place.unwrap());
        let (class, work) = (waiter.class, waiter.work.units());
        self.given += work;
        self.owed_at[class] =
            self.given + work * (10 * (self.classes as u64 - 1)).saturating_sub(1);
        if self.is_fair {
            let tag = self.tag(&waiter);
            self.virtual_time[class] = tag;
            self.tags.insert((class, waiter.tenant), tag + work);
        }
        self.settle(class);
    }
}
