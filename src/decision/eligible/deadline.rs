//! A request with a deadline goes where it can be done in time.

use super::{Request, Rule, some_are_left};
use crate::config::DeadlineMode;
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates that can be expected to serve the request in time, if it has a
/// deadline: all of them where none can and deadlines are only preferred.
pub(super) struct InTime {
    /// What a deadline does.
    pub(super) mode: DeadlineMode,
}

impl Rule for InTime {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let Some(time) = &request.time else {
            return Ok(());
        };
        // Of an upstream about which nothing is known, nothing is said.
        let is_in_time = |place: &Place| {
            let expected = time.expected.get(place.0);
            expected.is_none_or(|expected| *expected <= time.left)
        };
        if self.mode == DeadlineMode::Prefer && !candidates.iter().any(is_in_time) {
            return Ok(());
        }
        candidates.retain(is_in_time);
        some_are_left(candidates, PassThrough::Late)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TimeLeft;
    use super::super::test_support::{candidates, left_by, topology};
    use super::*;

    /// Who may take a request that has so many seconds left, if it has a deadline, where
    /// these seconds are expected of the members.
    fn left(mode: DeadlineMode, left: Option<f64>) -> Result<Vec<usize>, PassThrough> {
        let topology = topology(r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#);
        let (expected, all) = ([2.0, 4.0], candidates(&[0, 0]));
        left_by(&topology.members, None, &all, |request, places| {
            let time = left.map(|left| TimeLeft {
                left,
                expected: &expected,
            });
            InTime { mode }.apply(&Request { time, ..*request }, places)
        })
    }

    #[test]
    fn who_can_serve_it_in_time_may() {
        for mode in [DeadlineMode::Enforce, DeadlineMode::Prefer] {
            assert_eq!(left(mode, None), Ok(vec![0, 1]));
            assert_eq!(left(mode, Some(4.0)), Ok(vec![0, 1]));
            assert_eq!(left(mode, Some(3.9)), Ok(vec![0]));
        }
        let none = |mode| left(mode, Some(1.9));
        assert_eq!(none(DeadlineMode::Enforce), Err(PassThrough::Late));
        assert_eq!(none(DeadlineMode::Prefer), Ok(vec![0, 1]));
    }
}
