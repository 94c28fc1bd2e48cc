//! Whether a request should rather wait for a faster upstream than take a slower one that
//! has room.
//!
//! With unequal servers, the first that is free need not be the one that is done first.
//! The best for all is a threshold (Lin and Kumar, "Optimal control of a queueing system
//! with two heterogeneous servers", 1984): the slow server gets a request only when so many
//! wait that the last of them would wait longer for the fast ones than those are
//! faster. By when the fast ones will have done all that they have and all that waits is
//! known from their paces: seconds per unit of load is, by Little's law, also the time
//! between two ends there, per unit of work.

use super::Request;
use crate::estimate::Basis;
use crate::outlier::Phase;
use crate::policy::{Candidate, Place};

/// An upstream that was not heard of for so many times the delay that is expected of it
/// is tried all the same: it may have become faster.
const SILENCE: f64 = 20.0;

/// Removes the candidates for which it is not worth leaving the queue: the upstreams of
/// `full`, which have no room, would be done with this request and all others that wait
/// before such a candidate is done with it.
///
/// Nobody waits for long because of this: not for longer than the slower upstream would
/// take, not for upstreams that are idle, and not where nothing is known.
pub(super) fn wait_for_faster(request: &Request<'_>, full: &[Place], candidates: &mut Vec<Place>) {
    let Some(basis) = request.basis.filter(|_| !full.is_empty()) else {
        return;
    };
    let (load, own): (fn(&Candidate<'_>) -> f64, f64) = match basis {
        Basis::Requests => (|it| it.outstanding.requests() as f64, 1.0),
        Basis::Work => (|it| it.outstanding.work(), request.work),
    };
    // The others are mean requests.
    let waiting = f64::from(request.waiting.max(1)) - 1.0 + own;
    let pace = |it: &Candidate<'_>| it.standing.pace * it.standing.penalty;
    candidates.retain(|place| {
        let Some(candidate) = request.members.get(*place) else {
            return false;
        };
        let standing = candidate.standing;
        let expected = pace(&candidate) * (load(&candidate) + own);
        let silence = request.now.seconds_since(standing.heard_at);
        let is_needed = standing.phase != Phase::In || silence > SILENCE * expected;
        if is_needed || !standing.is_known || request.waited >= expected {
            return true;
        }
        let (mut to_do, mut rate) = (waiting, 0.0);
        for faster in request.members.at(full) {
            if pace(&faster) * load(&faster) < expected {
                to_do += load(&faster);
                rate += 1.0 / pace(&faster);
            }
        }
        to_do >= expected * request.patience * rate
    });
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Member, NOW, candidates, request, standings_of};
    use super::*;
    use crate::policy::Standing;
    use crate::policy::test_support::outstanding;
    use crate::time::Timestamp;

    /// A fast server with as many requests as it takes, two, and a slow one.
    struct Pair {
        waiting: u32,
        waited: f64,
        basis: Option<Basis>,
        work: f64,
        slow: Standing,
        now: Timestamp,
    }

    impl Pair {
        /// The slow one takes 10 s for a request, the fast one does one in a second.
        fn new(waiting: u32) -> Self {
            let members: Vec<Member> = candidates(&[2, 0]);
            let [_, mut slow] = standings_of(&members).try_into().unwrap();
            (slow.pace, slow.is_known, slow.heard_at) = (10.0, true, NOW);
            Pair {
                waiting,
                waited: 0.0,
                basis: Some(Basis::Requests),
                work: 1.0,
                slow,
                now: NOW,
            }
        }

        fn takes_slow(self) -> bool {
            let members = candidates(&[2, 0]);
            let mut standings = standings_of(&members);
            standings[0].is_known = true;
            standings[1] = self.slow;
            let outstanding = outstanding(&members, NOW);
            let request = Request {
                waiting: self.waiting,
                waited: self.waited,
                basis: self.basis,
                work: self.work,
                now: self.now,
                ..request(&standings, &outstanding)
            };
            let mut left = vec![Place(1)];
            wait_for_faster(&request, &[Place(0)], &mut left);
            !left.is_empty()
        }
    }

    #[test]
    fn the_slow_one_gets_a_request_when_many_wait() {
        let least = (0..20).find(|waiting| Pair::new(*waiting).takes_slow());
        // Two that run and eight that wait are done within the ten seconds.
        assert_eq!(least, Some(8));
    }

    #[test]
    fn nobody_waits_longer_than_the_slow_one_would_take() {
        let waits = |waited| {
            !Pair {
                waited,
                ..Pair::new(1)
            }
            .takes_slow()
        };
        assert!(waits(9.9));
        assert!(!waits(10.0));
    }

    #[test]
    fn a_small_request_takes_what_is_free_and_a_large_one_waits() {
        let takes = |work| {
            let basis = Some(Basis::Work);
            Pair {
                work,
                basis,
                ..Pair::new(1)
            }
            .takes_slow()
        };
        assert!(takes(0.1));
        assert!(!takes(1.0));
    }

    #[test]
    fn what_is_not_known_or_not_heard_of_is_tried() {
        let with = |change: fn(&mut Pair)| {
            let mut pair = Pair::new(1);
            change(&mut pair);
            pair.takes_slow()
        };
        assert!(!with(|_| {}));
        assert!(with(|pair| pair.basis = None), "no seconds are expected");
        assert!(with(|pair| pair.slow.is_known = false));
        assert!(with(
            |pair| pair.now = Timestamp::from_nanos(211_000_000_000)
        ));
        assert!(with(|pair| pair.slow.pace = 2.0), "it is as fast");
        assert!(with(
            |pair| pair.slow.phase = Phase::HalfOpen(crate::outlier::Reason::Latency)
        ));
    }

    #[test]
    fn where_nobody_is_full_nobody_waits() {
        let members = candidates(&[0, 0]);
        let standings = standings_of(&members);
        let outstanding = outstanding(&members, NOW);
        let request = Request {
            basis: Some(Basis::Requests),
            ..request(&standings, &outstanding)
        };
        let mut left = vec![Place(0), Place(1)];
        wait_for_faster(&request, &[], &mut left);
        assert_eq!(left, [Place(0), Place(1)]);
    }
}
