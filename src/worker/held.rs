//! A worker's requests that wait for room: who is next, on this worker or another, and
//! who is to be called when there is room.

use super::Worker;
use crate::decision::{Demand, Room};
use crate::hold::{Cause, Notice, Queue, Rank, Waiter};
use crate::host::{Host, QueueId};
use crate::pool::PoolIndex;
use crate::rejection::{DrainRate, Reason, retry_after};
use crate::state::StateError;
use crate::time::Timestamp;
use crate::wake::Other;

use std::time::Duration;

/// What waits in one pool on this worker.
#[derive(Debug)]
pub(super) struct Held {
    queue: Queue,
    /// How fast requests end.
    ends: DrainRate,
}

impl Held {
    pub(super) fn new(pool: &crate::config::Pool) -> Self {
        Held {
            queue: Queue::new(&pool.admission),
            ends: DrainRate::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The rank of the first that waits.
    fn first(&self) -> Option<Rank> {
        Some(self.queue.first()?.rank)
    }
}

/// A request that is to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToHold {
    /// The context of its stream.
    pub(crate) context: u32,
    pub(crate) demand: Demand,
    /// Its priority class, 0 for the most important.
    pub(crate) class: usize,
    /// Tells its tenant apart.
    pub(crate) tenant: u64,
    /// Bytes of its body, as far as they are known.
    pub(crate) bytes: u32,
}

/// A request that waited and is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The context of its stream.
    pub context: u32,
    /// Why.
    pub reason: Reason,
}

impl Worker {
    /// The request waits from now on.
    ///
    /// # Errors
    /// It may not: why it is to be rejected.
    pub(crate) fn hold(
        &mut self,
        host: &mut impl Host,
        request: &ToHold,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let pool = request.demand.pool;
        // The others know a worker by its lane, which comes with its first pick.
        if let Err(error) = self.balancer.join(host, now) {
            self.metrics.state_failed(host, error);
        }
        self.hear(host, pool, now);
        let configured = self.config.pools.get(pool.0);
        let longest = configured.map_or(Duration::ZERO, |it| it.admission.queue.max_wait);
        let until = now.after(longest);
        let latest = self.balancer.latest_start(&request.demand, now);
        let waiter = Waiter {
            context: request.context,
            class: request.class,
            tenant: request.tenant,
            work: self.balancer.expected_work(&request.demand),
            size: request.demand.size,
            bytes: request.bytes,
            arrived: now,
            until: latest.map_or(until, |latest| latest.min(until)),
        };
        let draw = self.rng.unit();
        let Some(held) = self.held.get_mut(pool.0) else {
            return Err(Reason::QueueFull);
        };
        let offered = held.queue.offer(waiter, draw);
        self.refuse_all(offered.displaced.iter().map(|it| (it.waiter, it.cause)));
        self.show_waiters(host, pool);
        self.ask_for_urgent_ticks(host);
        self.call_for_refusals(host);
        offered.held.map_err(Reason::from)
    }

    /// The request starts, and is not held any more.
    pub(crate) fn unhold_to_start(
        &mut self,
        host: &mut impl Host,
        (context, pool): (u32, PoolIndex),
    ) {
        if let Some(held) = self.held.get_mut(pool.0) {
            held.queue.start(context);
        }
        self.show_waiters(host, pool);
    }

    /// The request leaves without having started.
    pub(crate) fn unhold(&mut self, host: &mut impl Host, (context, pool): (u32, PoolIndex)) {
        self.refusals.retain(|refusal| refusal.context != context);
        let held = self.held.get_mut(pool.0);
        if held.is_some_and(|held| held.queue.remove(context).is_some()) {
            self.show_waiters(host, pool);
        }
    }

    /// How many requests of `pool` wait for room on all workers: those of this one, and
    /// those of which it last heard from the others. It listens on its ticks, and whenever
    /// one of its own requests is to wait or may start.
    #[must_use]
    pub fn waiting_in(&self, pool: PoolIndex) -> u32 {
        let held = self.held.get(pool.0);
        held.map_or(0, |held| held.queue.waiting_everywhere())
    }

    /// Whether a request that comes to `pool` now has to wait behind others.
    pub(crate) fn is_crowded(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        now: Timestamp,
    ) -> bool {
        if self.held.get(pool.0).is_some_and(|held| !held.is_empty()) {
            return true;
        }
        !self.others(host, pool, now).is_empty()
    }

