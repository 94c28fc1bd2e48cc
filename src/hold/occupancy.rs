//! How much waits.

use super::waiter::Waiter;
use crate::config::{MAX_CLASSES, QueueLimits};

/// How much waits, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    classes: [Waiting; MAX_CLASSES],
}

/// How much waits of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) requests: u32,
    pub(super) bytes: u64,
}

impl Occupancy {
    /// The requests that wait.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.up_to(MAX_CLASSES).requests
    }

    /// The requests of this class that wait.
    #[must_use]
    pub fn requests_of(&self, class: usize) -> u32 {
        self.of(class).requests
    }

    pub(super) fn of(&self, class: usize) -> Waiting {
        self.classes.get(class).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, class: usize, waiting: Waiting) {
        if let Some(place) = self.classes.get_mut(class) {
            *place = waiting;
        }
    }

    /// Together with what waits elsewhere.
    #[must_use]
    pub(super) fn plus(mut self, other: &Occupancy) -> Occupancy {
        for (own, other) in self.classes.iter_mut().zip(&other.classes) {
            own.requests = own.requests.saturating_add(other.requests);
            own.bytes = own.bytes.saturating_add(other.bytes);
        }
        self
    }

    pub(super) fn add(&mut self, waiter: &Waiter) {
        if let Some(waiting) = self.classes.get_mut(waiter.class) {
            waiting.requests = waiting.requests.saturating_add(1);
            waiting.bytes = waiting.bytes.saturating_add(waiter.bytes.into());
        }
    }

    pub(super) fn remove(&mut self, waiter: &Waiter) {
        if let Some(waiting) = self.classes.get_mut(waiter.class) {
            waiting.requests = waiting.requests.saturating_sub(1);
            waiting.bytes = waiting.bytes.saturating_sub(waiter.bytes.into());
        }
    }

    /// The least important class of which anything waits.
    pub(super) fn lowest(&self) -> Option<usize> {
        self.classes.iter().rposition(|it| it.requests > 0)
    }

    /// Whether more waits than may.
    pub(super) fn exceeds(&self, limits: &QueueLimits) -> bool {
        let all = self.up_to(MAX_CLASSES);
        all.requests > limits.max_requests || all.bytes > limits.max_bytes.into()
    }

    /// Whether this waiter's bytes fit beside those of all that are at least as
    /// important.
    pub(super) fn has_room_for(&self, waiter: &Waiter, limits: &QueueLimits) -> bool {
        let before = self.up_to(waiter.class.saturating_add(1)).bytes;
        before.saturating_add(waiter.bytes.into()) <= limits.max_bytes.into()
    }

    /// The part of the places that the first `class` classes and this one occupy: 1
    /// where all are taken.
    fn filled(&self, class: usize, limits: &QueueLimits) -> f64 {
        let Waiting { requests, bytes } = self.up_to(class.saturating_add(1));
        let part = |taken: f64, all: u32| match taken > 0.0 {
            true => taken / f64::from(all),
            false => 0.0,
        };
        let requests = part(f64::from(requests), limits.max_requests);
        requests.max(part(bytes as f64, limits.max_bytes))
    }

    /// The probability with which a request of this class out of so many is refused
    /// before the queue is full. It rises linearly while the last part of the queue
    /// fills with what goes before the request: the last half for the lowest class, less
    /// for those above it, and nothing for the highest. Random early detection (Floyd
    /// and Jacobson 1993) with the instantaneous length.
    pub(super) fn early_refusal(&self, class: usize, of: usize, limits: &QueueLimits) -> f64 {
        let lower = of.saturating_sub(1);
        if class == 0 || lower == 0 {
            return 0.0;
        }
        let ramp = 0.5 * class as f64 / lower as f64;
        ((self.filled(class, limits) - 1.0 + ramp) / ramp).clamp(0.0, 1.0)
    }

    fn up_to(&self, classes: usize) -> Waiting {
        let counted = self.classes.iter().take(classes);
        counted.fold(Waiting::default(), |sum, it| Waiting {
            requests: sum.requests.saturating_add(it.requests),
            bytes: sum.bytes.saturating_add(it.bytes),
        })
    }
}
