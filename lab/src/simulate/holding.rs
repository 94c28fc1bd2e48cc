//! Calls that wait in a gateway until a server has room: the filter's own queues, one a worker.
//!
//! What the workers of a process show each other arrives at once here, and so does the call that room was made: on a real Envoy that
//! takes about half a millisecond.

use paceline::config::Admission;
use paceline::hold::{Cause, Notice, Queue, Waiter};
use paceline::time::Timestamp;

/// The calls that wait in one gateway process.
#[derive(Debug)]
pub(super) struct Holding {
    /// By worker.
    queues: Vec<Queue>,
    /// Something may have become free since the first of them was last tried.
    pub(super) may_have_room: bool,
}

impl Holding {
    /// Of so many workers.
    pub(super) fn new(admission: &Admission, workers: usize) -> Self {
        Self {
            queues: (0..workers).map(|_| Queue::new(admission)).collect(),
            may_have_room: false,
        }
    }

    /// Whether any call waits, on any worker.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(Queue::is_empty)
    }

    /// A call is to wait on this worker; those that have to go for it, perhaps itself.
    pub(super) fn offer(
        &mut self,
        worker: usize,
        waiter: Waiter,
        draw: f64,
    ) -> Vec<(usize, Cause)> {
        self.tell(worker);
        let Some(queue) = self.queues.get_mut(worker) else {
            return vec![(waiter.context as usize, Cause::Full)];
        };
        let offered = queue.offer(waiter, draw);
        let mut gone: Vec<_> = offered
            .displaced
            .iter()
            .map(|it| (it.waiter.context as usize, it.cause))
            .collect();
        gone.extend(
            offered
                .held
                .err()
                .map(|cause| (waiter.context as usize, cause)),
        );
        for other in 0..self.queues.len() {
            self.tell(other);
            let trimmed = self.queues.get_mut(other).map(Queue::trim);
            let trimmed = trimmed.into_iter().flatten();
            gone.extend(trimmed.map(|it| (it.waiter.context as usize, it.cause)));
        }
        gone
    }

    /// The worker and the name of the call that is next.
    pub(super) fn first(&mut self) -> Option<(usize, u32)> {
        for worker in 0..self.queues.len() {
            self.tell(worker);
        }
        let firsts = self.queues.iter().enumerate();
        let firsts = firsts.filter_map(|(worker, queue)| Some((queue.first()?, worker)));
        let (next, worker) = firsts.min_by_key(|(next, _)| (next.rank, next.context))?;
        Some((worker, next.context))
    }

    /// How many calls wait.
    pub(super) fn waiting(&self) -> u32 {
        self.queues.iter().map(|it| it.occupancy().requests()).sum()
    }

    /// The call is sent.
    pub(super) fn start(&mut self, worker: usize, context: u32) {
        if let Some(queue) = self.queues.get_mut(worker) {
            queue.start(context);
        }
    }

    /// The call does not wait any more.
    pub(super) fn remove(&mut self, worker: usize, context: u32) {
        if let Some(queue) = self.queues.get_mut(worker) {
            queue.remove(context);
        }
    }

    /// A call that has waited enough.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<usize> {
        let expired = self.queues.iter_mut().find_map(|queue| queue.expire(now));
        expired.map(|waiter| waiter.context as usize)
    }

    /// The worker hears what the others show.
    fn tell(&mut self, worker: usize) {
        if self.queues.len() == 1 {
            return;
        }
        let others = self.queues.iter().enumerate();
        let others = others.filter(|(other, _)| *other != worker);
        let notices: Vec<Notice> = others
            .map(|(_, queue)| queue.notice(queue.first().map(|it| it.rank)))
            .collect();
        if let Some(queue) = self.queues.get_mut(worker) {
            queue.hear(notices.iter());
        }
    }
}
