//! An upstream of weight 0 finishes what it has, and gets nothing more.

use super::{Request, Rule, some_are_left};
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates whose weight is not 0.
pub(super) struct Draining;

impl Rule for Draining {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let has_weight = |place: &Place| {
            let candidate = request.members.get(*place);
            candidate.is_some_and(|it| it.standing.weight > 0.0)
        };
        candidates.retain(has_weight);
        some_are_left(candidates, PassThrough::Drained)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{candidates, left};
    use super::*;

    #[test]
    fn an_upstream_of_weight_zero_gets_nothing() {
        let mut all = candidates(&[0, 0]);
        all[0].weight = 0.0;
        assert_eq!(left(&Draining, &[], None, &all), Ok(vec![1]));
        all[1].weight = 0.0;
        assert_eq!(left(&Draining, &[], None, &all), Err(PassThrough::Drained));
    }
}
