//! How many replicas a policy needs.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::experiment::{PolicyResult, run_case};
use super::policy::Policy;
use super::scenario::{Offered, Scenario, ScenarioError};
use super::statistics::Estimate;
use crate::compare::capacities;

/// What is to be found out: the least fleet whose p99 stays within a goal.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All but the fleet, of which only the servers' kinds are used: replicas are made of them in turn.
    pub scenario: Scenario,
    /// The goal, in seconds.
    pub p99: f64,
    /// Runs at a time.
    pub threads: NonZeroUsize,
}

/// How many replicas a policy needs.
#[derive(Clone, Debug, Serialize)]
pub struct Need {
    /// The policy's name.
    pub policy: String,
    /// The least number that was found to do; nothing where none did.
    pub replicas: Option<usize>,
    /// The p99 with that number, seconds; where none did, with the greatest that was tried.
    pub p99: Estimate,
    /// The p99 with one replica less.
    pub p99_with_one_less: Option<Estimate>,
    /// The greatest number that was tried.
    pub tried: usize,
}

/// A search ends at so many times the replicas that the load needs at all times.
const MOST: usize = 64;
/// And at so many replicas.
const MOST_REPLICAS: usize = 4_000;
/// Requests of which more than this part fail have no p99.
const FAILED: f64 = 0.01;

impl Plan {
    /// Searches for the least number: doubles until it does, then halves the interval.
    ///
    /// A number does when, with 97.5 % confidence, its p99 from the first request on is within the goal, and hardly any request fails.
    /// More replicas are taken to be no worse, so that a search needs some ten sizes.
    ///
    /// # Errors
    /// The workload cannot be made.
    pub fn need(&self, policy: &Policy) -> Result<Need, ScenarioError> {
        let floor = self.floor()?;
        let most = floor.saturating_mul(MOST).min(MOST_REPLICAS).max(floor);
        let (mut too_few, mut too_few_p99) = (floor - 1, None);
        let mut enough = floor;
        let mut found = self.try_size(policy, enough)?;
        let mut tried = enough;
        while !self.does(&found) {
            (too_few, too_few_p99) = (enough, Some(found.whole.p99));
            if enough == most {
                return Ok(Need {
                    policy: policy.to_string(),
                    replicas: None,
                    p99: found.whole.p99,
                    p99_with_one_less: None,
                    tried,
                });
            }
            enough = (enough * 2).min(most);
            tried = enough;
            found = self.try_size(policy, enough)?;
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            let result = self.try_size(policy, middle)?;
            if self.does(&result) {
                (enough, found) = (middle, result);
            } else {
                (too_few, too_few_p99) = (middle, Some(result.whole.p99));
            }
        }
        Ok(Need {
            policy: policy.to_string(),
            replicas: Some(enough),
            p99: found.whole.p99,
            p99_with_one_less: too_few_p99,
            tried,
        })
    }

    /// The least number that can serve the load at all.
    fn floor(&self) -> Result<usize, ScenarioError> {
        let scenario = &self.scenario;
        let each = capacities(&scenario.fleet, &scenario.workload)?;
        let mean = each.iter().sum::<f64>() / each.len() as f64;
        let rate = match &scenario.offered {
            Offered::Rate(rates) => rates.first().copied().unwrap_or(0.0),
            Offered::Recorded => scenario.workload.recorded_rate().unwrap_or(0.0),
            Offered::Load(_) | Offered::Clients(_) => {
                return Err(ScenarioError::Inside(
                    "load: a part of a capacity is not allowed: a plan needs requests per second, or a trace's own rate"
                        .to_owned(),
                ));
            }
        };
        Ok(((rate / mean).ceil() as usize).clamp(1, MOST_REPLICAS))
    }

    fn try_size(&self, policy: &Policy, replicas: usize) -> Result<PolicyResult, ScenarioError> {
        let count = NonZeroUsize::new(replicas).unwrap_or(NonZeroUsize::MIN);
        let fleet = self.scenario.fleet.repeated(count);
        let scenario = Scenario {
            present: vec![true; replicas],
            fleet,
            ..self.scenario.clone()
        };
        let cases = scenario.cases()?;
        let nothing = || ScenarioError::Inside("a scenario without a case".to_owned());
        let case = cases.first().ok_or_else(nothing)?;
        let policies = std::slice::from_ref(policy);
        let result = run_case(case, policies, scenario.seeds, self.threads)?;
        result.policies.into_iter().next().ok_or_else(nothing)
    }

    fn does(&self, result: &PolicyResult) -> bool {
        result.whole.failed <= FAILED && result.whole.p99.high <= self.p99
    }
}
