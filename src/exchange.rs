//! One request's way: picked, routed, observed, released.
//!
//! An exchange ends exactly once, at whichever end the proxy reports first.
//! Until then it holds its reservation; one that is dropped without an end (a
//! stream that the proxy forgets) must still be given to [`Exchange::end`].

mod ending;
mod endpoints;
mod facts;

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::config::LatencySignal;
use crate::decision::{Finished, PassThrough, Reservation};
use crate::host::Host;
use crate::outcome::End;
use crate::request::{Body, Length, NeedsBody, Unknown};
use crate::time::Timestamp;
use crate::worker::Worker;
use ending::{number, retry_after};
use facts::{Facts, body_to_wait_for, max_bytes, read_body, read_early};

/// The response header that tells the decision.
pub const DECISION_HEADER: &str = "x-paceline-decision";

/// The status with which the proxy refuses what its buffer does not hold.
const PAYLOAD_TOO_LARGE: u64 = 413;

/// One request and its response.
#[derive(Debug, Default)]
pub struct Exchange {
    context: u32,
    itself: Weak<RefCell<Exchange>>,
    /// The request is paused until its body has come.
    waits: bool,
    /// Whether the body says how large it is.
    length: Length,
    reservation: Option<Reservation>,
    explanation: Option<String>,
    first_byte_at: Option<Timestamp>,
    response_bytes: u64,
    chunks: u32,
    is_stream: bool,
    request_complete: bool,
    response_complete: bool,
    /// The response ended with trailers or with its headers, as a gRPC status
    /// does.
    may_have_grpc_status: bool,
    /// Where the pool is one of endpoints.
    way: Option<endpoints::Way>,
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
    pub fn new(context: u32) -> Rc<RefCell<Self>> {
        Rc::new_cyclic(|itself| {
            RefCell::new(Exchange {
                context,
                itself: Weak::clone(itself),
                ..Exchange::default()
            })
        })
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
        self.request_complete = end;
        if self.waits {
            return Flow::Pause;
        }
        if self.reservation.is_some() || self.way.is_some() {
            return Flow::Continue;
        }
        let body = match end {
            true => Body::Unread(Unknown::Missing),
            false => Body::ToCome,
        };
        let Err(NeedsBody) = self.settle(worker, host, &body) else {
            return Flow::Continue;
        };
        let now = worker.now(host);
        let reason = match body_to_wait_for(worker, host) {
            Err(reason) => reason,
            Ok(_) if !worker.waiting.may_begin(now) => Unknown::NotShown,
            Ok(length) => {
                self.length = length;
                // It cannot be followed while nobody looks.
                let _ = host.remove_request_header(&worker.config.route_header);
                self.waits = true;
                worker.park(self.context, Weak::clone(&self.itself), host);
                return Flow::Pause;
            }
        };
        self.go_on(worker, host, &Body::Unread(reason));
        Flow::Continue
    }

    /// A piece of the request's body has come; `bytes` of it are buffered.
    pub fn on_request_body(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        bytes: usize,
        end: bool,
    ) -> Flow {
        self.request_complete |= end;
        if !self.waits {
            worker.waiting.goes_on(self.context);
            return Flow::Continue;
        }
        let is_first = worker.waiting.body_shown(self.context);
        let is_undeclared = self.length == Length::Undeclared;
        let max_bytes = match self.length {
            Length::Declared => max_bytes(worker),
            Length::Undeclared => worker.config.request_body.max_bytes,
        };
        let body = if bytes > max_bytes as usize {
            Body::Unread(Unknown::TooLarge)
        } else if end {
            worker.waiting.held(bytes);
            read_body(host, bytes)
        } else if is_undeclared
            && is_first
            && let Some(body) = read_early(host, bytes)
        {
            body
        } else if is_undeclared && !worker.waiting.may_keep(bytes, host) {
            Body::Unread(Unknown::Undeclared)
        } else if worker.is_overdue(self.context, host) {
            Body::Unread(Unknown::Late)
        } else {
            return Flow::Pause;
        };
        self.go_on(worker, host, &body);
        Flow::Continue
    }

    /// The request's trailers have come, after all of its body.
    pub fn on_request_trailers(&mut self, worker: &mut Worker, host: &mut impl Host) {
        self.request_complete = true;
        if self.waits {
            let body = read_body(host, max_bytes(worker) as usize);
            self.go_on(worker, host, &body);
        } else {
            worker.waiting.goes_on(self.context);
        }
    }

    /// The request has waited enough, for the reason given: it goes on without
    /// its body, of which nothing has been shown.
    pub(crate) fn give_up(&mut self, worker: &mut Worker, host: &mut impl Host, reason: Unknown) {
        if self.waits {
            self.go_on(worker, host, &Body::Unread(reason));
            worker.waiting.resume(self.context, host);
        }
    }

    /// Ends the wait with what is known of the body now.
    fn go_on(&mut self, worker: &mut Worker, host: &mut impl Host, body: &Body) {
        self.waits = false;
        worker.waiting.leave(self.context);
        // A body that is not to come is not waited for.
        let _ = self.settle(worker, host, body);
    }

