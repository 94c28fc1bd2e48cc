//! Upstreams that are reserved for small requests.

use super::{Request, Rule};
use crate::config::Reserve;
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates that the request may use where some are reserved for
/// small ones.
///
/// A request that is not small borrows a reserved upstream that is idle, as long as
/// another of them is idle, too: a small one that comes next finds that. If all
/// candidates are reserved, none is: this rule always leaves one.
pub(super) struct Reserved {
    /// Which requests are small.
    pub(super) reserve: Reserve,
}

impl Rule for Reserved {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let is_reserved = |place: &Place| {
            let member = request.member(*place);
            member.is_some_and(|member| member.is_reserved)
        };
        if self.reserve.is_small(request.size) || candidates.iter().all(is_reserved) {
            return Ok(());
        }
        let is_idle = |place: &Place| {
            let candidate = request.members.get(*place);
            candidate.is_some_and(|it| it.outstanding.requests() == 0) && is_reserved(place)
        };
        let may_borrow = candidates.iter().filter(|it| is_idle(it)).count() >= 2;
        candidates.retain(|it| !is_reserved(it) || (may_borrow && is_idle(it)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{self, Member, candidates, topology};
    use super::*;

    const RULE: Reserved = Reserved {
        reserve: Reserve {
            share: 0.5,
            max_size: 10.0,
        },
    };

    /// Who may take it, where members 2 and up are reserved for sizes up to 10.
    fn left(candidates: &[Member], size: Option<f64>) -> Vec<usize> {
        let mut topology = topology(
            r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}, {"cluster": "c"},
                {"cluster": "d"}, {"cluster": "e"}]}"#,
        );
        for member in &mut topology.members[2..] {
            member.is_reserved = true;
        }
        test_support::left(&RULE, &topology.members, size, candidates).unwrap()
    }

    #[test]
    fn small_requests_may_go_anywhere() {
        let all = candidates(&[1, 1, 1, 1]);
        assert_eq!(left(&all, Some(10.0)), [0, 1, 2, 3]);
    }

    #[test]
    fn others_borrow_what_is_idle_but_never_the_last_idle_one() {
        for size in [Some(11.0), None] {
            let left = |in_flight: &[u64]| left(&candidates(in_flight), size);
            assert_eq!(left(&[1, 1, 0, 0]), [0, 1, 2, 3]);
            assert_eq!(left(&[1, 1, 0, 1]), [0, 1]);
            assert_eq!(left(&[9, 9, 1, 1]), [0, 1]);
            assert_eq!(left(&[1, 1, 0, 3, 0]), [0, 1, 2, 4]);
        }
    }

    #[test]
    fn a_reserve_denies_nobody() {
        let mut topology = topology(r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#);
        for member in &mut topology.members {
            member.is_reserved = true;
        }
        let left = test_support::left(&RULE, &topology.members, None, &candidates(&[5, 5]));
        assert_eq!(left, Ok(vec![0, 1]));
    }
}
