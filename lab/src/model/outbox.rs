use super::job::{Counters, Event, EventKind, JobId};
use super::work_clock::{Work, WorkClock};

/// Where an engine says what it did.
pub(super) struct Outbox<'a> {
    clock: &'a WorkClock,
    events: &'a mut Vec<Event>,
    pub(super) counters: &'a mut Counters,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(
        clock: &'a WorkClock,
        events: &'a mut Vec<Event>,
        counters: &'a mut Counters,
    ) -> Self {
        Self {
            clock,
            events,
            counters,
        }
    }

    pub(super) fn emit(&mut self, at: Work, job: JobId, kind: EventKind) {
        // A server that is stopped is not asked to advance, and has nothing to say.
        let Some(at) = self.clock.time_of(at) else {
            return;
        };
        match kind {
            EventKind::Done => self.counters.done += 1,
            EventKind::Preempted => self.counters.preemptions += 1,
            EventKind::FirstToken | EventKind::Tokens(_) | EventKind::Lost(_) => {}
        }
        self.events.push(Event { at, job, kind });
    }

    pub(super) fn count_first_token(&mut self, prompt_tokens: u32) {
        self.counters.prompt_tokens += u64::from(prompt_tokens);
    }
}
