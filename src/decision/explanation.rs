//! Telling people why an upstream was picked.

use std::fmt::{self, Write as _};

use super::latencies::Quantiles;
use crate::estimate::Basis;
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
    /// The work that was expected of the request, in mean requests.
    pub work: f64,
    /// What the pool measures load in, where the policy heeds that.
    pub basis: Option<Basis>,
    /// What was measured of the winner lately, by the pool's signal.
    pub latency: Quantiles,
}

impl Explanation {
    /// The explanation of a pick of `member`, as the decision header has it:
    /// `upstream=gpu-a; policy=shortest_expected_delay; score=2.5;
    /// runner_up=gpu-b (3); reason=policy; work=1.8; basis=work`, and
    /// before these two the request's `size` where it is known. Where latencies were
    /// measured, `p50=120ms; p90=340.5ms; p99=800ms` of the upstream stand
    /// before the reason.
    #[must_use]
    pub fn describe(&self, topology: &Topology, member: MemberIndex, size: Option<f64>) -> String {
        let name = |member| {
            topology
                .upstream_of(member)
                .map_or("", |upstream| upstream.name())
        };
        let mut text = format!("upstream={}; policy={}", name(member), self.policy);
        // Writing to a String cannot fail.
        if let Some((second, score)) = self.runner_up {
            let _ = write!(text, "; score={}", Short(self.score));
            let _ = write!(text, "; runner_up={} ({})", name(second), Short(score));
        }
        if let Some([p50, p90, p99]) = self.latency {
            for (name, seconds) in [("p50", p50), ("p90", p90), ("p99", p99)] {
                let millis = Short((seconds * 1e4).round() / 10.0);
                let _ = write!(text, "; {name}={millis}ms");
            }
        }
        let reason = match self.reason {
            Reason::Policy => "policy",
            Reason::Exploration => "exploration",
        };
        let _ = write!(text, "; reason={reason}");
        if let Some(size) = size {
            let _ = write!(text, "; size={}", Short(size));
        }
        if let Some(basis) = self.basis {
            let work = Short(self.work);
            let _ = write!(text, "; work={work}; basis={}", basis.label());
        }
        text
    }
}

/// A score to six decimals. Whole numbers make it, because the standard
/// library's formatting of floats would be a tenth of the filter's code.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millionths = (self.0 * 1e6).round();
        // Beyond 2^63 the conversion stops at the greatest number, which is
        // what a score without bounds should look like.
        let millionths = millionths as u64;
        write!(f, "{}", millionths / 1_000_000)?;
        let digits = format!("{:06}", millionths % 1_000_000);
        match digits.trim_end_matches('0') {
            "" => Ok(()),
            digits => write!(f, ".{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_short_and_right() {
        let shown = [2.0, 0.25, 1.000_000_4, 0.000_05, 1234.5, 0.0].map(|s| Short(s).to_string());
        assert_eq!(shown, ["2", "0.25", "1", "0.00005", "1234.5", "0"]);
        assert_eq!(Short(f64::INFINITY).to_string(), "18446744073709.551615");
        assert_eq!(Short(f64::NAN).to_string(), "0");
    }
}
