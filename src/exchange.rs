//! One request's way: picked, routed, observed, released.
//!
//! An exchange ends exactly once, at whichever end the proxy reports first.
//! Until then it holds its reservation; one that is dropped without an end (a
//! stream that the proxy forgets) must still be given to [`Exchange::end`].

mod answer;
mod ending;
mod endpoints;
mod facts;
mod held;
mod observed;
mod phase;
mod served;
#[cfg(test)]
mod tests;
mod told;
mod upload;

use crate::decision::{Decision, Demand, Finished, PassThrough, Route};
use crate::host::Host;
use crate::metrics::Group;
use crate::outcome::End;
use crate::policy;
use crate::pool::{PoolIndex, Upstream};
use crate::rejection::Reason;
use crate::request::{Arriving, Body, NeedsBody, Progress, Unknown};
use crate::status;
use crate::time::Timestamp;
use crate::worker::Worker;
use answer::Answer;
use ending::{back_off, reports_queue};
use facts::{Facts, body_to_wait_for};
pub use held::Start;
use phase::{Held, Location, Phase, Sent};
use told::{Entry, Told};
use upload::Upload;

/// The response header that tells the decision.
pub const DECISION_HEADER: &str = "x-paceline-decision";

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    context: u32,
    phase: Phase,
    upload: Upload,
    answer: Answer,
    told: Told,
    /// For how long the request waited for room.
    waited_millis: u64,
    trial: Option<Trial>,
}

/// A request of a pool that balances a part of its requests, or none.
#[derive(Clone, Copy, Debug)]
struct Trial {
    pool: PoolIndex,
    group: Group,
    since: Timestamp,
}

/// Whether the proxy is to go on with what it has just shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    #[default]
    Continue,
    /// It keeps the request until more of it has come, or until it is told.
    Pause,
}

impl Exchange {
    /// An exchange of the stream with this context.
    #[must_use]
    pub fn new(context: u32) -> Self {
        Exchange {
            context,
            phase: Phase::New,
            upload: Upload::default(),
            answer: Answer::default(),
            told: Told::default(),
            waited_millis: 0,
            trial: None,
        }
    }

    /// The request's headers have come: picks an upstream and names it in the
    /// routing header, or leaves the request to the proxy's own route, or waits
    /// for the body that decides. Whichever it is, the client's own copy of the
    /// header is gone.
    pub fn on_request_headers(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        end: bool,
    ) -> Flow {
        self.upload.is_complete = end;
        match self.phase {
            Phase::New => {}
            _ => return self.flow(),
        }
        if worker.config.status.is_some() && status::answer(worker, host) {
            self.phase = Phase::Answered;
            return self.flow();
        }
        let body = match end {
            true => Body::Unread(Unknown::Missing),
            false => Body::ToCome,
        };
        let Err(NeedsBody) = self.settle(worker, host, &body) else {
            return self.flow();
        };
        let now = worker.now(host);
        let reason = match body_to_wait_for(worker, host) {
            Err(reason) => reason,
            Ok(()) if !worker.waiting.may_begin(now) => Unknown::NotShown,
            Ok(()) => {
                // It cannot be followed while nobody looks.
                let _ = host.remove_request_header(&worker.config.route_header);
                self.phase = Phase::AwaitsBody(Arriving::default());
                worker.park(self.context, host);
                return Flow::Pause;
            }
        };
        self.go_on(worker, host, &Body::Unread(reason));
        self.flow()
    }

    /// Whether the proxy is to go on with the request as it is now.
    fn flow(&self) -> Flow {
        match self.phase {
            Phase::AwaitsBody(_) | Phase::Held(_) | Phase::Answered => Flow::Pause,
            Phase::New | Phase::Sent(_) | Phase::Left => Flow::Continue,
        }
    }

    /// A piece of the request's body has come, of so many bytes.
    pub fn on_request_body(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        bytes: usize,
        end: bool,
    ) -> Flow {
        self.upload.is_complete |= end;
        let Phase::AwaitsBody(arriving) = &mut self.phase else {
            if self.flow() == Flow::Pause {
                return Flow::Pause;
            }
            worker.waiting.goes_on(self.context);
            self.uploaded(worker, host, bytes, end);
            self.look_for_server(worker, host);
            return Flow::Continue;
        };
        worker.waiting.body_shown();
        let body = match receive(arriving, self.context, worker, host, bytes) {
            Err(reason) => Body::Unread(reason),
            Ok(progress) if end || progress == Progress::Whole => Body::of(arriving.take()),
            Ok(Progress::Malformed) => Body::Unread(Unknown::Malformed),
            Ok(_) if worker.is_overdue(self.context, host) => Body::Unread(Unknown::Late),
            Ok(_) => return Flow::Pause,
        };
        self.go_on(worker, host, &body);
        self.flow()
    }

