//! When an upstream is ejected, and for how long.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::duration::Shown;
use super::error::Problems;
use super::json::Json;
use super::reader::{Node, Object};

const FAILURES: RangeInclusive<u32> = 0..=100;
const RATES: RangeInclusive<u32> = 0..=100;
const PERCENTAGES: RangeInclusive<u32> = 1..=100;
const TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
const FACTORS: RangeInclusive<f64> = 1.5..=20.0;

const ALLOWED: &str = "\"off\", or an object such as {\"consecutive_failures\": 5}";

/// When an upstream is ejected from its pool, and for how long. The names are Envoy's
/// where Envoy has the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierDetection {
    /// Failures in a row that eject: 1 to 100, default 5; 0 switches this signal off.
    pub consecutive_failures: u32,
    /// The failure rate, in percent, that ejects an upstream if it certainly has it:
    /// 1 to 100, default 50; 0 switches this signal off. It goes for failures, and for
    /// refusals (4xx) beyond those of the pool's other upstreams.
    pub failure_rate_percent: u32,
    /// How long the first ejection lasts: 1 second to 1 hour, default 10 seconds.
    pub base_ejection_time: Duration,
    /// How long an ejection lasts at most, at least `base_ejection_time`: default
    /// 5 minutes.
    pub max_ejection_time: Duration,
    /// The part of the pool's upstreams that may be ejected at the same time, in
    /// percent: 1 to 100, default 50.
    pub max_ejection_percent: u32,
    /// An upstream that takes so many times as long as it usually does, compared with
    /// the pool, is ejected: 1.5 to 20, default 5; 0 switches this signal off.
    pub latency_factor: f64,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_rate_percent: 50,
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(5 * 60),
            max_ejection_percent: 50,
            latency_factor: 5.0,
        }
    }
}

impl OutlierDetection {
    /// How many of a pool's upstreams may be ejected at once, if it has so many: at least
    /// one, and never the last one.
    #[must_use]
    pub fn most_out(&self, upstreams: usize) -> usize {
        let share = upstreams.saturating_mul(self.max_ejection_percent as usize) / 100;
        share.max(1).min(upstreams.saturating_sub(1))
    }
}

/// Reads `outlier_detection` of a pool; `None` is off.
pub(super) fn read(pool: &Object<'_>, problems: &mut Problems) -> Option<OutlierDetection> {
    let defaults = OutlierDetection::default();
    let Some(node) = pool.get("outlier_detection") else {
        return Some(defaults);
    };
    if let Json::String(text) = node.json
        && text == "off"
    {
        return None;
    }
    let Some(object) = node.object(ALLOWED, problems) else {
        return Some(defaults);
    };
    let keys = [
        "consecutive_failures",
        "failure_rate_percent",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_percent",
        "latency_factor",
    ];
    object.allow_only(&keys, problems);
    let whole = |key, range, default, problems: &mut Problems| {
        let node = object.get(key);
        let given = node.and_then(|node| node.whole(range, problems));
        given.unwrap_or(default)
    };
    let [base_ejection_time, max_ejection_time] = read_times(&object, problems);
    let detection = OutlierDetection {
        consecutive_failures: whole(
            "consecutive_failures",
            FAILURES,
            defaults.consecutive_failures,
            problems,
        ),
        failure_rate_percent: whole(
            "failure_rate_percent",
            RATES,
            defaults.failure_rate_percent,
            problems,
        ),
        base_ejection_time,
        max_ejection_time,
        max_ejection_percent: whole(
            "max_ejection_percent",
            PERCENTAGES,
            defaults.max_ejection_percent,
            problems,
        ),
        latency_factor: object
            .get("latency_factor")
            .and_then(|node| read_factor(node, problems))
            .unwrap_or(defaults.latency_factor),
    };
    if detection.consecutive_failures == 0
        && detection.failure_rate_percent == 0
        && detection.latency_factor == 0.0
    {
        problems.add(
            &node.path,
            &"ejects nothing with all signals 0; give \"off\"",
        );
    }
    Some(detection)
}

/// The first and the longest ejection.
fn read_times(object: &Object<'_>, problems: &mut Problems) -> [Duration; 2] {
    let defaults = OutlierDetection::default();
    let base = object
        .duration("base_ejection_time", TIMES, problems)
        .unwrap_or(defaults.base_ejection_time);
    let longest = object.get("max_ejection_time");
    let most = longest
        .and_then(|node| node.duration(TIMES, problems))
        // As in Envoy, a long first ejection raises the limit that nobody has set.
        .unwrap_or(defaults.max_ejection_time.max(base));
    if let Some(node) = longest
        && most < base
    {
        let (json, base) = (node.json, Shown(base));
        problems.add(
            &node.path,
            &format_args!("{json} is less than base_ejection_time, which is \"{base}\""),
        );
    }
    [base, most]
}

