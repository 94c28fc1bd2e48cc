//! What the filter's default policy must do in the simulator.

use crate::simulate::CaseResult;

/// No worse than this many times full-scan least request, warm-up included.
const TO_LEAST_REQUEST: f64 = 1.02;

/// A goal that a simulated case misses.
#[derive(Clone, Debug, PartialEq)]
pub struct Missed {
    /// What was simulated.
    pub case: String,
    /// Which figure, over whose.
    pub figure: &'static str,
    /// How many times the other's it is.
    pub value: f64,
    /// How many times it may be.
    pub at_most: f64,
}

/// The goals that `policy` misses in this case: never worse than 1.02 times full-scan least request, in p99 or in mean, over the
/// whole run.
#[must_use]
pub fn missed(name: &str, case: &CaseResult, policy: &str) -> Vec<Missed> {
    let own = case.policies.iter().find(|it| it.policy == policy);
    let (Some(own), Some(other)) = (own, case.least_request()) else {
        return Vec::new();
    };
    let (own, other) = (&own.whole, &other.whole);
    let ratios = [
        ("mean over least request's", own.mean_ratio(other)),
        ("p99 over least request's", own.p99_ratio(other)),
    ];
    let exceeded = ratios
        .into_iter()
        .filter(|(_, ratio)| ratio.value > TO_LEAST_REQUEST);
    let exceeded = exceeded.map(|(figure, ratio)| Missed {
        case: format!("{name}, {}", case.case),
        figure,
        value: ratio.value,
        at_most: TO_LEAST_REQUEST,
    });
    exceeded.collect()
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            case,
            figure,
            value,
            at_most,
        } = self;
        write!(
            f,
            "{case}: {figure} {value:.3}, the goal is at most {at_most:.2}"
        )
    }
}