    /// The request's trailers have come, after all of its body.
    pub fn on_request_trailers(&mut self, worker: &mut Worker, host: &mut impl Host) -> Flow {
        self.upload.is_complete = true;
        if let Phase::AwaitsBody(arriving) = &mut self.phase {
            let body = Body::of(arriving.take());
            self.go_on(worker, host, &body);
        } else if self.flow() == Flow::Continue {
            worker.waiting.goes_on(self.context);
            self.uploaded(worker, host, 0, true);
        }
        self.flow()
    }

    /// The request has waited enough, for the reason given: it goes on without
    /// its body, or with the part that has come. `host` must be at its stream.
    pub fn give_up(&mut self, worker: &mut Worker, host: &mut impl Host, reason: Unknown) {
        if let Phase::AwaitsBody(_) = self.phase {
            self.go_on(worker, host, &Body::Unread(reason));
            if self.flow() == Flow::Continue {
                worker.waiting.resume(self.context, host);
            }
        }
    }

    /// Ends the wait with what is known of the body now.
    fn go_on(&mut self, worker: &mut Worker, host: &mut impl Host, body: &Body) {
        self.phase = Phase::New;
        worker.waiting.leave(self.context);
        // A body that is not to come is not waited for.
        let _ = self.settle(worker, host, body);
    }

    /// Decides, unless that needs the body.
    fn settle(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        body: &Body,
    ) -> Result<(), NeedsBody> {
        let facts = Facts::read(worker, host, body)?;
        if let Some(reason) = facts.model_unknown {
            worker.metrics.model_unknown(host, reason);
        }
        if facts.admission.invalid > 0 {
            let pool = facts.pool.unwrap_or_default();
            worker
                .metrics
                .admission_invalid(host, pool, facts.admission.invalid);
        }
        let demand = match facts.demand(worker, host) {
            Ok(demand) => demand,
            Err(reason) => {
                let pool = facts.pool.ok();
                self.pass_through(worker, host, (pool, reason), &facts.description);
                return Ok(());
            }
        };
        let pool = Some(demand.pool);
        let now = worker.now(host);
        if let Some(group) = worker.group(demand.pool) {
            self.trial = Some(Trial {
                pool: demand.pool,
                group,
                since: now,
            });
            if group == Group::Observed {
                self.observe(worker, host, &demand, &facts.description, now);
                return Ok(());
            }
        }
        let cluster = worker.balancer.cluster_of(demand.pool);
        if let Some(cluster) = &cluster
            && worker.explores(cluster, now)
        {
            match self.explore(worker, host, (demand.pool, cluster), now) {
                Ok(sent) => self.phase = Phase::Sent(sent),
                Err(reason) => self.pass_through(worker, host, (pool, reason), &facts.description),
            }
            return Ok(());
        }
        let class = facts.admission.class;
        let is_crowded =
            worker.balancer.limits(demand.pool) && worker.is_crowded(host, demand.pool, now);
        let reason = match is_crowded {
            true if worker.balancer.is_too_large(&demand) => {
                self.reject(worker, host, (demand.pool, class), Reason::TooLarge);
                return Ok(());
            }
            true => "others",
            false => match worker.balancer.decide(host, &demand, now) {
                Decision::Hold(_) => "room",
                decision => {
                    let note = &facts.description;
                    self.carry_out(worker, host, (&demand, class), decision, note);
                    return Ok(());
                }
            },
        };
        let held = Held {
            demand,
            admission: facts.admission,
            since: now,
            reason,
            description: facts.description,
        };
        self.hold(worker, host, held);
        Ok(())
    }

