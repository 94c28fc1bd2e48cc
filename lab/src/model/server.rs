use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::batching::BatchingEngine;
use super::control::{Condition, Control, ControlError, Loading, Mode};
use super::fleet::{Kind, ServerSpec};
use super::job::{Counters, Event, EventKind, Job, JobId, Load, LossReason, Refusal};
use super::outbox::Outbox;
use super::slots::SlotEngine;
use super::time::Time;
use super::work_clock::WorkClock;

/// An emulated model server.
///
/// Times given to it never go back. Every method that takes a time first lets everything happen that is due by then, so a
/// driver may call [`advance`](Self::advance) late, or not at all before another call: the events carry their own times.
#[derive(Clone, Debug)]
pub struct Server {
    engine: Engine,
    clock: WorkClock,
    nominal_speed: f64,
    max_waiting: usize,
    full_status: u16,
    speed: f64,
    mode: Mode,
    ready: bool,
    error_rate: f64,
    error_status: u16,
    loaded_at: Time,
    loading: Loading,
    random: Xoshiro256PlusPlus,
    counters: Counters,
}

#[derive(Clone, Debug)]
enum Engine {
    Slots(SlotEngine),
    Batching(BatchingEngine),
}

/// The status of random errors, unless it was told another.
const RANDOM_ERROR: u16 = 500;

impl Server {
    /// An idle server. `seed` decides which requests an `error_rate` hits.
    pub fn new(spec: &ServerSpec, seed: u64) -> Self {
        let memory = spec.placement.map(|it| it.memory).unwrap_or_default();
        let engine = match &spec.kind {
            Kind::Slots(slots) => Engine::Slots(SlotEngine::new(slots, memory)),
            Kind::Batching(batching) => Engine::Batching(BatchingEngine::new(batching, memory)),
        };
        Self {
            engine,
            clock: WorkClock::new(spec.speed),
            nominal_speed: spec.speed,
            max_waiting: spec.max_waiting.unwrap_or(usize::MAX),
            full_status: spec.full_status,
            speed: 1.0,
            mode: Mode::Normal,
            ready: true,
            error_rate: 0.0,
            error_status: RANDOM_ERROR,
            loaded_at: Time::ZERO,
            loading: Loading::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            counters: Counters::default(),
        }
    }

    /// A job comes; it is served, or waits, or is refused.
    ///
    /// # Errors
    /// Says why it is refused; nothing will be heard of it then.
    pub fn arrive(&mut self, now: Time, job: Job, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.advance(now, events);
        if let Err(refusal) = self.admit(now, &job) {
            self.counters.refused += 1;
            return Err(refusal);
        }
        self.counters.accepted += 1;
        let work = self.clock.work_at(now);
        let (engine, mut out) = self.parts(events);
        match engine {
            Engine::Slots(slots) => slots.arrive(work, job),
            Engine::Batching(batching) => batching.arrive(work, job, &mut out),
        }
        // Work of no length is done at once.
        self.advance(now, events);
        Ok(())
    }

    /// The time before which nothing happens unless something comes from outside; `None` while nothing will.
    ///
    /// A lower bound: [`advance`](Self::advance) at that time may find nothing and the next time be a little
    /// later, but no event is ever earlier than this said.
    pub fn next_event(&self) -> Option<Time> {
        let work = match &self.engine {
            Engine::Slots(slots) => slots.next_event(),
            Engine::Batching(batching) => batching.next_event(),
        };
        work.and_then(|work| self.clock.time_of(work))
    }

    /// Lets everything happen that is due by `now`; appends it to `events` in the order of time.
    pub fn advance(&mut self, now: Time, events: &mut Vec<Event>) {
        if self.clock.is_stopped() {
            // Work of no length would be done without any work.
            return;
        }
        let limit = self.clock.work_at(now);
        let (engine, mut out) = self.parts(events);
        match engine {
            Engine::Slots(slots) => slots.advance(limit, &mut out),
            Engine::Batching(batching) => batching.advance(limit, &mut out),
        }
    }

    /// The caller wants the job no more: its slot or KV memory is free at once. `false` if it has ended by `now`, or was never here.
    pub fn cancel(&mut self, now: Time, job: JobId, events: &mut Vec<Event>) -> bool {
        self.advance(now, events);
        let work = self.clock.work_at(now);
        let cancelled = match &mut self.engine {
            Engine::Slots(slots) => slots.cancel(work, job),
            Engine::Batching(batching) => batching.cancel(job),
        };
        self.counters.cancelled += u64::from(cancelled);
        cancelled
    }

