//! An upstream with size limits gets the requests that it accepts.

use super::{Request, Rule, some_are_left};
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates that accept the request's size; all of them, if it is not
/// known.
pub(super) struct SizeLimits;

impl Rule for SizeLimits {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        candidates.retain(|place| {
            let member = request.member(*place);
            member.is_none_or(|member| member.accepts.accepts(request.size))
        });
        some_are_left(candidates, PassThrough::SizeNotAccepted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{candidates, left, topology};
    use super::*;

    #[test]
    fn a_size_that_is_not_accepted_finds_nobody() {
        let topology = topology(
            r#"{"upstreams": [{"cluster": "a", "accepts": {"max_size": 10}},
                {"cluster": "b", "accepts": {"min_size": 11}}]}"#,
        );
        let left = |size| {
            let all = candidates(&[0, 0]);
            left(&SizeLimits, &topology.members, size, &all)
        };
        assert_eq!(left(None), Ok(vec![0, 1]), "not known");
        assert_eq!(left(Some(10.0)), Ok(vec![0]));
        assert_eq!(left(Some(11.0)), Ok(vec![1]));
        assert_eq!(left(Some(10.5)), Err(PassThrough::SizeNotAccepted));
    }
}