    /// Does with the request what was decided. `note` is for people.
    fn carry_out(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        (demand, class): (&Demand, usize),
        decision: Decision,
        note: &str,
    ) {
        let sent = match decision {
            Decision::Route(route) => self.route(worker, host, demand, route, note),
            Decision::PassThrough(reason) => Err(reason),
            // Who decides to hold has looked whether that can be done.
            Decision::Hold(_) => Err(PassThrough::NoRoom),
            Decision::Reject(reason) => {
                return self.reject(worker, host, (demand.pool, class), reason);
            }
        };
        match sent {
            Ok(sent) => self.phase = Phase::Sent(sent),
            Err(reason) => self.pass_through(worker, host, (Some(demand.pool), reason), note),
        }
    }

    /// Leaves the request to the proxy's own route.
    fn pass_through(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        (pool, reason): (Option<PoolIndex>, PassThrough),
        note: &str,
    ) {
        clear_headers(worker, host);
        worker.metrics.passed_through(host, reason);
        self.log(worker, host, "passed_through", reason.label());
        if worker.explains(false) {
            let text = format!("pass_through; reason={}{note}", reason.label());
            self.explain(worker, pool, false, text);
        }
        self.phase = Phase::Left;
    }

    /// Lets the access log tell a decision that picked no upstream.
    #[inline(never)]
    fn log(
        &mut self,
        worker: &Worker,
        host: &mut impl Host,
        decision: &'static str,
        reason: &'static str,
    ) {
        if !worker.config.access_log {
            return;
        }
        let entry = Entry {
            decision,
            upstream: None,
            score: 0.0,
            waited_millis: self.waited_millis,
            reason,
        };
        self.told.log(host, &entry);
    }

    /// Keeps what was decided for those who want to know: see [`Worker::explains`].
    #[inline(never)]
    fn explain(
        &mut self,
        worker: &mut Worker,
        pool: Option<PoolIndex>,
        is_routed: bool,
        text: String,
    ) {
        worker.keep_decision(pool, is_routed, &text);
        if worker.config.explain {
            self.told.header = Some(text);
        }
    }

    /// Names the picked upstream to the proxy.
    fn route(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        demand: &Demand,
        route: Route,
        note: &str,
    ) -> Result<Sent, PassThrough> {
        let now = route.reservation.picked_at;
        let named = endpoints::name(worker, host, &route);
        if worker.explains(true) {
            let (topology, explanation) = (worker.balancer.topology(), route.explanation);
            let mut text = explanation.describe(topology, route.member, demand.size);
            text.push_str(note);
            self.explain(worker, Some(demand.pool), true, text);
        }
        if named.is_err() {
            let unsent = Finished::default();
            worker.release(host, route.reservation, &unsent, now);
            return Err(PassThrough::HostError);
        }
        worker.metrics.picked(host, route.reservation.member);
        let topology = worker.balancer.topology();
        if worker.config.access_log {
            let picked = topology.upstream_of(route.member);
            let entry = Entry {
                decision: "balanced",
                upstream: picked.map(Upstream::name),
                score: route.explanation.score,
                waited_millis: self.waited_millis,
                reason: route.explanation.reason.label(),
            };
            self.told.log(host, &entry);
        }
        if route.explanation.reason == policy::Reason::Panic {
            worker.metrics.panicked(host, demand.pool);
        }
        let pool = topology.pool(demand.pool);
        let is_to_endpoints = pool.is_some_and(|pool| pool.cluster.is_some());
        let sent = Sent::new(demand.pool, is_to_endpoints, now);
        Ok(Sent {
            reservation: Some(route.reservation),
            size: demand.size,
            ..sent
        })
    }

    /// The response's headers have come.
    pub fn on_response_headers(&mut self, worker: &mut Worker, host: &mut impl Host, end: bool) {
        self.answer.begin(end);
        self.upload.is_answered = true;
        if let Phase::Sent(sent) = &mut self.phase {
            match sent.observed {
                None => sent.locate(worker, host, &mut self.told),
                Some(_) => sent.meet_server(worker, host, &mut self.told),
            }
            if let Some(reservation) = &sent.reservation {
                self.answer.look_for_stream(host, reservation.signal);
            }
        }
        if let Some(explanation) = &self.told.header {
            let _ = host.set_response_header(DECISION_HEADER, explanation);
        }
        self.told.show_log(host);
    }

    /// A piece of the response's body has come.
    ///
    /// The first byte is one of the body: model servers send the headers of a
    /// stream at once, and its first token when they have made it.
    pub fn on_response_body(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        bytes: usize,
        end: bool,
    ) {
        let is_first = self.answer.receive(bytes, end);
        if is_first && let Phase::Sent(_) = self.phase {
            self.answer.first_byte_at = Some(worker.now(host));
        }
    }

