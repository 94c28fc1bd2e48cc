//! How long a request should take at each member of a pool.
//!
//! It is predicted as the default policy does it, whatever the pool's policy is: pace
//! times load. Where a member has a cap, it never has more than that, because what
//! exceeds it waits here and not there.

use super::phases;
use super::standings::Standings;
use crate::config::PolicyConfig;
use crate::estimate::{Basis, Tuning};
use crate::policy::{self, Known, Policy};
use crate::pool::{Member, Pool, Topology};
use crate::time::seconds;

/// What one worker's balancer keeps to predict for one pool.
pub(super) struct Prediction {
    policy: Box<dyn Policy>,
    standings: Standings,
    /// Seconds expected at each member, by places; 0 where nothing is known.
    expected: Vec<f64>,
}

impl Prediction {
    /// For a pool without members.
    pub(super) fn new(tuning: Tuning) -> Self {
        Prediction {
            policy: policy::from_config(&PolicyConfig::default(), tuning),
            standings: Standings::new(seconds(tuning.merge_seconds)),
            expected: Vec::new(),
        }
    }

    /// Takes the members that `pool` has in `topology`.
    pub(super) fn set_members(&mut self, topology: &Topology, pool: &Pool) {
        self.standings.set_members(topology, pool);
    }

    /// What was last expected, by places.
    pub(super) fn last(&self) -> &[f64] {
        &self.expected
    }

    /// Seconds that a request of so much work should take at each member, by places, if
    /// it starts now or as soon as there is room; 0 where nothing is known. `configured`
    /// are all members, and what was learned of how much they take.
    #[inline(never)]
    pub(super) fn expected(
        &mut self,
        known: &Known<'_>,
        revision: u64,
        (configured, learned): (&[Member], &[u64]),
        work: f64,
        tuning: &Tuning,
    ) -> &[f64] {
        if !self.standings.hold(revision, known.now) {
            let policy = &*self.policy;
            let rules = phases::Rules::of_none(tuning);
            self.standings.renew(policy, known, revision, &rules);
        }
        let basis = self.policy.basis(known.pool).unwrap_or(Basis::Requests);
        let expected = self.standings.all().iter().map(|standing| {
            if !standing.is_known {
                return 0.0;
            }
            let outstanding = known.outstanding.get(standing.upstream.0);
            let outstanding = outstanding.copied().unwrap_or_default();
            let in_flight = outstanding.requests() as f64;
            let member = configured.get(standing.member.0);
            let cap = member.and_then(|member| member.most_in_flight(learned));
            let most_others = cap.map_or(in_flight, |cap| (cap as f64 - 1.0).max(0.0));
            let others = in_flight.min(most_others);
            standing.pace
                * match basis {
                    Basis::Requests => others + 1.0,
                    Basis::Work if in_flight > 0.0 => {
                        outstanding.work() * others / in_flight + work
                    }
                    Basis::Work => work,
                }
        });
        self.expected.clear();
        self.expected.extend(expected);
        &self.expected
    }
}
