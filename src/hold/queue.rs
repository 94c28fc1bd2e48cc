//! The requests of one pool that wait on one worker.

use super::class::{Class, Tenant};
use super::notice::{ClassNotice, Notice};
use super::occupancy::Occupancy;
use super::waiter::{Cause, Fit, Rank, Turn, Waiter};
use crate::config::{Admission, QueueLimits};
use crate::map::Map;
use crate::state::Work;
use crate::time::Timestamp;

/// All classes but the first together are guaranteed one part in so many of the work
/// that starts.
const GUARANTEE: u64 = 10;

/// How often a waiter that needs more than is free is overtaken before the others have
/// to wait for it.
const MAX_OVERTAKEN: u32 = 16;

/// The requests of one pool that wait on one worker, and what this worker knows of
/// those that wait on the others.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    is_fair: bool,
    /// The most important first.
    classes: Vec<Class>,
    /// Where each waiter is.
    places: Map<u32, Place>,
    occupancy: Occupancy,
    /// What all workers have started from their queues, in units of work.
    given: u64,
    /// The first waiter that has been overtaken, and how often.
    overtaken: Option<(u32, u32)>,
    /// The waiter that was found last, and whom it overtakes if it starts.
    passes: Option<(u32, u32)>,
    elsewhere: Occupancy,
    best_elsewhere: Option<Rank>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    class: usize,
    tenant: u64,
    turn: Turn,
}

/// A waiter that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its name.
    pub context: u32,
    /// Where it stands, to be compared with those of other workers.
    pub rank: Rank,
    /// Whether it can start. Otherwise none can: all need more than is free, or this one
    /// has been overtaken often enough.
    pub fits: bool,
}

/// What became of a request that was to wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// Whether it waits, or why not.
    pub held: Result<(), Cause>,
    /// Others that have to go for it. Nothing does for one that does not wait, unless
    /// too many waited already.
    pub displaced: Vec<Refused>,
}

impl Offered {
    fn refused(cause: Cause) -> Self {
        Offered {
            held: Err(cause),
            displaced: Vec::new(),
        }
    }
}

/// A waiter that was taken out and has to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// Which one.
    pub waiter: Waiter,
    /// Why.
    pub cause: Cause,
}

impl Queue {
    /// An empty queue of a pool that is configured so.
    #[must_use]
    pub fn new(admission: &Admission) -> Self {
        let classes = (0..admission.class_count()).map(|_| Class::default());
        Queue {
            limits: admission.queue,
            is_fair: admission.fairness.is_some(),
            classes: classes.collect(),
            places: Map::default(),
            occupancy: Occupancy::default(),
            given: 0,
            overtaken: None,
            passes: None,
            elsewhere: Occupancy::default(),
            best_elsewhere: None,
        }
    }

    /// What waits on this worker.
    #[must_use]
    pub fn occupancy(&self) -> &Occupancy {
        &self.occupancy
    }

    /// How many requests wait on all workers, as far as this one knows.
    #[must_use]
    pub fn waiting_everywhere(&self) -> u32 {
        self.occupancy.plus(&self.elsewhere).requests()
    }

