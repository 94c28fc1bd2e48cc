//! An upstream that is not ready gets nothing.

use super::{Request, Rule};
use crate::decision::pass_through::PassThrough;
use crate::policy::Place;

/// Leaves the candidates that are ready, by their pool's health check.
///
/// If none is, all are left: the check may be wrong, or nothing may be known yet, and
/// without the filter the proxy would use them all, too. So this rule always leaves one.
pub(super) struct Ready;

impl Rule for Ready {
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough> {
        let Some(health) = request.health else {
            return Ok(());
        };
        let is_ready = |place: &Place| {
            let candidate = request.members.get(*place);
            candidate.is_some_and(|it| health.of(it.standing.member).is_ready)
        };
        if candidates.iter().any(is_ready) {
            candidates.retain(is_ready);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{candidates, left_by, topology};
    use super::*;
    use crate::config::Config;
    use crate::health::{Prober, View};
    use crate::host::Host as _;
    use crate::host::fake::Fake;

    /// Who may take a request of this size, where upstreams answer probes so.
    fn left(json: &str, statuses: &[u16], size: f64) -> Result<Vec<usize>, PassThrough> {
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        let topology = topology(json);
        let host = &mut Fake::new();
        let now = host.now().unwrap();
        let mut prober = Prober::new(&config, &topology, "key", 1).unwrap();
        prober.tick(host, now).unwrap();
        let calls: Vec<_> = host.calls().map(|(id, _)| id).collect();
        for (call, status) in calls.into_iter().zip(statuses) {
            host.answer(*status, b"");
            prober.hear(host, call, true, 0, now).unwrap();
        }
        let mut health = View::new(&config, &topology, "key").unwrap();
        health.read(host, now).unwrap();
        let rules = super::super::rules(
            &topology.pools[0],
            &topology.members,
            super::super::Needs::default(),
        );
        let members = candidates(&[0; 3]);
        left_by(
            &topology.members,
            Some(size),
            &members,
            |request, places| {
                let health = Some(&health);
                super::super::apply(&rules, &Request { health, ..*request }, places)
            },
        )
    }

    const THREE: &str = r#"{"upstreams": [{"cluster": "a", "accepts": {"max_size": 9}},
        {"cluster": "b"}, {"cluster": "c"}], "health_check": "vllm"}"#;

    #[test]
    fn those_that_are_ready_are_left() {
        assert_eq!(left(THREE, &[200, 503, 200], 1.0), Ok(vec![0, 2]));
        assert_eq!(left(THREE, &[200, 200, 200], 1.0), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn where_none_is_ready_that_may_take_the_request_all_that_may_are_left() {
        assert_eq!(left(THREE, &[503, 503, 503], 1.0), Ok(vec![0, 1, 2]));
        assert_eq!(left(THREE, &[], 1.0), Ok(vec![0, 1, 2]), "nothing is known");
        assert_eq!(left(THREE, &[200, 503, 503], 99.0), Ok(vec![1, 2]));
    }
}