    /// Who of this worker may start next in `pool`. One whose turn comes after that of
    /// another worker's waiter calls that, unless this worker `insists`: calls may be
    /// lost.
    pub fn next_to_start(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        insists: bool,
    ) -> Option<u32> {
        let now = self.now(host);
        let others = self.hear(host, pool, now);
        let room = self.balancer.room(host, pool, now);
        let queue = &mut self.held.get_mut(pool.0)?.queue;
        let next = match &room {
            Ok(room) if room.depends_on_size() => queue.next(|waiter| room.fits(waiter.size)),
            // All need the same: if the first finds no room, nobody does.
            Ok(Room::None) => None,
            _ => queue.first().map(|first| crate::hold::Next {
                fits: true,
                ..first
            }),
        };
        let next = next.filter(|next| next.fits)?;
        if !insists && queue.yields(next.rank) {
            // By what was just heard, ranks have changed. The other must see that, or it
            // might yield in its turn.
            self.show_waiters(host, pool);
            if let Some((_, queue)) = first_of(&others) {
                let _ = host.enqueue(queue);
            }
            return None;
        }
        Some(next.context)
    }

    /// The pools in which anything waits on this worker.
    #[must_use]
    pub fn waiting_pools(&self) -> Vec<PoolIndex> {
        let pools = self.held.iter().enumerate();
        let pools = pools.filter(|(_, held)| !held.is_empty());
        pools.map(|(number, _)| PoolIndex(number)).collect()
    }

    /// Those that waited and are to be answered, each with `host` at its stream. One for
    /// which that fails is to be given to [`Worker::refuse_again`].
    #[must_use = "who is not answered waits for ever"]
    pub fn take_refusals(&mut self, host: &mut impl Host) -> Vec<Refusal> {
        let now = self.now(host);
        for number in 0..self.held.len() {
            let Some(held) = self.held.get_mut(number) else {
                continue;
            };
            let mut has_changed = false;
            while let Some(waiter) = held.queue.expire(now) {
                has_changed = true;
                let waited = waiter.until.since(waiter.arrived);
                let configured = self.config.pools.get(number);
                let is_deadline = configured.is_some_and(|it| waited < it.admission.queue.max_wait);
                self.refusals.push(Refusal {
                    context: waiter.context,
                    reason: match is_deadline {
                        true => Reason::Deadline,
                        false => Reason::MaxWait,
                    },
                });
            }
            if has_changed {
                self.show_waiters(host, PoolIndex(number));
            }
        }
        std::mem::take(&mut self.refusals)
    }

