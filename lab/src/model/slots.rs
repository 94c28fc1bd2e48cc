//! `k` jobs at a time, first come first served.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::device::MemoryCost;
use super::fleet::{ServiceTime, SlotSpec};
use super::job::{EventKind, Job, JobId, Load};
use super::outbox::Outbox;
use super::work_clock::Work;

#[derive(Clone, Debug)]
pub(super) struct SlotEngine {
    slots: NonZeroUsize,
    service: ServiceTime,
    memory_cost: MemoryCost,
    /// Bytes that those on a slot take.
    memory: u64,
    running: BinaryHeap<Reverse<Running>>,
    waiting: VecDeque<Job>,
    started: u64,
}

/// Ordered by its end, and by its start where ends are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    ends: Work,
    started: u64,
    job: JobId,
    prompt_tokens: u32,
    output_tokens: u32,
    stream: bool,
    memory: u64,
}

impl SlotEngine {
    pub(super) fn new(spec: &SlotSpec, memory_cost: MemoryCost) -> Self {
        Self {
            slots: spec.slots,
            service: spec.service,
            memory_cost,
            memory: 0,
            running: BinaryHeap::new(),
            waiting: VecDeque::new(),
            started: 0,
        }
    }

    pub(super) fn load(&self) -> Load {
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            device_memory: self.memory,
            ..Load::default()
        }
    }

    pub(super) fn has_room_for(&self, max_waiting: usize) -> bool {
        self.running.len() < self.slots.get() || self.waiting.len() < max_waiting
    }

    pub(super) fn arrive(&mut self, now: Work, job: Job) {
        self.waiting.push_back(job);
        self.fill_slots(now);
    }

    pub(super) fn next_event(&self) -> Option<Work> {
        self.running.peek().map(|Reverse(first)| first.ends)
    }

    pub(super) fn advance(&mut self, limit: Work, out: &mut Outbox<'_>) {
        while let Some(Reverse(first)) = self.running.peek()
            && first.ends <= limit
            && let Some(Reverse(ended)) = self.running.pop()
        {
            self.memory -= ended.memory;
            out.count_first_token(ended.prompt_tokens);
            out.counters.generation_tokens += u64::from(ended.output_tokens);
            out.emit(ended.ends, ended.job, EventKind::FirstToken);
            if ended.stream && ended.output_tokens > 1 {
                let rest = EventKind::Tokens(ended.output_tokens - 1);
                out.emit(ended.ends, ended.job, rest);
            }
            out.emit(ended.ends, ended.job, EventKind::Done);
            self.fill_slots(ended.ends);
        }
    }

    pub(super) fn cancel(&mut self, now: Work, id: JobId) -> bool {
        let before = self.running.len();
        let mut freed = 0;
        self.running.retain(|Reverse(running)| {
            let stays = running.job != id;
            freed += if stays { 0 } else { running.memory };
            stays
        });
        self.memory -= freed;
        if self.running.len() < before {
            self.fill_slots(now);
            return true;
        }
        let position = self.waiting.iter().position(|job| job.id == id);
        position.and_then(|at| self.waiting.remove(at)).is_some()
    }

    pub(super) fn drain(&mut self) -> Vec<JobId> {
        self.memory = 0;
        let running = self.running.drain().map(|Reverse(running)| running.job);
        let waiting = self.waiting.drain(..).map(|job| job.id);
        running.chain(waiting).collect()
    }

    fn fill_slots(&mut self, now: Work) {
        while self.running.len() < self.slots.get()
            && let Some(job) = self.waiting.pop_front()
        {
            self.started += 1;
            let memory = self.memory_cost.of(&job);
            self.memory += memory;
            self.running.push(Reverse(Running {
                ends: now.after(self.service_of(&job)),
                started: self.started,
                job: job.id,
                prompt_tokens: job.prompt_tokens.get(),
                output_tokens: job.output_tokens.get(),
                stream: job.stream,
                memory,
            }));
        }
    }

    fn service_of(&self, job: &Job) -> Duration {
        job.service.unwrap_or_else(|| {
            self.service
                .of(job.prompt_tokens.get(), job.output_tokens.get())
        })
    }
}
