//! What one worker's balancer keeps about one pool.

use super::deadlines::Deadlines;
use super::eligible::{self, Needs, Rule};
use super::learning;
use super::phases;
use super::prediction::Prediction;
use super::standings::Standings;
use crate::config::{self, Mode, OutlierDetection, SlowStart};
use crate::estimate::{Basis, Tuning};
use crate::policy::{self, Known, Place, Policy, Turns};
use crate::pool::{PoolIndex, Topology};
use crate::random::Rng;
use crate::time::{Timestamp, seconds};

/// One pool, as one worker balances it.
pub(super) struct BalancedPool {
    pub(super) policy: Box<dyn Policy>,
    /// The policy's name in the configuration.
    pub(super) policy_name: &'static str,
    /// Which members may take a request.
    pub(super) rules: Vec<Box<dyn Rule>>,
    /// How the members stand.
    pub(super) standings: Standings,
    /// When its upstreams are ejected; `None` is never.
    pub(super) detection: Option<OutlierDetection>,
    /// How the load of new upstreams grows; `None` is at once.
    pub(super) slow_start: Option<SlowStart>,
    /// Whether the policy goes by weights.
    pub(super) heeds_weights: bool,
    /// When this worker last tried an upstream that is half-open.
    pub(super) tried_at: Option<Timestamp>,
    /// What is needed to keep deadlines, where the pool heeds any.
    pub(super) deadlines: Option<Deadlines>,
    /// How long requests should take, where the pool heeds deadlines or only watches.
    pub(super) prediction: Option<Prediction>,
    /// Whose turn it is.
    pub(super) turns: Turns,
    /// The members, in the random order that samples leave.
    pub(super) order: Vec<Place>,
    /// What the pool measured load in at this worker's last pick.
    basis: Option<Basis>,
    /// The basis has changed since it was last asked for.
    basis_is_news: bool,
}

impl BalancedPool {
    /// A pool without members, which [`BalancedPool::set_members`] gives it.
    pub(super) fn new(config: &config::Pool, tuning: Tuning) -> Self {
        let deadlines = Deadlines::new(config);
        let predicts = deadlines.is_some() || config.mode != Mode::Balance;
        BalancedPool {
            policy: policy::from_config(&config.policy, tuning),
            policy_name: config.policy.name(),
            rules: Vec::new(),
            standings: Standings::new(seconds(tuning.merge_seconds)),
            detection: config.outlier_detection,
            slow_start: config.slow_start,
            heeds_weights: config.policy.heeds_weights(),
            tried_at: None,
            deadlines,
            prediction: predicts.then(|| Prediction::new(tuning)),
            turns: Turns::default(),
            order: Vec::new(),
            basis: None,
            basis_is_news: false,
        }
    }

    /// Takes the members that the pool with this number has in `topology`.
    pub(super) fn set_members(&mut self, topology: &Topology, pool: PoolIndex) {
        let Some(pool) = topology.pool(pool) else {
            return;
        };
        let needs = Needs {
            ejection: self.detection.is_some(),
            cold: self.slow_start.is_some() && self.policy.ranks(),
        };
        self.rules = eligible::rules(pool, &topology.members, needs);
        self.standings.set_members(topology, pool);
        if let Some(prediction) = &mut self.prediction {
            prediction.set_members(topology, pool);
        }
        self.order = (0..pool.members.len()).map(Place).collect();
        self.turns.of = vec![0; self.order.len()];
    }

    /// Brings the members among which a request is placed to the front of the order, and
    /// returns how many they are: all of them, or a random sample of a large pool.
    pub(super) fn sample(&mut self, tuning: &Tuning, rng: &mut Rng) -> usize {
        let all = self.order.len();
        // A sample might have none that may take the request.
        let needs_all = self.policy.needs_all() || self.rules.iter().any(|rule| rule.needs_all());
        if needs_all || all <= tuning.full_scan {
            all
        } else {
            rng.draw_to_front(&mut self.order, tuning.sample)
        }
    }

    /// Works out how the members stand, from what is known in this revision of the
    /// estimates.
    pub(super) fn appraise(&mut self, known: &Known<'_>, revision: u64, tuning: &Tuning) {
        let policy = &*self.policy;
        let rules = phases::Rules {
            detection: self.detection.as_ref(),
            slow_start: self.slow_start.as_ref(),
            heeds_weights: self.heeds_weights,
            heeds_penalties: policy.heeds_penalties(),
            tuning,
        };
        self.standings.renew(policy, known, revision, &rules);
    }

    /// How the pool learns from what has ended.
    pub(super) fn rules_of_learning<'a>(&'a self, tuning: &'a Tuning) -> learning::Rules<'a> {
        learning::Rules {
            decay: self.policy.decay_seconds(),
            detection: self.detection.as_ref(),
            slow_start: self.slow_start.as_ref(),
            tuning,
        }
    }

    /// Whether every member that is shown may take every request.
    pub(super) fn takes_any(&self) -> bool {
        let phases = self.standings.phases();
        let is_thinned = !self.heeds_weights && !phases.is_plain;
        !is_thinned && self.rules.iter().all(|rule| rule.rests(phases))
    }

    /// A pick has measured load in this.
    pub(super) fn set_basis(&mut self, basis: Option<Basis>) {
        if self.basis != basis {
            (self.basis, self.basis_is_news) = (basis, true);
        }
    }

    /// What the pool measures load in, if that has changed since this was last
    /// asked.
    pub(super) fn take_changed_basis(&mut self) -> Option<Basis> {
        let is_news = std::mem::take(&mut self.basis_is_news);
        self.basis.filter(|_| is_news)
    }
}
