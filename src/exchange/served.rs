//! Who serves the request: what was picked is the proxy's first choice and no
//! promise, so where the request is counted follows who answers.
//!
//! An answer from the picked upstream's own address costs one look at a property.
//! All else is rare, and asks on: whether the answer is an upstream's, whether
//! that of the pick's route, after how many tries, and whose.

use super::ending::{number, text};
use super::phase::{Location, Sent};
use super::told::Told;
use crate::decision::Finished;
use crate::host::{Host, attributes};
use crate::outcome::End;
use crate::pool::MemberIndex;
use crate::serving::{Owner, Route};
use crate::state::{Job, Work};
use crate::time::Timestamp;
use crate::worker::Worker;

/// Details of an answer that an upstream began and did not finish start so.
const CUT_OFF: &[u8] = b"upstream_reset_after_response_started";

impl Sent {
    /// The answer has begun: counts the request at the upstream that gives it.
    /// People are `told` about it.
    pub(super) fn locate(&mut self, worker: &mut Worker, host: &mut impl Host, told: &mut Told) {
        if self.location != Location::Open {
            return;
        }
        let Some(address) = text(host, attributes::UPSTREAM_ADDRESS) else {
            return;
        };
        let picked = self.reservation.as_ref();
        let is_picked = picked.is_some_and(|picked| match self.is_to_endpoints {
            true => worker
                .endpoint_of(picked)
                .is_some_and(|(_, picked)| picked == address),
            false => {
                let owners = &mut worker.serving.owners;
                owners.confirm(&address, picked.upstream.identity())
            }
        });
        if is_picked {
            self.location = Location::Found;
            return;
        }
        // An answer of the proxy itself tells who was tried last, not who serves.
        if !is_via_upstream(host) {
            return;
        }
        self.location = Location::Found;
        let pool = self.pool;
        let route = self.serving_route(worker, host);
        if let Route::Other = route {
            return self.leave(worker, host, told);
        }
        let attempts = number(host, attributes::UPSTREAM_ATTEMPTS).unwrap_or(1);
        let now = worker.now(host);
        if self.is_to_endpoints {
            told.note_server(&address);
            let work = self.give_up_pick(worker, host, attempts, now);
            worker.found(host, pool, &address, now);
            // None where it is not one of the pool's.
            if let Some(endpoint) = worker.balancer.topology().endpoint(pool, &address) {
                self.count_at(worker, host, endpoint, work, now);
            }
            return;
        }
        let Some(picked) = self.reservation.as_ref().map(|it| it.upstream.identity()) else {
            return;
        };
        if route == Route::Unclear && worker.serving.owners.is_claimed_by_others(&address, picked) {
            // What serves the picks of several is none of them.
            return self.leave(worker, host, told);
        }
        let Some(serving) = owner(worker, host, &address, picked, attempts) else {
            return;
        };
        let topology = worker.balancer.topology();
        let member = topology.member_at(pool, serving);
        let name = member.and_then(|it| topology.upstream_of(it));
        let name = name.map_or(address, |it| it.cluster.clone());
        told.note_server(&name);
        let work = self.give_up_pick(worker, host, attempts, now);
        // None where it is another pool's.
        if let Some(member) = member {
            self.count_at(worker, host, member, work, now);
        }
    }

    /// The request is over and it is not known who answered it, if anybody did.
    /// Whether another route had it; then it is given back.
    pub(super) fn is_anothers(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        told: &mut Told,
    ) -> bool {
        let is_open = self.location == Location::Open;
        if is_open && self.serving_route(worker, host) == Route::Other {
            self.leave(worker, host, told);
            return true;
        }
        false
    }

    /// Which route the cluster that serves the request speaks for.
    #[inline(never)]
    pub(super) fn serving_route(&self, worker: &mut Worker, host: &mut impl Host) -> Route {
        let Ok(Some(serving)) = host.property(attributes::CLUSTER_NAME) else {
            // It went to none.
            return Route::Picked;
        };
        let topology = worker.balancer.topology();
        let picked = match &self.reservation {
            Some(reservation) => topology
                .find_upstream(reservation.upstream)
                .and_then(|index| topology.upstream(index))
                .map(|upstream| upstream.cluster.as_str()),
            None => topology
                .pool(self.pool)
                .and_then(|pool| pool.cluster.as_deref()),
        };
        let Some(picked) = picked else {
            return Route::Unclear;
        };
        let serving = String::from_utf8_lossy(&serving);
        let serves = &mut worker.serving;
        serves.route(self.pool, picked, &serving, self.is_to_endpoints)
    }

