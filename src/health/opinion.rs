//! From the results of probes to whether a target is ready.

use crate::config::HealthCheck;
use crate::state::health_record::Readiness;

/// Whether a target is ready, and what has lately spoken against that.
///
/// The first result of all decides at once. From then on it takes so many results in
/// a row as the check's thresholds say to change anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Whether it is ready.
    pub readiness: Readiness,
    /// Results in a row that say otherwise.
    pub streak: u8,
}

impl Opinion {
    /// A probe has ended, well or not. Returns whether the target has become ready,
    /// or has ceased to be, by that.
    pub fn hear(&mut self, is_good: bool, check: &HealthCheck) -> bool {
        let (says, threshold) = match is_good {
            true => (Readiness::Ready, check.healthy_threshold),
            false => (Readiness::NotReady, check.unhealthy_threshold),
        };
        if self.readiness == says {
            self.streak = 0;
            return false;
        }
        self.streak = self.streak.saturating_add(1);
        let changes = self.readiness == Readiness::Unknown || u32::from(self.streak) >= threshold;
        if changes {
            *self = Opinion {
                readiness: says,
                streak: 0,
            };
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn check(healthy: u32, unhealthy: u32) -> HealthCheck {
        let json = format!(
            r#"{{"upstreams": [{{"cluster": "a"}}], "health_check": {{"path": "/h",
                "healthy_threshold": {healthy}, "unhealthy_threshold": {unhealthy}}}}}"#
        );
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        config.pools[0].health_check.clone().unwrap()
    }

    /// What it is after each of these results.
    fn after(check: &HealthCheck, results: &[bool]) -> String {
        let mut opinion = Opinion::default();
        let letters = results.iter().map(|result| {
            opinion.hear(*result, check);
            match opinion.readiness {
                Readiness::Unknown => '?',
                Readiness::Ready => 'r',
                Readiness::NotReady => 'n',
            }
        });
        letters.collect()
    }

    #[test]
    fn the_first_result_decides_and_then_the_thresholds_do() {
        let (good, bad) = (true, false);
        let check = check(2, 3);
        assert_eq!(after(&check, &[good]), "r");
        assert_eq!(after(&check, &[bad, good, good]), "nnr");
        assert_eq!(after(&check, &[good, bad, bad, bad]), "rrrn");
        // What agrees in between starts the count again.
        assert_eq!(
            after(&check, &[good, bad, bad, good, bad, bad, bad]),
            "rrrrrrn"
        );
        assert_eq!(after(&check, &[bad, good, bad, good, good]), "nnnnr");
    }

    proptest! {
        #[test]
        fn it_changes_exactly_where_the_last_results_agree_long_enough(
            healthy in 1u32..=100, unhealthy in 1u32..=100,
            results in prop::collection::vec(prop::bool::weighted(0.5), 1..400),
            runs in prop::collection::vec((any::<bool>(), 1usize..120), 1..8),
        ) {
            let check = check(healthy, unhealthy);
            let runs = runs.iter().flat_map(|(result, times)| std::iter::repeat_n(*result, *times));
            let results: Vec<bool> = results.into_iter().chain(runs).collect();
            let mut opinion = Opinion::default();
            // The definition, without a counter.
            let mut expected = results[0];
            for end in 1..=results.len() {
                let changed = opinion.hear(results[end - 1], &check);
                let threshold = if expected { unhealthy } else { healthy } as usize;
                let against = results[..end].iter().rev().take_while(|it| **it != expected).count();
                let changes = end > 1 && against >= threshold;
                expected ^= changes;
                prop_assert_eq!(changed, changes || end == 1);
                let readiness = if expected { Readiness::Ready } else { Readiness::NotReady };
                prop_assert_eq!(opinion.readiness, readiness);
            }
        }
    }
}
