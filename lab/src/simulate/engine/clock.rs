//! The clock of a run: what happens, in the order in which it happens.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use paceline::decision::Finished;
use paceline::outcome::End;
use paceline::random::Rng;
use paceline::time::Timestamp;
use paceline::worker::Worker;

use super::finished::{
    CLIENT_GONE, NO_HEALTHY_UPSTREAM, TIMED_OUT, answered, bare, refused, reset,
};
use super::{Happening, Reports, Run, Setup};
use crate::model::{self, Condition, ControlError, EventKind, JobId, Time};
use crate::simulate::balancer::{Ended, LoadBalancer, Pick};
use crate::simulate::call::{Call, Ending};
use crate::simulate::fleet::Fleet;

/// How long an error, or the reset of a connection, takes to reach the gateway.
const FAILURE_TIME: Duration = Duration::from_millis(1);

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Not sent yet.
    Ahead,
    /// Waiting in the gateway.
    Held,
    /// At a server.
    At { server: usize, since: Time },
    /// Refused or reset by a server, of which the gateway will hear in a moment.
    Failing {
        server: usize,
        since: Time,
        how: Finished,
    },
    /// Over.
    Ended,
}

/// What the engine has to do at a time. Of what is due at one time, the first of these comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Wake(usize),
    Failure(usize),
    Incident(usize),
    Abort(usize),
    Timeout(usize),
    Report(usize),
    /// A call is heard by a server that hung while it loaded.
    Heard(usize),
    Tick,
}

/// An end of which the gateway has not heard yet.
struct Unreported {
    server: usize,
    since: Time,
    finished: Finished,
}

pub(super) struct Engine<'a> {
    setup: &'a Setup,
    balancer: &'a mut dyn LoadBalancer,
    fleet: Fleet,
    now: Time,
    agenda: BinaryHeap<Reverse<(Time, Due)>>,
    /// How much of the agenda is not ticks.
    substantial: usize,
    /// When each server is to be woken; what the agenda says otherwise is out of date.
    wakes: Vec<Option<Time>>,
    states: Vec<State>,
    endings: Vec<Ending>,
    /// How many calls have been sent.
    sent: usize,
    ended: usize,
    /// Calls of a closed loop whose time has come.
    next: VecDeque<usize>,
    peak_outstanding: Vec<usize>,
    heard: Vec<model::Event>,
    reports: Reports,
    unreported: HashMap<usize, Unreported>,
    rng: Rng,
}

impl<'a> Engine<'a> {
    pub(super) fn new(setup: &'a Setup, balancer: &'a mut dyn LoadBalancer) -> Self {
        let mut engine = Self {
            fleet: Fleet::new(&setup.servers, &setup.devices, &setup.present, setup.seed),
            setup,
            balancer,
            now: Time::ZERO,
            agenda: BinaryHeap::new(),
            substantial: 0,
            wakes: vec![None; setup.servers.len()],
            states: vec![State::Ahead; setup.calls.len()],
            endings: setup
                .calls
                .iter()
                .map(|call| Ending::sent_at(call.arrival))
                .collect(),
            sent: 0,
            ended: 0,
            next: VecDeque::new(),
            peak_outstanding: vec![0; setup.servers.len()],
            heard: Vec::new(),
            reports: Reports::default(),
            unreported: HashMap::new(),
            rng: Rng::new(setup.seed ^ 0x7265_706f_7274),
        };
        for (number, incident) in setup.incidents.iter().enumerate() {
            engine.plan(incident.at, Due::Incident(number));
        }
        engine.plan(Time::ZERO + Worker::TICK, Due::Tick);
        let clients = setup.concurrency.map_or(0, NonZeroUsize::get);
        engine.next.extend(0..clients.min(setup.calls.len()));
        engine
    }

