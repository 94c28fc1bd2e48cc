//! The part of an exchange that a dry run adds: the request takes the proxy's own route,
//! and is counted at the upstream that the proxy sends it to, once that shows.
//!
//! The proxy tells the address of the server as soon as it has a connection for the
//! request. The filter looks when a part of the body has gone on, which for most requests
//! is right after their headers, then on ticks, and at last when the answer has begun.

use super::Exchange;
use super::ending::{attempts, text};
use super::phase::{Location, Observed, Phase, Sent};
use super::served::{declared_upstream, is_via_upstream};
use super::told::{Entry, Told};
use crate::decision::{Considered, Demand, Explanation};
use crate::host::{Host, attributes};
use crate::metrics::Agreement;
use crate::pool::MemberIndex;
use crate::serving::{Route, is_named};
use crate::time::Timestamp;
use crate::worker::Worker;

impl Exchange {
    /// Leaves the request to the proxy's own route, and takes down what would have been
    /// done with it.
    #[inline(never)]
    pub(super) fn observe(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        demand: &Demand,
        note: &str,
        now: Timestamp,
    ) {
        super::clear_headers(worker, host);
        let considered = consider(worker, host, demand, now);
        let topology = worker.balancer.topology();
        let picked = considered.as_ref().and_then(|considered| {
            let upstream = topology.upstream_of(considered.member)?;
            Some((upstream.name(), considered.explanation))
        });
        if worker.config.access_log {
            let entry = Entry {
                decision: "observed",
                upstream: picked.map(|(name, _)| name),
                score: picked.map_or(0.0, |(_, explanation)| explanation.score),
                waited_millis: 0,
                reason: picked.map_or("-", |(_, explanation)| explanation.reason.label()),
            };
            self.told.log(host, &entry);
        }
        if worker.explains(true) {
            let mut text = "observe; ".to_owned();
            if let Some(considered) = &considered {
                let member = considered.member;
                let explanation = Explanation {
                    // It comes with that of the server, so that they can be compared.
                    expected: None,
                    ..considered.explanation
                };
                text.push_str(&explanation.describe(topology, member, demand.size));
            }
            text.push_str(note);
            self.explain(worker, Some(demand.pool), true, text);
        }
        if let Some(considered) = &considered {
            worker.metrics.considered(host, considered.handle);
        }
        let pool = worker.balancer.topology().pool(demand.pool);
        let is_to_endpoints = pool.is_some_and(|pool| pool.cluster.is_some());
        let work = match &considered {
            Some(considered) => considered.work,
            None => worker.balancer.expected_work(demand),
        };
        self.phase = Phase::Sent(Sent {
            size: demand.size,
            observed: Some(Box::new(Observed {
                considered,
                work,
                address: None,
            })),
            ..Sent::new(demand.pool, is_to_endpoints, now)
        });
        worker.watch(self.context, host);
    }

    /// The proxy may have sent the request somewhere by now. Whether that is known.
    /// `host` must be at its stream.
    pub fn look_for_server(&mut self, worker: &mut Worker, host: &mut impl Host) -> bool {
        match &mut self.phase {
            Phase::Sent(sent) => sent.has_server() || sent.find_server(worker, host),
            _ => true,
        }
    }
}

/// What would have been done; `None` where nothing is known of the pool yet, or in doubt.
fn consider(
    worker: &mut Worker,
    host: &mut impl Host,
    demand: &Demand,
    now: Timestamp,
) -> Option<Considered> {
    let pool = worker.balancer.topology().pool(demand.pool)?;
    if pool.members.is_empty() {
        return None;
    }
    let considered = worker.balancer.consider(host, demand, now);
    if let Err(reason) = considered {
        worker.metrics.passed_through(host, reason);
    }
    considered.ok()
}

impl Sent {
    fn has_server(&self) -> bool {
        let observed = self.observed.as_ref();
        observed.is_none_or(|observed| observed.address.is_some())
    }

