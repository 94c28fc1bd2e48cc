//! What a pick needs to know about members: how each of them stands, which holds for a
//! few milliseconds, and what is outstanding there now.
//!
//! What was learned about a member changes when it is learned, hundreds of picks apart
//! in dense traffic, while counts change at every pick. So everything that costs a
//! logarithm or an exponential is worked out once for many picks, and a pick multiplies
//! and compares.

use crate::estimate::Tuning;
use crate::outlier::Phase;
use crate::pool::{MemberIndex, UpstreamIndex};
use crate::state::{DecodedMember, MemberState, Outstanding, PoolState};
use crate::time::Timestamp;

/// A member's place in its pool, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub usize);

/// How a member stands: what of its scores does not depend on what is outstanding
/// at the moment of a pick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Which member it is.
    pub member: MemberIndex,
    /// Which upstream that is.
    pub upstream: UpstreamIndex,
    /// Its share relative to the others', by configuration; 0 where it gets no request.
    pub full_weight: f64,
    /// The same at the moment: less while it is cold.
    pub weight: f64,
    /// By how much recent failures, refusals that are its own fault, and answers that
    /// there is no room lengthen the delay to expect: 1 or more.
    pub penalty: f64,
    /// The penalty over the weight: scores are in proportion to it.
    pub factor: f64,
    /// Seconds per unit of load that the policy expects of it, or 1 if the policy
    /// expects nothing; positive.
    pub pace: f64,
    /// The same while nothing is in flight there.
    pub idle_pace: f64,
    /// Whether the paces rest on anything that was measured.
    pub is_known: bool,
    /// When it was last, or first, heard of.
    pub heard_at: Timestamp,
    /// Whether it is in, as its health has it.
    pub phase: Phase,
    /// Until when it is or was ejected, unless it is in.
    pub out_until: Timestamp,
    /// The part of its load that it gets because it is cold: 1 once it is warm.
    pub warmth: f64,
    /// The part of its picks that it takes part in, where the policy does not go by
    /// weights: 1 unless it is cold or full.
    pub share: f64,
}

impl Standing {
    /// A member about which nothing is known.
    #[must_use]
    pub fn new(member: MemberIndex, upstream: UpstreamIndex, weight: f64) -> Self {
        Standing {
            member,
            upstream,
            full_weight: weight,
            weight,
            penalty: 1.0,
            factor: 1.0 / weight,
            pace: 1.0,
            idle_pace: 1.0,
            is_known: false,
            heard_at: Timestamp::ZERO,
            phase: Phase::In,
            out_until: Timestamp::ZERO,
            warmth: 1.0,
            share: 1.0,
        }
    }

    /// Takes in what is known about any member, whatever its pool's policy. The
    /// penalty is for failures and fullness only; see [`Standing::penalize`].
    pub fn follow(&mut self, state: &MemberState, now: Timestamp, tuning: &Tuning) {
        let elapsed = now.seconds_since(state.outcome_at);
        let full = state.health.fullness.get(elapsed, tuning);
        self.penalty = state.errors.penalty(now, elapsed, tuning) / (1.0 - full);
        self.weight = self.full_weight;
        (self.phase, self.warmth, self.share) = (Phase::In, 1.0, 1.0);
        self.factor = self.penalty / self.weight;
        // An upstream that answers with errors was heard of, too.
        self.heard_at = state.sampled_at.max(state.outcome_at);
    }

    /// Takes this part of its weight away for a while.
    pub fn lighten(&mut self, part: f64) {
        self.weight *= part;
        self.factor = self.penalty / self.weight;
    }

    /// Multiplies the penalty: there is another reason to expect a longer delay.
    pub fn penalize(&mut self, penalty: f64) {
        self.penalty *= penalty;
        self.factor = self.penalty / self.weight;
    }
}

/// What is known about a pool and its members when it is worked out how they stand.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The pool.
    pub pool: &'a PoolState,
    /// Its members, by their places.
    pub members: &'a [DecodedMember],
    /// What is outstanding, by upstream.
    pub outstanding: &'a [Outstanding],
    /// The present.
    pub now: Timestamp,
}

impl Known<'_> {
    /// The ages of what is outstanding at `upstream`, in seconds, all together.
    #[must_use]
    pub fn ages(&self, upstream: UpstreamIndex) -> f64 {
        let outstanding = self.outstanding.get(upstream.0);
        outstanding.map_or(0.0, |outstanding| outstanding.ages(self.now))
    }
}

/// The members of a pool at a pick.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// How they stand, by their places.
    pub standings: &'a [Standing],
    /// What is outstanding, by upstream.
    pub outstanding: &'a [Outstanding],
    /// Seconds per unit of load at the quantile of latencies that the policy ranks by,
    /// for requests like the one at hand, by the members' places; positive. Empty if
    /// too little was measured, or the policy does not rank by it.
    pub tail_paces: &'a [f64],
}

/// A member that may be picked.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Where in the pool it is.
    pub place: Place,
    /// How it stands.
    pub standing: &'a Standing,
    /// What is outstanding at its upstream, from all workers.
    pub outstanding: &'a Outstanding,
}

impl<'a> Members<'a> {
    /// The member at this place.
    #[inline]
    #[must_use]
    pub fn get(self, place: Place) -> Option<Candidate<'a>> {
        let standing = self.standings.get(place.0)?;
        let outstanding = self.outstanding.get(standing.upstream.0)?;
        Some(Candidate {
            place,
            standing,
            outstanding,
        })
    }

    /// The members at these places.
    #[inline]
    pub fn at(self, places: &[Place]) -> impl Iterator<Item = Candidate<'a>> + Clone {
        places.iter().filter_map(move |place| self.get(*place))
    }
}

impl Candidate<'_> {
    /// Requests that would be in flight with the one at hand.
    #[inline]
    #[must_use]
    pub fn load(&self) -> f64 {
        self.outstanding.requests() as f64 + 1.0
    }
}
