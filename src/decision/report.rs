//! What is known of a pool and its members at a moment, for people.

use super::{Balancer, Measured};
use crate::estimate::Basis;
use crate::host::SharedData;
use crate::outlier::Phase;
use crate::policy::Known;
use crate::pool::{MemberIndex, PoolIndex};
use crate::state::{Outstanding, StateError};
use crate::time::Timestamp;

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Requests in flight at its upstream, of all pools.
    pub in_flight: u64,
    /// The work that is expected of them, in mean requests.
    pub work: f64,
    /// Its pace, in seconds; `None` before any sample.
    pub pace: Option<PaceReport>,
    /// The pace that picks expect of it, in seconds; `None` where the policy expects none
    /// or nothing was measured.
    pub expected_pace: Option<f64>,
    /// The recent share of failures, 0 to 1.
    pub failure_rate: f64,
    /// The recent share of answers that there is no room, 0 to 1.
    pub full_rate: f64,
    /// Whether it is in.
    pub phase: Phase,
    /// Seconds until its ejection is over; 0 where it is not ejected.
    pub out_for: f64,
    /// The part of its load that it gets because it is cold: 1 once it is warm.
    pub warmth: f64,
    /// Whether it is ready; `None` where nobody asks.
    pub is_ready: Option<bool>,
    /// What was measured of it.
    pub measured: Measured,
}

/// A pace and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceReport {
    /// Seconds per unit of load.
    pub seconds: f64,
    /// With 95 % confidence, it is not below this.
    pub low: f64,
    /// With 95 % confidence, it is not above this.
    pub high: f64,
}

/// Standard deviations on either side of the mean that hold 95 %.
const CONFIDENCE: f64 = 1.96;

impl Balancer {
    /// Brings up to date what [`Balancer::report`] tells of a pool.
    ///
    /// # Errors
    /// The host failed; what was known before holds.
    pub fn look_at(
        &mut self,
        shared: &mut impl SharedData,
        pool: PoolIndex,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let read = self.estimates.read(shared, now);
        let of_pool = (self.pools.get_mut(pool.0), self.topology.pool(pool));
        if let (Some(balanced), Some(of_pool)) = of_pool
            && let Some(pool_state) = self.estimates.pool(pool)
        {
            let known = Known {
                pool: pool_state,
                members: self.estimates.members(of_pool.members.clone()),
                outstanding: self.lanes.totals(),
                now,
            };
            balanced.appraise(&known, self.estimates.revision(), &self.tuning);
        }
        read
    }

    /// The policy's name, and what the pool measures load in, where its policy heeds that.
    #[must_use]
    pub fn policy_of(&self, pool: PoolIndex) -> Option<(&'static str, Option<Basis>)> {
        let balanced = self.pools.get(pool.0)?;
        let basis = balanced.policy.basis(self.estimates.pool(pool)?);
        Some((balanced.policy_name, basis))
    }

    /// Whether so many of the pool's members are out that picks do not heed it.
    #[must_use]
    pub fn panics(&self, pool: PoolIndex) -> bool {
        let pool = self.pools.get(pool.0);
        pool.is_some_and(|pool| pool.standings.phases().panics)
    }

    /// The workers that take part: the numbers of their lanes, when they were last heard
    /// of, and what is outstanding from each.
    pub fn workers(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (usize, Timestamp, Outstanding)> + '_ {
        self.lanes.workers(now)
    }

    /// What is known of a member.
    #[must_use]
    pub fn report(&self, member: MemberIndex, now: Timestamp) -> Option<Report> {
        let configured = self.topology.member(member)?;
        let pool = self.topology.pool(configured.pool)?;
        let place = member.0.checked_sub(pool.members.start)?;
        let balanced = self.pools.get(configured.pool.0)?;
        let standing = balanced.standings.all().get(place)?;
        let state = self.estimates.member(member)?;
        let pool_state = self.estimates.pool(configured.pool)?;
        let outstanding = self.lanes.outstanding(configured.upstream);
        let basis = balanced.policy.basis(pool_state);
        let (pace, basis) = match basis {
            Some(Basis::Work) => (state.pace_of_work, Basis::Work),
            _ => (state.pace, Basis::Requests),
        };
        let pace = pace.is_known().then(|| {
            let silence = now.seconds_since(state.sampled_at);
            let uncertainty = pace.uncertainty(silence, &self.tuning);
            let spread = (pool_state.books.variance(basis) * uncertainty).sqrt();
            let at = |deviations: f64| (pace.mean_log() + deviations * spread).exp();
            PaceReport {
                seconds: at(0.0),
                low: at(-CONFIDENCE),
                high: at(CONFIDENCE),
            }
        });
        let elapsed = now.seconds_since(state.outcome_at);
        let health = self.health.as_ref().filter(|_| pool.is_checked);
        let phase = standing.phase;
        Some(Report {
            in_flight: outstanding.requests(),
            work: outstanding.work(),
            pace,
            expected_pace: standing.is_known.then_some(standing.pace),
            failure_rate: state.errors.get(now, elapsed, &self.tuning),
            full_rate: state.health.fullness.get(elapsed, &self.tuning),
            phase,
            out_for: match phase {
                Phase::Ejected(_) => standing.out_until.seconds_since(now),
                _ => 0.0,
            },
            warmth: standing.warmth,
            is_ready: health.map(|health| health.of(member).is_ready),
            measured: self.latencies.measured(member),
        })
    }
}
