//! Continuous batching: one engine step after another, each as long as its [`StepCost`] says.
//!
//! All decoding sequences move in lockstep, so a step needs no look at each of them: what they have generated follows from
//! the number of steps since they joined, the sum of their contexts grows by one a sequence and step, and the first to end is known when it
//! joins. A step costs a few additions however large the batch; only joins and ends scan it.

use std::collections::VecDeque;

use super::device::MemoryCost;
use super::fleet::BatchingSpec;
use super::job::{EventKind, Job, JobId, Load};
use super::outbox::Outbox;
use super::step_cost::StepCost;
use super::work_clock::Work;

#[derive(Clone, Debug)]
pub(super) struct BatchingEngine {
    cost: StepCost,
    kv_tokens: u64,
    max_sequences: usize,
    token_budget: u64,
    memory_cost: MemoryCost,

    /// When the step under way ends. While any sequence runs there is one.
    step_ends: Option<Work>,
    waiting: VecDeque<Sequence>,
    /// In the order of admission; at any time a prefix of them has a chunk in the step.
    prefilling: VecDeque<Prefilling>,
    /// In the order of admission, all of them admitted before all that prefill.
    decoding: Vec<Decoding>,
    /// How many of `decoding` are streamed.
    streamed: usize,
    /// Decode steps completed.
    steps: u64,
    /// The value of `steps` at which the first of `decoding` ends; `u64::MAX` without any.
    first_end: u64,
    /// KV memory of the prefilling sequences, taken whole at admission.
    prefill_kv: u64,
    /// KV memory of the decoding sequences, the step under way included: the sum of their contexts.
    decode_kv: u64,
    /// Bytes of the device's memory that those in the batch take.
    memory: u64,
}

#[derive(Clone, Debug)]
struct Sequence {
    job: JobId,
    prompt: u32,
    output: u32,
    generated: u32,
    stream: bool,
    /// Bytes that it takes of the device's memory while it runs.
    memory: u64,
}

#[derive(Clone, Debug)]
struct Prefilling {
    sequence: Sequence,
    computed: u64,
    /// What the step under way adds.
    chunk: u64,
}

#[derive(Clone, Debug)]
struct Decoding {
    /// As it was when it joined.
    sequence: Sequence,
    joined: u64,
}

impl Sequence {
    /// Tokens to be computed before the next one can be generated; also the KV memory that they take.
    fn context(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.generated)
    }
}

impl Decoding {
    fn ends(&self) -> u64 {
        self.joined + u64::from(self.sequence.output - self.sequence.generated)
    }

    /// KV memory while a step is under way: that of the token being computed included.
    fn kv_in_step(&self, steps: u64) -> u64 {
        self.sequence.context() + (steps - self.joined)
    }

    /// KV memory between two steps: the newest token's entry comes with the next.
    fn kv_between_steps(&self, steps: u64) -> u64 {
        self.kv_in_step(steps) - 1
    }

    fn into_sequence(mut self, steps: u64) -> Sequence {
        let since = u32::try_from(steps - self.joined).unwrap_or(u32::MAX);
        self.sequence.generated = self.sequence.generated.saturating_add(since);
        self.sequence
    }
}

impl BatchingEngine {
    pub(super) fn new(spec: &BatchingSpec, memory_cost: MemoryCost) -> Self {
        Self {
            cost: spec.cost,
            kv_tokens: u64::from(spec.kv_tokens.get()),
            max_sequences: spec.max_sequences.get(),
            token_budget: spec.token_budget.max(spec.max_sequences).get() as u64,
            memory_cost,
            step_ends: None,
            waiting: VecDeque::new(),
            prefilling: VecDeque::new(),
            decoding: Vec::new(),
            streamed: 0,
            steps: 0,
            first_end: u64::MAX,
            prefill_kv: 0,
            decode_kv: 0,
            memory: 0,
        }
    }

    pub(super) fn load(&self) -> Load {
        Load {
            running: self.running(),
            waiting: self.waiting.len(),
            kv_used: self.kv_used(),
            kv_tokens: self.kv_tokens,
            device_memory: self.memory,
        }
    }

    pub(super) fn has_room_for(&self, max_waiting: usize) -> bool {
        self.step_ends.is_none() || self.waiting.len() < max_waiting
    }