    pub(super) fn run(&mut self) -> Result<(), ControlError> {
        self.balancer.membership(self.now, &self.fleet);
        self.settle();
        while self.ended < self.setup.calls.len() || !self.unreported.is_empty() {
            let arrival = self.next_arrival();
            let due = self.agenda.peek().map(|Reverse(first)| *first);
            match (arrival, due) {
                (Some((at, call)), due) if due.is_none_or(|(when, _)| at < when) => {
                    self.now = at;
                    self.arrive(call);
                }
                (arrival, Some((when, what))) => {
                    // Nothing but ticks is to come: what has not ended never will.
                    if arrival.is_none() && self.substantial == 0 {
                        break;
                    }
                    self.agenda.pop();
                    self.now = when;
                    self.substantial -= usize::from(what != Due::Tick);
                    self.happen(what)?;
                }
                (_, None) => break,
            }
            self.settle();
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Run {
        let replicas = self.fleet.replicas.iter();
        let crashes = self.fleet.devices.crashes();
        Run {
            preemptions: replicas.map(|it| it.server.counters().preemptions).sum(),
            crashes: crashes.map(|(_, count)| count).sum(),
            endings: self.endings,
            before: self.setup.before,
            peak_outstanding: self.peak_outstanding,
            counters: self.balancer.counters(self.now),
        }
    }

    fn plan(&mut self, at: Time, what: Due) {
        self.substantial += usize::from(what != Due::Tick);
        self.agenda.push(Reverse((at, what)));
    }

    fn next_arrival(&self) -> Option<(Time, usize)> {
        if self.setup.concurrency.is_some() {
            return None;
        }
        let call = self.setup.calls.get(self.sent)?;
        Some((call.arrival, call.id))
    }

    fn happen(&mut self, what: Due) -> Result<(), ControlError> {
        match what {
            Due::Wake(server) => {
                if self.wakes.get(server) == Some(&Some(self.now)) {
                    self.listen_to(server, |server, now, heard| server.advance(now, heard));
                }
            }
            Due::Failure(call) => {
                if let Some(&State::Failing { server, since, how }) = self.states.get(call) {
                    self.end(call, Some((server, since)), &how);
                }
            }
            Due::Incident(number) => self.incident(number)?,
            Due::Abort(call) => self.give_up(call, CLIENT_GONE, None),
            Due::Timeout(call) => self.give_up(call, TIMED_OUT, Some(504)),
            Due::Report(call) => self.report(call),
            Due::Heard(call) => {
                if let Some(&State::At { server, since }) = self.states.get(call) {
                    self.submit(call, server, since);
                }
            }
            Due::Tick => {
                self.balancer.tick(self.now, &self.fleet);
                self.plan(self.now + Worker::TICK, Due::Tick);
            }
        }
        Ok(())
    }

    fn incident(&mut self, number: usize) -> Result<(), ControlError> {
        let Some(incident) = self.setup.incidents.get(number) else {
            return Ok(());
        };
        match &incident.what {
            Happening::Control { server, control } => {
                let mut done = Ok(());
                self.listen_to(*server, |server, now, heard| {
                    done = server.control(now, control, heard);
                });
                done?;
            }
            Happening::Join(server) => self.set_present(*server, true),
            Happening::Leave(server) => self.set_present(*server, false),
            Happening::Reports(reports) => self.reports = *reports,
            Happening::RestartWorker { gateway, worker } => {
                self.balancer.restart_worker(*gateway, *worker, self.now);
            }
        }
        Ok(())
    }

    fn set_present(&mut self, server: usize, present: bool) {
        if let Some(replica) = self.fleet.replicas.get_mut(server) {
            replica.present = present;
        }
        self.balancer.membership(self.now, &self.fleet);
    }

    /// Does all that became possible at this time.
    fn settle(&mut self) {
        loop {
            if let Some(refused) = self.balancer.refuse(self.now) {
                self.reject(refused.call, refused.status);
            } else if let Some((call, server)) = self.balancer.dequeue(self.now, &self.fleet) {
                self.send(call, server);
            } else if let Some(call) = self.next.pop_front() {
                self.arrive(call);
            } else {
                return;
            }
        }
    }

    fn arrive(&mut self, id: usize) {
        self.sent += 1;
        let Some(call) = self.setup.calls.get(id) else {
            return;
        };
        if let Some(ending) = self.endings.get_mut(id) {
            ending.sent = self.now;
        }
        if let Some(patience) = call.patience {
            self.plan(self.now + patience, Due::Abort(id));
        }
        if let Some(timeout) = self.setup.timeout {
            self.plan(self.now + timeout, Due::Timeout(id));
        }
        match self.balancer.pick(call, self.now, &self.fleet) {
            Pick::Server(server) => self.send(id, server),
            Pick::Hold => self.set_state(id, State::Held),
            Pick::Unavailable => {
                let flags = NO_HEALTHY_UPSTREAM;
                let status = Some(503);
                self.end(
                    id,
                    None,
                    &bare(End {
                        status,
                        flags,
                        ..End::default()
                    }),
                );
            }
            Pick::Refused(status) => self.reject(id, status),
        }
    }

    /// The gateway answers a call itself.
    fn reject(&mut self, id: usize, status: u16) {
        let status = Some(status);
        let end = End {
            status,
            ..End::default()
        };
        self.end(id, None, &bare(end));
    }

    fn send(&mut self, id: usize, server: usize) {
        let since = self.now;
        self.set_state(id, State::At { server, since });
        if let Some(ending) = self.endings.get_mut(id) {
            ending.server = Some(server);
        }
        if let Some(replica) = self.fleet.replicas.get_mut(server) {
            replica.outstanding += 1;
            if let Some(peak) = self.peak_outstanding.get_mut(server) {
                *peak = (*peak).max(replica.outstanding);
            }
        }
        self.submit(id, server, since);
    }

    /// Lets a server take a call or refuse it.
    fn submit(&mut self, id: usize, server: usize, since: Time) {
        let Some(call) = self.setup.calls.get(id) else {
            return;
        };
        let condition = (self.fleet.replicas.get(server)).map(|it| it.server.condition(self.now));
        if let Some(hanging) = condition.filter(Condition::hangs) {
            let rest = Duration::from_secs_f64(hanging.loading_seconds);
            return self.plan(self.now + rest, Due::Heard(id));
        }
        let mut refusal = None;
        self.listen_to(server, |server, now, heard| {
            refusal = server.arrive(now, call.job(), heard).err();
        });
        if let Some(refusal) = refusal {
            let how = refused(&refusal);
            self.fail(id, server, since, how);
        }
    }

    /// Lets a server do something, and deals with what it says; if that leaves its device without memory, lets the device's servers crash.
    fn listen_to(
        &mut self,
        server: usize,
        act: impl FnOnce(&mut model::Server, Time, &mut Vec<model::Event>),
    ) {
        let crashing = self.tell(server, act);
        for server in crashing {
            if let Some(reload) = self.fleet.devices.crash(server) {
                self.tell(server, |server, now, heard| {
                    server.run_out_of_memory(now, reload, heard);
                });
            }
        }
    }

    /// Lets a server do something, and deals with what it says; returns those that have to crash for it.
    fn tell(
        &mut self,
        server: usize,
        act: impl FnOnce(&mut model::Server, Time, &mut Vec<model::Event>),
    ) -> Vec<usize> {
        let mut crashing = Vec::new();
        let mut heard = std::mem::take(&mut self.heard);
        if let Some(replica) = self.fleet.replicas.get_mut(server) {
            act(&mut replica.server, self.now, &mut heard);
            let next = replica.server.next_event();
            let memory = replica.server.load().device_memory;
            // A lower bound may lie in the past: that is now.
            crashing = self.fleet.devices.take(server, memory);
            self.wake_at(server, next.map(|at| at.max(self.now)));
        }
        for event in heard.drain(..) {
            self.hear(&event, server);
        }
        self.heard = heard;
        crashing
    }

    fn wake_at(&mut self, server: usize, at: Option<Time>) {
        let Some(planned) = self.wakes.get_mut(server) else {
            return;
        };
        // A wake that was just obeyed may be due again at the same time.
        let obeyed = *planned == Some(self.now);
        if *planned != at || obeyed {
            *planned = at;
            if let Some(at) = at {
                self.plan(at, Due::Wake(server));
            }
        }
    }

    fn hear(&mut self, event: &model::Event, server: usize) {
        let JobId(id) = event.job;
        let id = id as usize;
        match event.kind {
            EventKind::FirstToken => {
                if let Some(ending) = self.endings.get_mut(id) {
                    ending.first_byte = Some(event.at);
                }
            }
            EventKind::Tokens(_) | EventKind::Preempted => {}
            EventKind::Done => {
                if let Some(&State::At { since, .. }) = self.states.get(id) {
                    let first_byte = self.endings.get(id).and_then(|it| it.first_byte);
                    let call = self.setup.calls.get(id);
                    let finished = Finished {
                        response_bytes: call.map_or(0, Call::response_bytes),
                        first_byte_at: first_byte.map(|at| Timestamp::from_nanos(at.as_nanos())),
                        is_stream: first_byte.is_some_and(|at| at < event.at),
                        ..answered(200)
                    };
                    self.end(id, Some((server, since)), &finished);
                }
            }
            EventKind::Lost(_) => {
                if let Some(&State::At { since, .. }) = self.states.get(id) {
                    self.fail(id, server, since, reset());
                }
            }
        }
    }

    fn fail(&mut self, id: usize, server: usize, since: Time, how: Finished) {
        self.set_state(id, State::Failing { server, since, how });
        self.plan(self.now + FAILURE_TIME, Due::Failure(id));
    }

    /// The client or the gateway waits no longer.
    fn give_up(&mut self, id: usize, flags: u64, status: Option<u16>) {
        let end = End {
            status,
            flags,
            attempts: 1,
            request_complete: true,
            ..End::default()
        };
        match self.states.get(id) {
            Some(State::Held) => {
                if let Some(call) = self.setup.calls.get(id) {
                    self.balancer.abandon(call);
                }
                let attempts = 0;
                self.end(id, None, &bare(End { attempts, ..end }));
            }
            Some(&State::At { server, since }) => {
                // Ended first, so that what the server says at this moment is not taken as an answer.
                self.end(id, Some((server, since)), &bare(end));
                let job = JobId(id as u64);
                self.listen_to(server, |server, now, heard| {
                    server.cancel(now, job, heard);
                });
            }
            Some(State::Ahead | State::Failing { .. } | State::Ended) | None => {}
        }
    }

    fn end(&mut self, id: usize, place: Option<(usize, Time)>, finished: &Finished) {
        self.set_state(id, State::Ended);
        self.ended += 1;
        if let Some(ending) = self.endings.get_mut(id) {
            ending.end = Some(self.now);
            ending.outcome = finished.end.outcome();
        }
        if self.setup.concurrency.is_some() {
            let next = self.sent + self.next.len();
            self.next
                .extend((next < self.setup.calls.len()).then_some(next));
        }
        let Some((server, since)) = place else {
            return;
        };
        if let Some(replica) = self.fleet.replicas.get_mut(server) {
            replica.outstanding -= 1;
        }
        let Reports { lost, delay } = self.reports;
        if lost > 0.0 && self.rng.unit() < lost {
            return;
        }
        let unreported = Unreported {
            server,
            since,
            finished: *finished,
        };
        self.unreported.insert(id, unreported);
        if delay.is_zero() {
            self.report(id);
        } else {
            self.plan(self.now + delay, Due::Report(id));
        }
    }

    /// Lets the gateway hear of an end.
    fn report(&mut self, id: usize) {
        let (Some(unreported), Some(call)) =
            (self.unreported.remove(&id), self.setup.calls.get(id))
        else {
            return;
        };
        let Unreported {
            server,
            since,
            finished,
        } = unreported;
        let latency = self.now.since(since);
        let ended = Ended {
            call,
            server,
            latency,
            finished: &finished,
        };
        self.balancer.ended(&ended, self.now, &self.fleet);
    }

    fn set_state(&mut self, id: usize, state: State) {
        if let Some(place) = self.states.get_mut(id) {
            *place = state;
        }
    }
}