    /// Decides, unless it takes the body to.
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
        if let Err(reason) = self.route(worker, host, &facts) {
            // What cannot be removed cannot be helped.
            let _ = host.remove_request_header(&worker.config.route_header);
            if worker.balances_endpoints {
                let _ = host.remove_request_header(&worker.config.endpoint_header);
            }
            worker.metrics.passed_through(host, reason);
            if worker.config.explain {
                self.explanation = Some(format!(
                    "pass_through; reason={}{}",
                    reason.label(),
                    facts.description
                ));
            }
        }
        Ok(())
    }

    fn route(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        facts: &Facts,
    ) -> Result<(), PassThrough> {
        let demand = facts.demand(worker, host)?;
        let now = worker.now(host);
        let cluster = worker.balancer.cluster_of(demand.pool);
        if let Some(cluster) = &cluster
            && worker.explores(cluster, now)
        {
            return self.explore(worker, host, (demand.pool, cluster), now);
        }
        let route = worker.balancer.pick(host, &demand, now)?;
        let named = endpoints::name(worker, host, &route);
        let topology = worker.balancer.topology();
        if worker.config.explain {
            let explanation = route.explanation;
            let mut text = explanation.describe(topology, route.member, demand.size);
            text.push_str(&facts.description);
            self.explanation = Some(text);
        }
        let upstream = topology.find_upstream(route.reservation.upstream);
        if named.is_err() {
            let unsent = Finished::default();
            worker.release(host, route.reservation, &unsent, now);
            return Err(PassThrough::HostError);
        }
        self.reservation = Some(route.reservation);
        if cluster.is_some() {
            self.goes_to_endpoints(demand.pool, now);
        }
        worker.metrics.picked(host, route.member);
        worker.metrics.retried(host, route.retries);
        if let Some(upstream) = upstream {
            worker.metrics.in_flight(host, upstream, route.in_flight);
        }
        Ok(())
    }

    /// The response's headers have come.
    pub fn on_response_headers(&mut self, worker: &mut Worker, host: &mut impl Host, end: bool) {
        if end {
            self.response_complete = true;
            self.may_have_grpc_status = true;
        }
        self.locate(worker, host);
        if let Some(explanation) = &self.explanation {
            let _ = host.set_response_header(DECISION_HEADER, explanation);
        }
        if let Some(reservation) = &self.reservation
            && reservation.signal == LatencySignal::FirstByte
        {
            // What is sent as it is made does not know its length.
            let length = host.response_header("content-length");
            self.is_stream = !end && length == Ok(None);
        }
    }

    /// A piece of the response's body has come. Only the first costs a look at
    /// the clock.
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
        if bytes > 0 {
            self.response_bytes = self.response_bytes.saturating_add(bytes as u64);
            self.chunks = self.chunks.saturating_add(1);
            if self.first_byte_at.is_none() && self.reservation.is_some() {
                self.first_byte_at = Some(worker.now(host));
            }
        }
        self.response_complete |= end;
    }

    /// The response's trailers have come.
    pub fn on_response_trailers(&mut self) {
        self.response_complete = true;
        self.may_have_grpc_status = true;
    }

    /// The request is over, one way or another. The first call counts.
    pub fn end(&mut self, worker: &mut Worker, host: &mut impl Host) {
        if std::mem::take(&mut self.waits) {
            worker.waiting.leave(self.context);
            if number(host, &["response", "code"]) == Some(PAYLOAD_TOO_LARGE) {
                worker.waiting.refused();
            }
        }
        if self.reservation.is_some() {
            let end = self.read_end(host);
            self.end_as(worker, host, end);
        }
    }

    fn end_as(&mut self, worker: &mut Worker, host: &mut impl Host, end: End) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let endpoint = match self.way {
            Some(_) => worker.endpoint_of(&reservation),
            None => None,
        };
        let picked_at = reservation.picked_at;
        let asks_for_time = matches!(end.status, Some(429 | 503));
        let finished = Finished {
            end,
            response_bytes: self.response_bytes,
            chunks: self.chunks,
            first_byte_at: self.first_byte_at,
            is_stream: self.is_stream,
            retry_after: asks_for_time.then(|| retry_after(host)).flatten(),
        };
        let now = worker.now(host);
        let member = worker.release(host, reservation, &finished, now);
        self.tell_discovery(worker, host, endpoint, end.outcome(), now);
        let Some(member) = member else { return };
        let millis = |until: Timestamp| until.since(picked_at).as_millis() as u64;
        worker.metrics.ended(host, member, end.outcome());
        // Of a retried request another upstream has used the time.
        if end.attempts == 1 && !end.is_moved {
            // A response without a body is over with its headers.
            let at_end = self.response_complete.then_some(now);
            if let Some(at) = self.first_byte_at.or(at_end) {
                worker.metrics.first_byte(host, member, millis(at));
            }
            worker.metrics.latency(host, member, millis(now));
        }
    }
}