    /// The job's prompt and output together must fit into KV memory: a sequence alone is then never preempted.
    pub(super) fn arrive(&mut self, now: Work, job: Job, out: &mut Outbox<'_>) {
        self.waiting.push_back(Sequence {
            job: job.id,
            prompt: job.prompt_tokens.get(),
            output: job.output_tokens.get(),
            generated: 0,
            stream: job.stream,
            memory: self.memory_cost.of(&job),
        });
        if self.step_ends.is_none() {
            self.begin_step(now, out);
        }
    }

    /// A lower bound of the next event's time, exact when the step under way may bring one. Quiet steps, in which all
    /// that happens is that each sequence decodes one more token, are jumped over.
    pub(super) fn next_event(&self) -> Option<Work> {
        let step_ends = self.step_ends?;
        if !self.prefilling.is_empty() || self.streamed > 0 || self.admits_next() {
            return Some(step_ends);
        }
        let batch = self.decoding.len() as u64;
        if batch == 0 {
            return Some(step_ends);
        }
        let until_end = self.first_end - self.steps;
        let until_overflow = 1 + self.kv_free() / batch;
        let later_steps = until_end.min(until_overflow).saturating_sub(1);
        let nanos = self
            .cost
            .nanos_of_steps_at_least(later_steps, batch, self.decode_kv + batch);
        Some(step_ends.after_nanos(nanos))
    }

    pub(super) fn advance(&mut self, limit: Work, out: &mut Outbox<'_>) {
        while let Some(now) = self.step_ends
            && now <= limit
        {
            self.end_decodes(now, out);
            self.end_prefills(now, out);
            self.begin_step(now, out);
        }
    }