    /// The response's trailers have come.
    pub fn on_response_trailers(&mut self) {
        self.answer.end_with_trailers();
    }

    /// The request is over, one way or another. The first call counts.
    pub fn end(&mut self, worker: &mut Worker, host: &mut impl Host) {
        let mut end = None;
        match std::mem::replace(&mut self.phase, Phase::Left) {
            Phase::New | Phase::Left | Phase::Answered => {}
            Phase::AwaitsBody(_) => worker.waiting.leave(self.context),
            Phase::Held(held) => {
                self.phase = Phase::Held(held);
                self.leave_queue(worker, host);
                self.phase = Phase::Left;
            }
            Phase::Sent(mut sent) => {
                let is_anothers = match sent.observed {
                    Some(_) => {
                        sent.part_from_server(worker, host);
                        false
                    }
                    None => {
                        sent.reservation.is_some() && sent.is_anothers(worker, host, &mut self.told)
                    }
                };
                if !is_anothers {
                    end = self.finish(worker, host, sent);
                }
            }
        }
        if let Some(trial) = self.trial.take() {
            let end = end.unwrap_or_else(|| self.read_end(&worker.config, host, Location::Open));
            let since = self.upload.sent_at.unwrap_or(trial.since);
            let millis = worker.now(host).since(since).as_millis() as u64;
            worker
                .metrics
                .tried(host, (trial.pool, trial.group), &end, millis);
        }
    }

    /// Gives the reservation back, with all that the end shows.
    fn finish(&self, worker: &mut Worker, host: &mut impl Host, mut sent: Sent) -> Option<End> {
        let reservation = sent.reservation.take()?;
        let end = self.read_end(&worker.config, host, sent.location);
        let endpoint = match sent.is_to_endpoints {
            true => worker.endpoint_of(&reservation),
            false => None,
        };
        let member = reservation.member;
        let begun_at = self.upload.sent_at.unwrap_or(reservation.picked_at);
        let retry_after = back_off(host, &end);
        let now = worker.now(host);
        let first_byte_at = self.answer.first_byte_by(now);
        let finished = Finished {
            end,
            sent_at: self.upload.sent_at,
            response_bytes: self.answer.bytes,
            chunks: self.answer.chunks,
            first_byte_at,
            is_stream: self.answer.is_stream,
            retry_after,
            has_queue: worker.balancer.learns_limit(member) && reports_queue(host),
        };
        worker.finish(host, reservation, &finished, now);
        if let Some(endpoint) = endpoint {
            sent.tell_discovery(worker, host, &endpoint, end.outcome(), now);
        }
        // Of a retried request another upstream has used the time.
        if end.attempts == 1 && sent.location != Location::Moved {
            // A response without a body is over with its headers.
            let at_end = end.response_complete.then_some(now);
            if let Some(at) = first_byte_at.or(at_end) {
                let millis = at.since(begun_at).as_millis() as u64;
                worker.metrics.first_byte(host, member, millis);
            }
            let millis = now.since(begun_at).as_millis() as u64;
            worker.metrics.latency(host, member, millis);
        }
        Some(end)
    }
}

/// Leaves the request to the proxy's own route, whatever its client wrote.
#[inline(never)]
fn clear_headers(worker: &Worker, host: &mut impl Host) {
    // What cannot be removed cannot be helped.
    let _ = host.remove_request_header(&worker.config.route_header);
    if worker.balances_endpoints {
        let _ = host.remove_request_header(&worker.config.endpoint_header);
    }
}

/// Takes a copy of a part of the body, which the proxy shows once.
fn receive(
    arriving: &mut Arriving,
    context: u32,
    worker: &mut Worker,
    host: &mut impl Host,
    bytes: usize,
) -> Result<Progress, Unknown> {
    let size = arriving.len().saturating_add(bytes);
    if size > worker.config.request_body.max_bytes as usize {
        return Err(Unknown::TooLarge);
    }
    if !worker.waiting.keeps(context, size) {
        return Err(Unknown::NoRoom);
    }
    let part = match bytes {
        0 => Vec::new(),
        _ => host.request_body(bytes).unwrap_or(None).unwrap_or_default(),
    };
    if part.len() != bytes {
        return Err(Unknown::HostError);
    }
    Ok(arriving.add(part))
}