    /// The request could not be answered now.
    pub fn refuse_again(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    /// Forgets a request whose stream is gone.
    pub fn forget(&mut self, host: &mut impl Host, context: u32) {
        for pool in self.waiting_pools() {
            self.unhold(host, (context, pool));
        }
    }

    /// Something was put into this worker's queue: takes out all that is in it. Whether
    /// there may be room; of several calls only the first says so.
    pub fn answer_calls(&mut self, host: &mut impl Host, queue: QueueId) -> bool {
        let mut taken = host.dequeue(queue);
        let is_called = taken != Ok(false);
        while taken == Ok(true) {
            taken = host.dequeue(queue);
        }
        if is_called && self.waiting_pools().is_empty() {
            // Whoever it was meant for has left: the next one.
            for pool in 0..self.held.len() {
                self.call_first(host, PoolIndex(pool));
            }
        }
        is_called
    }

    /// Looks at once at what is in flight everywhere, before a request that waits is
    /// tried again.
    pub fn look_for_room(&mut self, host: &mut impl Host) {
        let now = self.now(host);
        if let Err(error) = self.balancer.look_again(host, now) {
            self.metrics.state_failed(host, error);
        }
    }

    /// After how long a client of the pool that is rejected should try again.
    pub(crate) fn retry_after(&mut self, pool: PoolIndex) -> Option<Duration> {
        let now = self.latest;
        let held = self.held.get(pool.0)?;
        // Both as this worker sees them: its share of what waits, and of what ends.
        let (waiting, rate) = (held.queue.occupancy().requests(), held.ends.per_second(now));
        Some(retry_after(waiting, rate, self.rng.unit()))
    }

    /// Calls the worker whose waiter is first, for all pools for which room was made.
    pub(super) fn call_waiters(&mut self, host: &mut impl Host) {
        let now = self.latest;
        for pool in self.balancer.take_freed() {
            if let Some(held) = self.held.get_mut(pool.0) {
                held.ends.observe(now);
            }
            self.call_first(host, pool);
        }
    }

    fn call_first(&mut self, host: &mut impl Host, pool: PoolIndex) {
        if !self.balancer.limits(pool) {
            return;
        }
        let now = self.latest;
        let own = self.held.get(pool.0).and_then(Held::first);
        let others = self.others(host, pool, now);
        let queue = match (own, first_of(&others)) {
            (Some(own), Some((rank, queue))) if rank < own => Some(queue),
            // Not at once: this may be in the middle of another stream's end.
            (Some(_), _) => self.wake.queue(),
            (None, elsewhere) => elsewhere.map(|(_, queue)| queue),
        };
        if let Some(queue) = queue {
            // Where it fails, the waiter finds the room on its worker's next tick.
            let _ = host.enqueue(queue);
        }
    }

    /// What the other workers show that have waiters in `pool`.
    fn others(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        now: Timestamp,
    ) -> Vec<(Notice, QueueId)> {
        let others = self.wake.others(host, self.balancer.lanes(), pool, now);
        let decoded = |other: Other| Some((Notice::decode(&other.notice)?, other.queue));
        let others = others.unwrap_or_default().into_iter();
        others.filter_map(decoded).collect()
    }

    /// Takes over what the others show, and refuses those of this worker that are too
    /// many then.
    fn hear(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        now: Timestamp,
    ) -> Vec<(Notice, QueueId)> {
        let others = self.others(host, pool, now);
        let mut refused = Vec::new();
        if let Some(held) = self.held.get_mut(pool.0) {
            held.queue.hear(others.iter().map(|(notice, _)| notice));
            let trimmed = held.queue.trim();
            refused.extend(trimmed.iter().map(|it| (it.waiter, it.cause)));
        }
        if !refused.is_empty() {
            self.refuse_all(refused.into_iter());
            self.show_waiters(host, pool);
            self.call_for_refusals(host);
        }
        others
    }

    fn refuse_all(&mut self, refused: impl Iterator<Item = (Waiter, Cause)>) {
        let refusals = refused.map(|(waiter, cause)| Refusal {
            context: waiter.context,
            reason: Reason::from(cause),
        });
        self.refusals.extend(refusals);
    }

    /// Others than the stream that is at hand can be answered only from this worker's
    /// root context: it calls itself.
    fn call_for_refusals(&mut self, host: &mut impl Host) {
        if !self.refusals.is_empty()
            && let Some(queue) = self.wake.queue()
        {
            // Where it fails, the next tick answers them.
            let _ = host.enqueue(queue);
        }
    }

    /// Shows the other workers who waits in `pool`.
    fn show_waiters(&mut self, host: &mut impl Host, pool: PoolIndex) {
        let queue = self.held.get(pool.0).map(|held| &held.queue);
        let notice = queue.and_then(|queue| {
            let first = queue.first()?;
            Some(queue.notice(Some(first.rank)).encode())
        });
        let lanes = self.balancer.lanes();
        if let Err(error) = self.wake.show(host, lanes, pool, notice.as_deref()) {
            self.metrics.state_failed(host, error);
        }
    }

    /// Makes up for what others do not know of this worker's waiters, and shows how many
    /// wait on all workers.
    pub(super) fn renew_waiters(&mut self, host: &mut impl Host, now: Timestamp) {
        for number in 0..self.held.len() {
            let pool = PoolIndex(number);
            if !self.balancer.limits(pool) {
                continue;
            }
            match self.wake.check(host, self.balancer.lanes(), pool) {
                Ok(()) | Err(StateError::Contended) => {}
                Err(error) => self.metrics.state_failed(host, error),
            }
            self.show_waiters(host, pool);
            self.hear(host, pool, now);
            let waiting = self.waiting_in(pool);
            self.metrics.held(host, pool, waiting.into());
        }
    }
}

/// The first waiter of other workers, and where its worker is called.
fn first_of(others: &[(Notice, QueueId)]) -> Option<(Rank, QueueId)> {
    let first = others.iter();
    let first = first.filter_map(|(notice, queue)| Some((notice.best()?, *queue)));
    first.min_by_key(|(rank, _)| *rank)
}