    /// Counts the request where the proxy has sent it, if that shows. Whether it does.
    #[inline(never)]
    fn find_server(&mut self, worker: &mut Worker, host: &mut impl Host) -> bool {
        let Some(observed) = &mut self.observed else {
            return true;
        };
        let Some(address) = text(host, attributes::UPSTREAM_ADDRESS) else {
            return false;
        };
        if observed.address.as_deref() == Some(&address) {
            return true;
        }
        let work = observed.work;
        let before = observed.address.replace(address.clone());
        let now = worker.now(host);
        if before.is_some() {
            // It was somewhere else, which failed.
            self.give_up_pick(worker, host, 2, now);
        }
        if let Some(member) = self.member_at(worker, host, &address, now) {
            self.count_at(worker, host, member, work, now);
        }
        true
    }

    /// The answer has begun: counts the request where it comes from, and compares that
    /// with the pick.
    pub(super) fn meet_server(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        told: &mut Told,
    ) {
        if self.location == Location::Open && is_via_upstream(host) {
            self.follow(worker, host);
            self.compare(worker, host, told);
        }
    }

    /// The request is over, and perhaps nobody has answered: then the server that was
    /// tried last has not.
    pub(super) fn part_from_server(&mut self, worker: &mut Worker, host: &mut impl Host) {
        if self.location == Location::Open {
            self.follow(worker, host);
            self.compare(worker, host, &mut Told::default());
        }
    }

    #[inline(never)]
    fn follow(&mut self, worker: &mut Worker, host: &mut impl Host) {
        self.find_server(worker, host);
        // The time that was lost on others is no sample.
        self.location = match attempts(&worker.config, host) {
            0 | 1 if self.location == Location::Open => Location::Found,
            _ => Location::Moved,
        };
    }

    /// Tells how the proxy's choice compares with the pick.
    #[inline(never)]
    fn compare(&mut self, worker: &mut Worker, host: &mut impl Host, told: &mut Told) {
        let Some(observed) = &self.observed else {
            return;
        };
        let upstream = self.reservation.as_ref().map(|it| it.upstream);
        let topology = worker.balancer.topology();
        let name = upstream
            .and_then(|it| topology.upstream(topology.find_upstream(it)?))
            .map(|it| it.name())
            .or(observed.address.as_deref());
        if let Some(name) = name {
            told.note_server(name);
        }
        let (agreement, delays) = match (upstream, &observed.address) {
            (Some(upstream), _) => {
                let Some(considered) = &observed.considered else {
                    return;
                };
                let (agrees, delays) = considered.compare(upstream.identity());
                let agreement = match agrees {
                    true => Agreement::Agreed,
                    false => Agreement::Differed,
                };
                (agreement, delays)
            }
            (None, Some(_)) => (Agreement::Unidentified, None),
            (None, None) => (Agreement::Unserved, None),
        };
        if let Some((at_pick, there)) = delays {
            told.note_delays(at_pick, there);
        }
        worker.metrics.compared(host, self.pool, agreement, delays);
    }

    /// Which member of the pool the server with this address is.
    fn member_at(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        address: &str,
        now: Timestamp,
    ) -> Option<MemberIndex> {
        let pool = self.pool;
        if self.is_to_endpoints {
            let known = worker.balancer.topology().endpoint(pool, address);
            if known.is_none() && self.serving_route(worker, host) == Route::Picked {
                worker.found(host, pool, address, now);
                return worker.balancer.topology().endpoint(pool, address);
            }
            return known;
        }
        let topology = worker.balancer.topology();
        if let Some(upstream) = declared_upstream(worker, host) {
            return topology.member_at(pool, upstream);
        }
        let cluster = text(host, attributes::CLUSTER_NAME);
        let mut members = topology.pool(pool)?.member_indexes();
        let named = cluster.and_then(|cluster| {
            members.find(|member| {
                let upstream = topology.upstream_of(*member);
                upstream.is_some_and(|upstream| is_named(&cluster, &upstream.cluster))
            })
        });
        named.or_else(|| topology.member_at(pool, worker.serving.owners.sole(address)?))
    }
}