    /// Whether nothing waits on this worker.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The names of all that wait on this worker, in no order.
    pub fn contexts(&self) -> impl Iterator<Item = u32> + '_ {
        self.places.keys().copied()
    }

    /// Takes in a request that is to wait. `draw` is a random number in [0, 1).
    #[must_use = "those that have to go wait for ever otherwise"]
    pub fn offer(&mut self, waiter: Waiter, draw: f64) -> Offered {
        let waiter = Waiter {
            class: waiter.class.min(self.classes.len().saturating_sub(1)),
            tenant: if self.is_fair { waiter.tenant } else { 0 },
            ..waiter
        };
        let all = self.occupancy.plus(&self.elsewhere);
        if draw < all.early_refusal(waiter.class, self.classes.len(), &self.limits) {
            return Offered::refused(Cause::Early);
        }
        // Otherwise others might go for one that has to go itself in the end.
        let is_too_large = !all.has_room_for(&waiter, &self.limits);
        if is_too_large || self.places.contains_key(&waiter.context) {
            return Offered::refused(Cause::Full);
        }
        self.insert(waiter);
        let mut displaced = self.trim();
        let own = displaced
            .iter()
            .position(|it| it.waiter.context == waiter.context);
        let own = own.map(|place| displaced.swap_remove(place).cause);
        Offered {
            held: own.map_or(Ok(()), Err),
            displaced,
        }
    }

    /// Takes out those that have to go because too many wait on all workers together.
    /// Each worker does this for the least important class of all; so what arrives on
    /// one can displace what waits on another.
    #[must_use = "those that have to go wait for ever otherwise"]
    pub fn trim(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        loop {
            let all = self.occupancy.plus(&self.elsewhere);
            if !all.exceeds(&self.limits) {
                return refused;
            }
            let victim = all.lowest().and_then(|class| self.victim(class));
            let Some((context, cause)) = victim else {
                return refused;
            };
            let Some(waiter) = self.remove(context) else {
                return refused;
            };
            refused.push(Refused { waiter, cause });
        }
    }

    /// The waiter of the class that has to go first.
    fn victim(&self, class: usize) -> Option<(u32, Cause)> {
        let class = self.classes.get(class)?;
        let fullest = class.fullest()?;
        let (mut waiters, mut tenants) = (0, 0);
        for (_, tenant) in class.waiting() {
            waiters += tenant.waiters.len();
            tenants += 1;
        }
        let cause = match fullest.waiters.len() * tenants > waiters {
            true => Cause::Share,
            false => Cause::Full,
        };
        Some((fullest.last()?.context, cause))
    }

    /// The first of all waiters, whatever it needs.
    #[must_use]
    pub fn first(&self) -> Option<Next> {
        self.heads().min().map(|first| first.next(false))
    }

    /// The first waiter that can start with what is free; or else the first that needs
    /// more of it. One that was overtaken 16 times is not overtaken again: then it is the
    /// next, and what is free stays free until there is enough for it.
    ///
    /// Waiters of a tenant are asked about until one fits. Where nothing is free,
    /// [`Queue::first`] asks about none.
    pub fn next(&mut self, fit: impl Fn(&Waiter) -> Fit) -> Option<Next> {
        let (mut ready, mut short) = (None, None);
        for (level, tag, tenant) in self.tenants() {
            let mut needs_more = None;
            for waiter in &tenant.waiters {
                let found = || Found::new(level, tag, waiter);
                match fit(waiter) {
                    Fit::Elsewhere => {}
                    Fit::Short => needs_more = needs_more.or_else(|| Some(found())),
                    Fit::Fits => {
                        ready = ready.into_iter().chain([found()]).min();
                        break;
                    }
                }
            }
            short = short.into_iter().chain(needs_more).min();
        }
        let (next, passes) = match (ready, short) {
            (Some(ready), Some(short)) if short < ready => {
                if self.may_be_overtaken(short.context) {
                    (ready.next(true), Some((ready.context, short.context)))
                } else {
                    (short.next(false), None)
                }
            }
            (Some(ready), _) => (ready.next(true), None),
            (None, short) => (short?.next(false), None),
        };
        self.passes = passes;
        Some(next)
    }

    fn may_be_overtaken(&self, context: u32) -> bool {
        self.overtaken
            .is_none_or(|(other, times)| other != context || times < MAX_OVERTAKEN)
    }

    /// The tenants of all classes that have waiters, with their levels and tags.
    fn tenants(&self) -> impl Iterator<Item = (u8, u64, &Tenant)> {
        let classes = self.classes.iter().enumerate();
        classes.flat_map(|(number, class)| {
            let level = self.level(number, class);
            class
                .waiting()
                .map(move |(tag, tenant)| (level, tag, tenant))
        })
    }

    /// The first waiter of each tenant.
    fn heads(&self) -> impl Iterator<Item = Found> {
        self.tenants()
            .filter_map(|(level, tag, tenant)| Some(Found::new(level, tag, tenant.first()?)))
    }

    fn level(&self, number: usize, class: &Class) -> u8 {
        match number > 0 && self.given >= class.owed_at {
            true => 0,
            false => u8::try_from(number + 1).unwrap_or(u8::MAX),
        }
    }

    /// Whether a waiter of this rank has to wait for one of another worker, which comes
    /// before it.
    #[must_use]
    pub fn yields(&self, rank: Rank) -> bool {
        self.best_elsewhere.is_some_and(|other| other < rank)
    }

    /// The waiter starts: its tenant and its class are charged for it. `None` where there
    /// is none.
    pub fn start(&mut self, context: u32) -> Option<Waiter> {
        let (tenant, waiter) = self.take_out(context)?;
        self.given = self.given.saturating_add(waiter.work.units());
        let owed_at = self.owed_after(waiter.work.units());
        if let Some(class) = self.classes.get_mut(waiter.class) {
            class.owed_at = owed_at;
            if self.is_fair {
                class.charge(tenant, waiter.work);
            }
        }
        if let Some((_, passed)) = self.passes.filter(|(found, _)| *found == context) {
            let before = self.overtaken.filter(|(other, _)| *other == passed);
            let times = before.map_or(0, |(_, times)| times);
            self.overtaken = Some((passed, times + 1));
        }
        self.settle(waiter.class);
        Some(waiter)
    }

    /// The waiter leaves without having started; `None` where there is none.
    pub fn remove(&mut self, context: u32) -> Option<Waiter> {
        let (_, waiter) = self.take_out(context)?;
        self.settle(waiter.class);
        Some(waiter)
    }

    fn take_out(&mut self, context: u32) -> Option<(u64, Waiter)> {
        let place = self.places.remove(&context)?;
        let class = self.classes.get_mut(place.class)?;
        let waiter = class.remove(place.tenant, &place.turn)?;
        self.occupancy.remove(&waiter);
        Some((place.tenant, waiter))
    }

    /// Takes out a waiter that has waited enough; to be called until there is none.
    pub fn expire(&mut self, now: Timestamp) -> Option<Waiter> {
        let expired = self.heads().find(|it| it.rank.until <= now)?;
        self.remove(expired.context)
    }

    /// When the next waiter has waited enough.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.heads().map(|it| it.rank.until).min()
    }

    /// Takes over what the other workers show, all of them: instead of what they showed
    /// before.
    pub fn hear<'a>(&mut self, notices: impl Iterator<Item = &'a Notice>) {
        self.elsewhere = Occupancy::default();
        self.best_elsewhere = None;
        for notice in notices {
            self.elsewhere = self.elsewhere.plus(&notice.occupancy);
            self.best_elsewhere = self.best_elsewhere.into_iter().chain(notice.best).min();
            self.given = self.given.max(notice.given);
            for (class, shown) in self.classes.iter_mut().zip(&notice.classes) {
                class.virtual_time = class.virtual_time.max(shown.virtual_time);
                class.owed_at = class.owed_at.max(shown.owed_at);
                for (tenant, tag) in &shown.tags {
                    class.take_over(*tenant, *tag);
                }
            }
        }
    }

    /// What the other workers need to know: `best` is the waiter that wants what becomes
    /// free next.
    #[must_use]
    pub fn notice(&self, best: Option<Rank>) -> Notice {
        let classes = self.classes.iter().map(|class| ClassNotice {
            virtual_time: class.virtual_time,
            owed_at: class.owed_at,
            tags: class.tags().collect(),
        });
        Notice {
            best,
            occupancy: self.occupancy,
            given: self.given,
            classes: classes.collect(),
        }
    }

    fn insert(&mut self, waiter: Waiter) {
        let owed_at = self.owed_after(Work::MEAN.units());
        let all = self.occupancy.plus(&self.elsewhere);
        let Some(class) = self.classes.get_mut(waiter.class) else {
            return;
        };
        if all.requests_of(waiter.class) == 0 {
            // Nothing is owed for the time in which nobody waited.
            class.owed_at = class.owed_at.max(owed_at);
        }
        let tenant = class.insert(waiter);
        let place = Place {
            class: waiter.class,
            tenant,
            turn: waiter.turn(),
        };
        self.places.insert(waiter.context, place);
        self.occupancy.add(&waiter);
    }

    /// When a class that has been given so much work is owed a start again: once all
    /// have been given so much more that this is its guaranteed share of it.
    fn owed_after(&self, work: u64) -> u64 {
        let lower = self.classes.len().saturating_sub(1) as u64;
        let others = (GUARANTEE * lower).saturating_sub(1);
        self.given.saturating_add(work.saturating_mul(others))
    }

    /// Forgets who has had what of a class of which nothing waits anywhere.
    fn settle(&mut self, class: usize) {
        let all = self.occupancy.plus(&self.elsewhere);
        if all.requests_of(class) == 0
            && let Some(class) = self.classes.get_mut(class)
        {
            class.settle();
        }
    }
}

/// A waiter and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    rank: Rank,
    context: u32,
}

impl Found {
    fn new(level: u8, tag: u64, waiter: &Waiter) -> Self {
        let rank = Rank {
            level,
            tag,
            until: waiter.until,
            arrived: waiter.arrived,
        };
        Found {
            rank,
            context: waiter.context,
        }
    }

    fn next(self, fits: bool) -> Next {
        Next {
            context: self.context,
            rank: self.rank,
            fits,
        }
    }
}
