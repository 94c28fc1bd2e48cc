//! Telling people why an upstream was picked.

use std::fmt::{self, Write as _};

use crate::policy::Reason;
use crate::pool::{MemberIndex, Topology};

/// How a pick came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explanation {
    /// The policy's name.
    pub policy: &'static str,
    /// What the policy's rule or its wish to explore.
    pub reason: Reason,
    /// The winner's score.
    pub score: f64,
    /// The second best and its score.
    pub runner_up: Option<(MemberIndex, f64)>,
}

impl Explanation {
    /// The explanation of a pick of `member`, as the decision header has it:
    /// `upstream=gpu-a; policy=least_request; score=2; runner_up=gpu-b (3);
    /// reason=policy`.
    #[must_use]
    pub fn describe(&self, topology: &Topology, member: MemberIndex) -> String {
        let name = |member| {
            topology
                .upstream_of(member)
                .map_or("", |u| u.cluster.as_str())
        };
        let mut text = format!("upstream={}; policy={}", name(member), self.policy);
        // Writing to a String cannot fail.
        if let Some((second, score)) = self.runner_up {
            let _ = write!(text, "; score={}", Short(self.score));
            let _ = write!(text, "; runner_up={} ({})", name(second), Short(score));
        }
        let reason = match self.reason {
            Reason::Policy => "policy",
            Reason::Exploration => "exploration",
        };
        let _ = write!(text, "; reason={reason}");
        text
    }
}

/// A score with as many digits as a person wants.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude != 0.0 && !(0.001..1_000_000.0).contains(&magnitude) {
            return write!(f, "{:.3e}", self.0);
        }
        let digits = format!("{:.4}", self.0);
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}
