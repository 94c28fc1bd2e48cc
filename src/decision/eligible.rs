//! Which candidates may take a request of this size.

use crate::config::{Accepts, Reserve};
use crate::policy::Candidate;

/// Leaves those candidates that accept a request of this `size`; `accepts`
/// tells of each what it accepts.
pub(super) fn keep_accepting(
    candidates: &mut Vec<Candidate>,
    size: Option<f64>,
    accepts: impl Fn(&Candidate) -> Accepts,
) {
    candidates.retain(|candidate| accepts(candidate).accepts(size));
}

/// Leaves those candidates that a request of this `size` may use where some are
/// reserved for small ones.
///
/// A request that is not small borrows a reserved upstream that is idle, as long as
/// another of them is idle, too: a small one that comes next finds that. Where
/// nothing is left but what is reserved, nothing is.
pub(super) fn keep_unreserved(
    candidates: &mut Vec<Candidate>,
    size: Option<f64>,
    reserve: &Reserve,
    is_reserved: impl Fn(&Candidate) -> bool,
) {
    if reserve.is_small(size) || candidates.iter().all(&is_reserved) {
        return;
    }
    let is_idle = |candidate: &Candidate| candidate.in_flight == 0 && is_reserved(candidate);
    let may_borrow = candidates.iter().filter(|it| is_idle(it)).count() >= 2;
    candidates.retain(|it| !is_reserved(it) || (may_borrow && is_idle(it)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemberState;

    fn candidates(in_flight: &[u64]) -> Vec<Candidate> {
        let candidate = |(member, in_flight): (usize, &u64)| Candidate {
            member,
            upstream: member,
            weight: 1.0,
            in_flight: *in_flight,
            outstanding_work: *in_flight as f64,
            state: MemberState::default(),
            tail_pace: 1.0,
        };
        in_flight.iter().enumerate().map(candidate).collect()
    }

    /// Who may take it, where members 2 and up are reserved for sizes up to 10.
    fn left(in_flight: &[u64], size: Option<f64>) -> Vec<usize> {
        let mut all = candidates(in_flight);
        let reserve = Reserve {
            share: 0.5,
            max_size: 10.0,
        };
        keep_unreserved(&mut all, size, &reserve, |it| it.member >= 2);
        all.iter().map(|it| it.member).collect()
    }

    #[test]
    fn small_requests_may_go_anywhere() {
        assert_eq!(left(&[1, 1, 1, 1], Some(10.0)), [0, 1, 2, 3]);
    }

    #[test]
    fn others_borrow_what_is_idle_but_never_the_last_idle_one() {
        for size in [Some(11.0), None] {
            assert_eq!(left(&[1, 1, 0, 0], size), [0, 1, 2, 3]);
            assert_eq!(left(&[1, 1, 0, 1], size), [0, 1]);
            assert_eq!(left(&[9, 9, 1, 1], size), [0, 1]);
            assert_eq!(left(&[1, 1, 0, 3, 0], size), [0, 1, 2, 4]);
        }
    }

    #[test]
    fn a_reserve_denies_nobody() {
        let mut all = candidates(&[0, 0, 5]);
        all.drain(..2);
        let reserve = Reserve {
            share: 0.5,
            max_size: 10.0,
        };
        keep_unreserved(&mut all, Some(99.0), &reserve, |it| it.member >= 2);
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_size_that_is_not_accepted_finds_nobody() {
        let mut all = candidates(&[0, 0]);
        let limits = [
            Accepts {
                max_size: 10.0,
                ..Accepts::ALL
            },
            Accepts {
                min_size: 11.0,
                ..Accepts::ALL
            },
        ];
        keep_accepting(&mut all, None, |it| limits[it.member]);
        assert_eq!(all.len(), 2, "not known");
        keep_accepting(&mut all, Some(10.0), |it| limits[it.member]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].member, 0);
        keep_accepting(&mut all, Some(10.5), |it| limits[it.member]);
        assert!(all.is_empty());
    }
}