    /// Changes how the server is.
    ///
    /// # Errors
    /// If a value is out of its range; nothing is changed then.
    pub fn control(
        &mut self,
        now: Time,
        control: &Control,
        events: &mut Vec<Event>,
    ) -> Result<(), ControlError> {
        control.check()?;
        self.advance(now, events);
        if control.normal {
            self.speed = 1.0;
            self.mode = Mode::Normal;
            self.ready = true;
            self.error_rate = 0.0;
            self.error_status = RANDOM_ERROR;
            self.loaded_at = self.loaded_at.min(now);
            self.loading = Loading::default();
        }
        self.speed = control.speed.unwrap_or(self.speed);
        self.mode = control.mode.unwrap_or(self.mode);
        self.ready = control.ready.unwrap_or(self.ready);
        self.error_rate = control.error_rate.unwrap_or(self.error_rate);
        self.error_status = control.error_status.unwrap_or(self.error_status);
        self.loading = control.loading.unwrap_or(self.loading);
        if let Some(seconds) = control.reload_seconds {
            self.loaded_at = now + Duration::from_secs_f64(seconds);
            self.lose_all(now, LossReason::Reload, events);
        }
        if self.mode == Mode::Drop {
            self.lose_all(now, LossReason::Dropped, events);
        }
        if control.reset_counters {
            self.counters = Counters::default();
        }
        let working = if self.mode == Mode::Stop { 0.0 } else { 1.0 };
        self.clock
            .set_speed(now, self.nominal_speed * self.speed * working);
        Ok(())
    }

    /// The server's device has no more memory: all jobs are lost, and the model is loaded anew, which takes so long.
    pub fn run_out_of_memory(&mut self, now: Time, reload: Duration, events: &mut Vec<Event>) {
        self.advance(now, events);
        self.counters.crashes += 1;
        self.loaded_at = now + reload;
        self.lose_all(now, LossReason::OutOfMemory, events);
    }

    /// How the server is.
    pub fn condition(&self, now: Time) -> Condition {
        Condition {
            healthy: self.ready && self.mode != Mode::Stop && !self.is_loading(now),
            speed: self.speed,
            mode: self.mode,
            ready: self.ready,
            error_rate: self.error_rate,
            loading_seconds: self.loaded_at.since(now).as_secs_f64(),
            loading: self.loading,
        }
    }

    /// What the server was busy with when it was last told a time.
    pub fn load(&self) -> Load {
        match &self.engine {
            Engine::Slots(slots) => slots.load(),
            Engine::Batching(batching) => batching.load(),
        }
    }

    /// What it has done by then.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn is_loading(&self, now: Time) -> bool {
        now < self.loaded_at
    }

    fn admit(&mut self, now: Time, job: &Job) -> Result<(), Refusal> {
        match self.mode {
            Mode::Drop => return Err(Refusal::Dropping),
            Mode::Fail {
                status,
                retry_after_seconds,
            } => {
                return Err(Refusal::Failing {
                    status,
                    retry_after_seconds,
                });
            }
            Mode::Normal | Mode::Stop => {}
        }
        if self.is_loading(now) {
            return Err(Refusal::Loading);
        }
        if self.error_rate > 0.0 && self.random.random::<f64>() < self.error_rate {
            let status = self.error_status;
            return Err(Refusal::RandomError { status });
        }
        let load = self.load();
        if let Engine::Batching(_) = self.engine {
            let tokens = u64::from(job.prompt_tokens.get()) + u64::from(job.output_tokens.get());
            if tokens > load.kv_tokens {
                return Err(Refusal::TooLong {
                    tokens,
                    kv_tokens: load.kv_tokens,
                });
            }
        }
        let room = match &self.engine {
            Engine::Slots(slots) => slots.has_room_for(self.max_waiting),
            Engine::Batching(batching) => batching.has_room_for(self.max_waiting),
        };
        if room {
            Ok(())
        } else {
            Err(Refusal::QueueFull {
                waiting: load.waiting,
                status: self.full_status,
            })
        }
    }

    fn lose_all(&mut self, now: Time, reason: LossReason, events: &mut Vec<Event>) {
        let lost = match &mut self.engine {
            Engine::Slots(slots) => slots.drain(),
            Engine::Batching(batching) => batching.drain(),
        };
        self.counters.lost += lost.len() as u64;
        events.extend(lost.into_iter().map(|job| Event {
            at: now,
            job,
            kind: EventKind::Lost(reason),
        }));
    }

    fn parts<'a>(&'a mut self, events: &'a mut Vec<Event>) -> (&'a mut Engine, Outbox<'a>) {
        let out = Outbox::new(&self.clock, events, &mut self.counters);
        (&mut self.engine, out)
    }
}