fn read_factor(node: Node<'_>, problems: &mut Problems) -> Option<f64> {
    if let Json::Number(number) = node.json
        && number.as_f64() == Some(0.0)
    {
        return Some(0.0);
    }
    node.real(FACTORS, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(json: &str) -> Result<Option<OutlierDetection>, String> {
        let json = format!("{{\"outlier_detection\": {json}}}");
        let json: Json = serde_json::from_str(&json).unwrap();
        let mut problems = Problems::default();
        let object = Node::root(&json)
            .object("an object", &mut problems)
            .unwrap();
        let detection = read(&object, &mut problems);
        match problems.is_empty() {
            true => Ok(detection),
            false => Err(problems.to_string()),
        }
    }

    #[test]
    fn it_is_on_by_default_and_can_be_switched_off() {
        let nothing: Json = serde_json::from_str("{}").unwrap();
        let mut problems = Problems::default();
        let pool = Node::root(&nothing).object("", &mut problems).unwrap();
        let defaults = Some(OutlierDetection::default());
        assert_eq!(read(&pool, &mut problems), defaults);
        assert_eq!(detection("{}"), Ok(defaults));
        assert_eq!(detection("\"off\""), Ok(None));
    }

    #[test]
    fn one_may_always_be_ejected_and_never_the_last() {
        let most_out = |percent, upstreams| {
            let detection = OutlierDetection {
                max_ejection_percent: percent,
                ..OutlierDetection::default()
            };
            detection.most_out(upstreams)
        };
        assert_eq!(
            [0, 1, 2, 3, 4, 8].map(|it| most_out(50, it)),
            [0, 0, 1, 1, 2, 4]
        );
        assert_eq!([1, 2, 100].map(|it| most_out(10, it)), [0, 1, 10]);
        assert_eq!([1, 2, 100].map(|it| most_out(100, it)), [0, 1, 99]);
    }

    #[test]
    fn every_key_is_read() {
        let given = r#"{"consecutive_failures": 3, "failure_rate_percent": 0,
            "base_ejection_time": "10s", "max_ejection_time": "1m",
            "max_ejection_percent": 100, "latency_factor": 0}"#;
        let expected = OutlierDetection {
            consecutive_failures: 3,
            failure_rate_percent: 0,
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 100,
            latency_factor: 0.0,
        };
        assert_eq!(detection(given), Ok(Some(expected)));
        let long = detection(r#"{"base_ejection_time": "10m"}"#).unwrap();
        let longest = long.map(|it| it.max_ejection_time.as_secs());
        assert_eq!(longest, Some(600));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (json, said) in [
            (
                "\"on\"",
                "outlier_detection: \"on\" is not allowed; give \"off\", or an object such as \
                 {\"consecutive_failures\": 5}",
            ),
            (
                "false",
                "outlier_detection: false is not allowed; give \"off\", or an object such as \
                 {\"consecutive_failures\": 5}",
            ),
            (
                r#"{"consecutive_5xx": 3}"#,
                "outlier_detection.consecutive_5xx: unknown key; allowed: consecutive_failures, \
                 failure_rate_percent, base_ejection_time, max_ejection_time, \
                 max_ejection_percent, latency_factor",
            ),
            (
                r#"{"max_ejection_percent": 0}"#,
                "outlier_detection.max_ejection_percent: 0 is not allowed; \
                 give a whole number from 1 to 100",
            ),
            (
                r#"{"latency_factor": 1}"#,
                "outlier_detection.latency_factor: 1 is not allowed; \
                 give a number from 1.5 to 20.0",
            ),
            (
                r#"{"base_ejection_time": "2m", "max_ejection_time": "1m"}"#,
                "outlier_detection.max_ejection_time: \"1m\" is less than base_ejection_time, \
                 which is \"2m\"",
            ),
            (
                r#"{"consecutive_failures": 0, "failure_rate_percent": 0, "latency_factor": 0}"#,
                "outlier_detection: ejects nothing with all signals 0; give \"off\"",
            ),
        ] {
            assert_eq!(detection(json).unwrap_err(), said);
        }
    }
}
