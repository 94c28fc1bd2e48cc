//! What would have been done with a request that the proxy sends where it likes.

use std::rc::Rc;

use super::route::{Demand, Route};
use super::{Balancer, Explanation, PassThrough};
use crate::host::SharedData;
use crate::policy::Known;
use crate::pool::{MemberHandle, MemberIndex, PoolIndex, Topology};
use crate::state::Work;
use crate::time::Timestamp;

/// A pick that nothing came of: it is counted nowhere.
#[derive(Debug)]
pub struct Considered {
    /// The member that would have been picked.
    pub member: MemberIndex,
    /// The same, to be found in later topologies.
    pub handle: MemberHandle,
    /// Why that one, for people.
    pub explanation: Explanation,
    /// The work that was expected of the request.
    pub work: Work,
    pool: PoolIndex,
    topology: Rc<Topology>,
    /// Seconds expected at each member at that moment, by places; 0 where nothing is
    /// known.
    expected: Vec<f64>,
}

impl Considered {
    /// Whether it would have gone to the upstream with this identity, and the seconds
    /// that it was expected to take at the pick and there. `None` where nothing was known.
    #[must_use]
    pub fn compare(&self, upstream: u64) -> (bool, Option<(f64, f64)>) {
        let picked = self.topology.upstream_of(self.member);
        let agrees = picked.is_some_and(|picked| picked.identity == upstream);
        let first = self.topology.pool(self.pool).map(|pool| pool.members.start);
        let expected = |member: MemberIndex| {
            let place = member.0.checked_sub(first?)?;
            self.expected.get(place).copied().filter(|it| *it > 0.0)
        };
        let there = self.topology.member_at(self.pool, upstream);
        let both = expected(self.member).zip(there.and_then(expected));
        (agrees, both)
    }
}

impl Balancer {
    /// Decides where a request would go that the proxy sends somewhere else, and counts
    /// it nowhere. Its pool has no limits then.
    ///
    /// # Errors
    /// Why the request would have been left to the proxy's own route.
    pub fn consider(
        &mut self,
        shared: &mut impl SharedData,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Considered, PassThrough> {
        let Route {
            reservation,
            member,
            explanation,
            ..
        } = self.place(shared, demand, &mut Vec::new(), now)?;
        let Balancer {
            pools,
            topology,
            lanes,
            estimates,
            capacity,
            tuning,
            ..
        } = self;
        let (Some(balanced), Some(of_pool), Some(pool)) = (
            pools.get_mut(demand.pool.0),
            topology.pool(demand.pool),
            estimates.pool(demand.pool),
        ) else {
            return Err(PassThrough::NoPool);
        };
        let known = Known {
            pool,
            members: estimates.members(of_pool.members.clone()),
            outstanding: lanes.totals(),
            now,
        };
        let (revision, work) = (estimates.revision(), reservation.work());
        let configured = (topology.members.as_slice(), capacity.learned());
        let expected = balanced.prediction.as_mut().map(|prediction| {
            let work = work.requests();
            prediction.expected(&known, revision, configured, work, tuning)
        });
        Ok(Considered {
            member,
            handle: reservation.member,
            explanation,
            work,
            pool: demand.pool,
            topology: Rc::clone(topology),
            expected: expected.unwrap_or_default().to_vec(),
        })
    }
}