    /// Frees what the job holds at once; the step under way takes as long as it would have.
    pub(super) fn cancel(&mut self, id: JobId) -> bool {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.job == id) {
            return self.waiting.remove(at).is_some();
        }
        let at = self
            .prefilling
            .iter()
            .position(|prefilling| prefilling.sequence.job == id);
        if let Some(cancelled) = at.and_then(|at| self.prefilling.remove(at)) {
            self.prefill_kv -= cancelled.sequence.context();
            self.memory -= cancelled.sequence.memory;
            return true;
        }
        let at = self
            .decoding
            .iter()
            .position(|decoding| decoding.sequence.job == id);
        if let Some(at) = at {
            let cancelled = self.decoding.remove(at);
            self.decode_kv -= cancelled.kv_in_step(self.steps);
            self.memory -= cancelled.sequence.memory;
            self.streamed -= usize::from(cancelled.sequence.stream);
            self.find_first_end();
            return true;
        }
        false
    }

    pub(super) fn drain(&mut self) -> Vec<JobId> {
        self.step_ends = None;
        self.streamed = 0;
        self.first_end = u64::MAX;
        self.prefill_kv = 0;
        self.decode_kv = 0;
        self.memory = 0;
        let decoding = self.decoding.drain(..).map(|it| it.sequence.job);
        let prefilling = self.prefilling.drain(..).map(|it| it.sequence.job);
        let waiting = self.waiting.drain(..).map(|it| it.job);
        decoding.chain(prefilling).chain(waiting).collect()
    }

    fn running(&self) -> usize {
        self.prefilling.len() + self.decoding.len()
    }

    fn kv_used(&self) -> u64 {
        self.prefill_kv + self.decode_kv
    }

    fn kv_free(&self) -> u64 {
        self.kv_tokens.saturating_sub(self.kv_used())
    }

    /// Whether the first that waits could run.
    fn admits_next(&self) -> bool {
        self.running() < self.max_sequences
            && self
                .waiting
                .front()
                .is_some_and(|first| first.context() <= self.kv_free())
    }

    /// Each decoding sequence has one token more; those that have all of theirs leave.
    fn end_decodes(&mut self, now: Work, out: &mut Outbox<'_>) {
        if self.decoding.is_empty() {
            return;
        }
        self.steps += 1;
        out.counters.generation_tokens += self.decoding.len() as u64;
        if self.streamed > 0 {
            for decoding in self.decoding.iter().filter(|it| it.sequence.stream) {
                out.emit(now, decoding.sequence.job, EventKind::Tokens(1));
            }
        }
        if self.steps < self.first_end {
            return;
        }
        let steps = self.steps;
        let ended = self.decoding.extract_if(.., |it| it.ends() <= steps);
        for decoding in ended {
            self.decode_kv -= decoding.kv_between_steps(steps);
            self.memory -= decoding.sequence.memory;
            self.streamed -= usize::from(decoding.sequence.stream);
            out.emit(now, decoding.sequence.job, EventKind::Done);
        }
        self.find_first_end();
    }

    /// Sequences whose prompt is computed have their next token by that, and decode from here on.
    fn end_prefills(&mut self, now: Work, out: &mut Outbox<'_>) {
        while let Some(first) = self.prefilling.front_mut() {
            first.computed += first.chunk;
            first.chunk = 0;
            if first.computed < first.sequence.context() {
                return;
            }
            if let Some(complete) = self.prefilling.pop_front() {
                self.end_prefill(now, complete.sequence, out);
            }
        }
    }

    fn end_prefill(&mut self, now: Work, mut sequence: Sequence, out: &mut Outbox<'_>) {
        let context = sequence.context();
        self.prefill_kv -= context;
        sequence.generated += 1;
        out.counters.generation_tokens += 1;
        if sequence.generated == 1 {
            out.count_first_token(sequence.prompt);
            out.emit(now, sequence.job, EventKind::FirstToken);
        } else {
            out.counters.recomputed_tokens += context;
            if sequence.stream {
                out.emit(now, sequence.job, EventKind::Tokens(1));
            }
        }
        if sequence.generated == sequence.output {
            self.memory -= sequence.memory;
            out.emit(now, sequence.job, EventKind::Done);
            return;
        }
        self.decode_kv += context;
        self.streamed += usize::from(sequence.stream);
        let decoding = Decoding {
            sequence,
            joined: self.steps,
        };
        self.first_end = self.first_end.min(decoding.ends());
        self.decoding.push(decoding);
    }

    fn begin_step(&mut self, now: Work, out: &mut Outbox<'_>) {
        let preempted = self.make_room_to_decode(now, out);
        let decodes = self.decoding.len() as u64;
        self.decode_kv += decodes;
        let mut budget = self.token_budget.saturating_sub(decodes);
        for prefilling in &mut self.prefilling {
            budget -= prefilling.take_chunk(budget);
        }
        // Who was preempted in this step must not be admitted in it again.
        while !preempted && budget > 0 && self.admits_next() {
            let Some(sequence) = self.waiting.pop_front() else {
                break;
            };
            self.prefill_kv += sequence.context();
            self.memory += sequence.memory;
            let mut admitted = Prefilling {
                sequence,
                computed: 0,
                chunk: 0,
            };
            budget -= admitted.take_chunk(budget);
            self.prefilling.push_back(admitted);
        }
        let prefills: u64 = self.prefilling.iter().map(|it| it.chunk).sum();
        let tokens = decodes + prefills;
        self.step_ends =
            (tokens > 0).then(|| now.after_nanos(self.cost.nanos(tokens, self.decode_kv)));
    }

    /// Preempts the newest sequences until each that decodes can have one token more.
    fn make_room_to_decode(&mut self, now: Work, out: &mut Outbox<'_>) -> bool {
        let mut preempted = false;
        while self.decoding.len() as u64 > self.kv_free() {
            let Some(sequence) = self.remove_newest() else {
                break;
            };
            out.emit(now, sequence.job, EventKind::Preempted);
            self.waiting.push_front(sequence);
            preempted = true;
        }
        if preempted {
            self.find_first_end();
        }
        preempted
    }

    fn remove_newest(&mut self) -> Option<Sequence> {
        if let Some(newest) = self.prefilling.pop_back() {
            self.prefill_kv -= newest.sequence.context();
            self.memory -= newest.sequence.memory;
            return Some(newest.sequence);
        }
        let newest = self.decoding.pop()?;
        self.decode_kv -= newest.kv_between_steps(self.steps);
        self.memory -= newest.sequence.memory;
        self.streamed -= usize::from(newest.sequence.stream);
        Some(newest.into_sequence(self.steps))
    }

    fn find_first_end(&mut self) {
        let ends = self.decoding.iter().map(Decoding::ends);
        self.first_end = ends.min().unwrap_or(u64::MAX);
    }
}

impl Prefilling {
    /// Plans as much of the rest as the budget has room for.
    fn take_chunk(&mut self, budget: u64) -> u64 {
        self.chunk = (self.sequence.context() - self.computed).min(budget);
        self.chunk
    }
}
