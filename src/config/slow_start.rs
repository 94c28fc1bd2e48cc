//! How the load of a new upstream grows.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::reader::Object;

const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
const AGGRESSIONS: RangeInclusive<f64> = 0.1..=10.0;
const PERCENTAGES: RangeInclusive<f64> = 1.0..=100.0;

/// How the load of an upstream grows that is new, came back or was ejected. The names
/// and the formula are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it takes at least: 1 second to 1 hour, default 30 seconds.
    pub window: Duration,
    /// 1 is linear; more raises the weight sooner: 0.1 to 10, default 1.
    pub aggression: f64,
    /// The part of its weight that an upstream begins with, in percent: 1 to 100,
    /// default 10.
    pub min_weight_percent: f64,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            aggression: 1.0,
            min_weight_percent: 10.0,
        }
    }
}

/// Reads `slow_start` of a pool; without it there is none.
pub(super) fn read(pool: &Object<'_>, problems: &mut Problems) -> Option<SlowStart> {
    let node = pool.get("slow_start")?;
    let object = node.object("an object such as {\"window\": \"30s\"}", problems)?;
    object.allow_only(&["window", "aggression", "min_weight_percent"], problems);
    let defaults = SlowStart::default();
    Some(SlowStart {
        window: object
            .duration("window", WINDOWS, problems)
            .unwrap_or(defaults.window),
        aggression: object
            .real("aggression", AGGRESSIONS, problems)
            .unwrap_or(defaults.aggression),
        min_weight_percent: object
            .real("min_weight_percent", PERCENTAGES, problems)
            .unwrap_or(defaults.min_weight_percent),
    })
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::super::reader::Node;
    use super::*;

    fn slow_start(json: &str) -> Result<Option<SlowStart>, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let object = Node::root(&json)
            .object("an object", &mut problems)
            .unwrap();
        let slow_start = read(&object, &mut problems);
        match problems.is_empty() {
            true => Ok(slow_start),
            false => Err(problems.to_string()),
        }
    }

    #[test]
    fn it_is_off_unless_configured_and_every_key_is_optional() {
        assert_eq!(slow_start("{}"), Ok(None));
        let defaults = Some(SlowStart::default());
        assert_eq!(slow_start(r#"{"slow_start": {}}"#), Ok(defaults));
        let given = r#"{"slow_start":
            {"window": "2m", "aggression": 1.5, "min_weight_percent": 5}}"#;
        let expected = SlowStart {
            window: Duration::from_secs(120),
            aggression: 1.5,
            min_weight_percent: 5.0,
        };
        assert_eq!(slow_start(given), Ok(Some(expected)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (json, said) in [
            (
                r#"{"slow_start": "30s"}"#,
                "slow_start: \"30s\" is not allowed; give an object such as {\"window\": \"30s\"}",
            ),
            (
                r#"{"slow_start": {"window": "0s"}}"#,
                "slow_start.window: \"0s\" is not allowed; \
                 give a duration from \"1s\" to \"1h\", such as \"1.5s\"",
            ),
            (
                r#"{"slow_start": {"slow_start_window": "30s"}}"#,
                "slow_start.slow_start_window: unknown key; \
                 allowed: window, aggression, min_weight_percent",
            ),
            (
                r#"{"slow_start": {"min_weight_percent": 0}}"#,
                "slow_start.min_weight_percent: 0 is not allowed; \
                 give a number from 1.0 to 100.0",
            ),
        ] {
            assert_eq!(slow_start(json).unwrap_err(), said);
        }
    }
}
