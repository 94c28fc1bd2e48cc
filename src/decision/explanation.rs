//! Telling people why an upstream was picked.

use std::fmt::{self, Write as _};

use super::latencies::Quantiles;
use super::phases::Phases;
use crate::decimal::Decimal;
use crate::estimate::Basis;
use crate::health::View;
use crate::outlier::Phase;
use crate::policy::{Reason, Standing};
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
    /// How long the request should take there, in seconds, where the policy predicts
    /// that.
    pub expected: Option<f64>,
    /// The work that was expected of the request, in mean requests.
    pub work: f64,
    /// What the pool measures load in, where the policy heeds that.
    pub basis: Option<Basis>,
    /// What was measured of the winner lately, by the pool's signal.
    pub latency: Quantiles,
    /// Who was no candidate because of its health.
    pub left_out: LeftOut,
}

/// The first few members that were no candidates because of their health, and how many
/// more there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LeftOut {
    first: [Option<(MemberIndex, Cause)>; 3],
    more: usize,
}

/// Why a member was no candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    /// Its pool's health check says that it is not ready.
    NotReady,
    /// It is ejected, or half-open.
    Out(Phase),
}

impl LeftOut {
    /// Those of a pool's members, which stand so, whose health kept them from being
    /// candidates when `picked` was picked. Where that is not ready itself, none is, and
    /// where it is ejected, all are: then everyone was a candidate.
    pub(super) fn by(
        picked: &Standing,
        standings: &[Standing],
        phases: &Phases,
        health: Option<&View>,
    ) -> Self {
        let mut left_out = LeftOut::default();
        let is_ready = |member| health.is_none_or(|health| health.of(member).is_ready);
        let heeds_ready = health.is_some() && is_ready(picked.member);
        let heeds_phases =
            !phases.is_plain && !phases.panics && !matches!(picked.phase, Phase::Ejected(_));
        if !heeds_ready && !heeds_phases {
            return left_out;
        }
        let cause = |it: &Standing| match it.phase {
            _ if it.member == picked.member => None,
            _ if heeds_ready && !is_ready(it.member) => Some(Cause::NotReady),
            Phase::In => None,
            phase => heeds_phases.then_some(Cause::Out(phase)),
        };
        let out = standings
            .iter()
            .filter_map(|it| Some((it.member, cause(it)?)));
        for (number, member) in out.enumerate() {
            match left_out.first.get_mut(number) {
                Some(place) => *place = Some(member),
                None => left_out.more += 1,
            }
        }
        left_out
    }
}

/// Bytes of most explanations: each is written into one piece of memory.
const LIKELY_LENGTH: usize = 256;

impl Explanation {
    /// The explanation of a pick of `member`, as the decision header has it:
    /// `upstream=gpu-a; policy=shortest_expected_delay; score=2.5;
    /// runner_up=gpu-b (3); expected=1.8s; reason=policy; work=1.8; basis=work`, and
    /// before these two the request's `size` where it is known. Members that were left out
    /// because of their health come after the reason, such as
    /// `left_out=gpu-b:not_ready,gpu-c:ejected(latency)`. Where latencies were
    /// measured, `p50=120ms; p90=340.5ms; p99=800ms` of the upstream stand
    /// before the reason.
    #[inline(never)]
    #[must_use]
    pub fn describe(&self, topology: &Topology, member: MemberIndex, size: Option<f64>) -> String {
        let name = |member| {
            topology
                .upstream_of(member)
                .map_or("", |upstream| upstream.name())
        };
        let mut text = String::with_capacity(LIKELY_LENGTH);
        let add = |text: &mut String, parts: &[&str]| {
            for part in parts {
                text.push_str(part);
            }
        };
        add(
            &mut text,
            &["upstream=", name(member), "; policy=", self.policy],
        );
        if let Some((second, score)) = self.runner_up {
            add(&mut text, &["; score="]);
            Decimal(self.score).add_to(&mut text);
            add(&mut text, &["; runner_up=", name(second), " ("]);
            Decimal(score).add_to(&mut text);
            add(&mut text, &[")"]);
        }
        if let Some(seconds) = self.expected {
            add(&mut text, &["; expected="]);
            Decimal::of_seconds(seconds).add_to(&mut text);
            add(&mut text, &["s"]);
        }
        if let Some([p50, p90, p99]) = self.latency {
            for (begin, seconds) in [("; p50=", p50), ("; p90=", p90), ("; p99=", p99)] {
                add(&mut text, &[begin]);
                Decimal((seconds * 1e4).round() / 10.0).add_to(&mut text);
                add(&mut text, &["ms"]);
            }
        }
        add(&mut text, &["; reason=", self.reason.label()]);
        let LeftOut { first, more } = self.left_out;
        for (number, (out, cause)) in first.iter().flatten().enumerate() {
            let begin = if number == 0 { "; left_out=" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{begin}{}:{cause}", name(*out));
        }
        if more > 0 {
            let _ = write!(text, ",+{more}");
        }
        if let Some(size) = size {
            add(&mut text, &["; size="]);
            Decimal(size).add_to(&mut text);
        }
        if let Some(basis) = self.basis {
            add(&mut text, &["; work="]);
            Decimal(self.work).add_to(&mut text);
            add(&mut text, &["; basis=", basis.label()]);
        }
        text
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::NotReady => f.write_str("not_ready"),
            Cause::Out(Phase::In) => f.write_str("in"),
            Cause::Out(Phase::Ejected(reason)) => write!(f, "ejected({})", reason.label()),
            Cause::Out(Phase::HalfOpen(reason)) => write!(f, "half_open({})", reason.label()),
        }
    }
}
