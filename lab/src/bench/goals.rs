//! What the filter's default policy must do in the simulator.

use std::fmt;

use crate::simulate::{CaseResult, Estimate, PolicyResult};

/// Scenarios of batching fleets, in which the best bound is what the policy is measured by.
const BATCHING: [&str; 6] = [
    "equal8",
    "equal8-gateways",
    "unequal8",
    "unequal8-gateways",
    "llm-5-10-5",
    "llm-5-10-5-gateways",
];
/// There, after the warm-up, p99 is to be no more than this many times the best bound's.
const P99_TO_BOUND: f64 = 1.08;
/// And the mean no more than this many times the same bound's.
const MEAN_TO_BOUND: f64 = 1.05;
/// Everywhere, warm-up included, neither p99 nor mean is to be more than this many times full-scan least request's.
const TO_LEAST_REQUEST: f64 = 1.02;

/// What tables say about a goal.
pub(super) fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}

/// A figure of a case beside its goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Which figure, over whose.
    pub figure: &'static str,
    /// How many times the other's it is.
    pub ratio: Estimate,
    /// How many times it may be.
    pub at_most: f64,
}

/// A goal that a simulated case misses.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    /// What was simulated.
    pub case: String,
    /// What came out.
    pub checked: Checked,
}

impl Checked {
    /// Whether the goal is missed.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.ratio.value > self.at_most
    }
}

/// The figures of a case over those of the best bound, where there is a goal for them.
#[must_use]
pub fn to_bound(name: &str, case: &CaseResult, policy: &str) -> Vec<Checked> {
    if !BATCHING.contains(&name) {
        return Vec::new();
    }
    let (Some(own), Some(bound)) = (case.of(policy), case.best_bound()) else {
        return Vec::new();
    };
    let (own, bound) = (&own.steady, &bound.steady);
    vec![
        Checked {
            figure: "p99 over the best bound's",
            ratio: own.p99_ratio(bound),
            at_most: P99_TO_BOUND,
        },
        Checked {
            figure: "mean over the best bound's",
            ratio: own.mean_ratio(bound),
            at_most: MEAN_TO_BOUND,
        },
    ]
}

/// The figures of a case over those of full-scan least request.
#[must_use]
pub fn to_least_request(case: &CaseResult, policy: &str) -> Vec<Checked> {
    let (Some(own), Some(other)) = (case.of(policy), case.least_request()) else {
        return Vec::new();
    };
    let (own, other) = (&own.whole, &other.whole);
    let checked = |figure, ratio| Checked {
        figure,
        ratio,
        at_most: TO_LEAST_REQUEST,
    };
    vec![
        checked("p99 over least request's", own.p99_ratio(other)),
        checked("mean over least request's", own.mean_ratio(other)),
    ]
}

/// The goals that `policy` misses in these cases: within 1.08 (p99) and 1.05 (mean) times the best bound on batching fleets, and nowhere
/// more than 1.02 times full-scan least request over the whole run.
#[must_use]
pub fn missed(policy: &str, cases: &[(&str, &CaseResult)]) -> Vec<Missed> {
    let of_case = |(name, case): &(&str, &CaseResult)| {
        let place = format!("{name}, {}", case.case);
        let checked = to_bound(name, case, policy).into_iter();
        let checked = checked.chain(to_least_request(case, policy));
        let missed = checked.filter(Checked::is_missed);
        let missed = missed.map(move |checked| Missed {
            case: place.clone(),
            checked,
        });
        missed.collect::<Vec<_>>()
    };
    cases.iter().flat_map(of_case).collect()
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked {
            figure,
            ratio,
            at_most,
        } = &self.checked;
        let Estimate { value, low, high } = ratio;
        write!(
            f,
            "{}: {figure} {value:.3} ({low:.3} to {high:.3}), the goal is at most {at_most:.2}",
            self.case
        )
    }
}

impl CaseResult {
    /// What a policy did, if it took part.
    fn of(&self, policy: &str) -> Option<&PolicyResult> {
        self.policies.iter().find(|it| it.policy == policy)
    }
}