    /// Another route has the request: it is counted nowhere any more, and says
    /// nothing about the pick.
    #[inline(never)]
    fn leave(&mut self, worker: &mut Worker, host: &mut impl Host, told: &mut Told) {
        if let Some(reservation) = self.reservation.take() {
            let finished = Finished {
                end: End::elsewhere(),
                ..Finished::default()
            };
            let now = worker.now(host);
            worker.finish(host, reservation, &finished, now);
        }
        told.note("; not_routed");
    }

    /// The picked upstream, if there is one, does not serve the request: it failed,
    /// or the proxy passed it over, at the first try. Gives the work that was
    /// reserved there.
    #[inline(never)]
    pub(super) fn give_up_pick(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        attempts: u64,
        now: Timestamp,
    ) -> Work {
        if attempts > 1 {
            // The time that was lost on others is no sample.
            self.location = Location::Moved;
        }
        let Some(reservation) = self.reservation.take() else {
            return Work::MEAN;
        };
        let work = reservation.work();
        let endpoint = worker.endpoint_of(&reservation);
        let end = match attempts {
            0 | 1 => End::unavailable(),
            _ => End {
                attempts,
                ..End::default()
            },
        };
        let finished = Finished {
            end,
            ..Finished::default()
        };
        worker.finish(host, reservation, &finished, now);
        if let Some((cluster, picked)) = endpoint {
            // At the first try the proxy passes over those that it does not know.
            match attempts {
                0 | 1 => worker.absent(host, &cluster, &picked),
                _ => worker.failed(host, &cluster, &picked),
            }
        }
        work
    }

    /// The request is counted at the member that serves it.
    #[inline(never)]
    pub(super) fn count_at(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        member: MemberIndex,
        work: Work,
        now: Timestamp,
    ) {
        let job = Job {
            work,
            picked_at: self.picked_at,
        };
        let adopted = worker.balancer.adopt(host, member, (job, self.size), now);
        match adopted {
            Ok(Some(reservation)) => {
                if self.observed.is_none() {
                    worker.adopted(host, &reservation);
                }
                self.reservation = Some(reservation);
            }
            Ok(None) => {}
            Err(error) => worker.metrics.state_failed(host, error),
        }
    }
}

/// Which upstream answers from this address in place of the picked one; `None`
/// where that answers itself, or it cannot be known.
fn owner(
    worker: &mut Worker,
    host: &mut impl Host,
    address: &str,
    picked: u64,
    attempts: u64,
) -> Option<u64> {
    let declared = declared_upstream(worker, host);
    let owners = &mut worker.serving.owners;
    let owner = match declared {
        Some(upstream) => {
            owners.declare(address, upstream);
            Owner::Other(upstream)
        }
        None => owners.attribute(address, picked, attempts <= 1),
    };
    match owner {
        Owner::Other(upstream) if upstream != picked => Some(upstream),
        _ => None,
    }
}

/// The upstream that the metadata of the serving endpoint name, if they do.
pub(super) fn declared_upstream(worker: &Worker, host: &mut impl Host) -> Option<u64> {
    let name = text(host, attributes::ENDPOINT_UPSTREAM)?;
    worker.balancer.topology().identity_of_cluster(&name)
}

/// Whether the answer is an upstream's, and not the proxy's own.
#[inline(never)]
pub(super) fn is_via_upstream(host: &mut impl Host) -> bool {
    let details = host.property(attributes::RESPONSE_CODE_DETAILS);
    matches!(details, Ok(Some(details)) if details == b"via_upstream")
}

/// Whether an upstream has answered, be it in part.
pub(super) fn is_upstreams_answer(host: &mut impl Host) -> bool {
    let details = host
        .property(attributes::RESPONSE_CODE_DETAILS)
        .unwrap_or(None);
    details.is_some_and(|it| it == b"via_upstream" || it.starts_with(CUT_OFF))
}
