//! What a pool's latencies are the time of, and for how long they count.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::json::Quoted;
use super::reader::Object;
use super::suggestion;

const SIGNALS: [&str; 2] = ["complete", "first_byte"];
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// How a pool measures latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyConfig {
    /// What policies take for a request's latency. Default: to its end.
    pub signal: LatencySignal,
    /// Measured quantiles are those of the last one to two windows: 1 second to
    /// 1 hour, default 1 minute.
    pub window: Duration,
}

/// What policies take for a request's latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatencySignal {
    /// The time to the end of the answer.
    #[default]
    Complete,
    /// The time to the first byte of a streamed answer. Answers that are not
    /// streamed say nothing.
    FirstByte,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self {
            signal: LatencySignal::default(),
            window: DEFAULT_WINDOW,
        }
    }
}

/// Reads `latency` of a pool.
pub(super) fn read(pool: &Object<'_>, problems: &mut Problems) -> LatencyConfig {
    let latency = pool.get("latency");
    let object =
        latency.and_then(|node| node.object("an object such as {\"window\": \"30s\"}", problems));
    let Some(object) = object else {
        return LatencyConfig::default();
    };
    object.allow_only(&["signal", "window"], problems);
    LatencyConfig {
        signal: read_signal(&object, problems).unwrap_or_default(),
        window: object
            .duration("window", WINDOWS, problems)
            .unwrap_or(DEFAULT_WINDOW),
    }
}

fn read_signal(latency: &Object<'_>, problems: &mut Problems) -> Option<LatencySignal> {
    let node = latency.get("signal")?;
    let text = node.text("\"complete\" or \"first_byte\"", problems)?;
    match text {
        "complete" => Some(LatencySignal::Complete),
        "first_byte" => Some(LatencySignal::FirstByte),
        _ => {
            let allowed = suggestion::allowed(text, &SIGNALS);
            problems.add(
                &node.path,
                &format_args!("{} is not a signal; {allowed}", Quoted(text)),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::super::reader::Node;
    use super::*;

    fn latency(json: &str) -> Result<LatencyConfig, String> {
        let json: Json = serde_json::from_str(&format!("{{\"latency\": {json}}}")).unwrap();
        let mut problems = Problems::default();
        let object = Node::root(&json)
            .object("an object", &mut problems)
            .unwrap();
        let latency = read(&object, &mut problems);
        match problems.is_empty() {
            true => Ok(latency),
            false => Err(problems.to_string()),
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let defaults = LatencyConfig {
            signal: LatencySignal::Complete,
            window: Duration::from_secs(60),
        };
        assert_eq!(latency("{}"), Ok(defaults));
        assert_eq!(LatencyConfig::default(), defaults);
    }

    #[test]
    fn both_keys_are_read() {
        assert_eq!(
            latency(r#"{"signal": "first_byte", "window": "10s"}"#),
            Ok(LatencyConfig {
                signal: LatencySignal::FirstByte,
                window: Duration::from_secs(10),
            })
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (json, said) in [
            (
                r#"{"signal": "first-byte"}"#,
                "latency.signal: \"first-byte\" is not a signal; \
                 did you mean first_byte? allowed: complete, first_byte",
            ),
            (
                r#"{"signal": 1}"#,
                "latency.signal: 1 is not allowed; give \"complete\" or \"first_byte\"",
            ),
            (
                r#"{"window": "100ms"}"#,
                "latency.window: \"100ms\" is not allowed; \
                 give a duration from \"1s\" to \"1h\", such as \"1.5s\"",
            ),
            (
                r#"{"windows": "10s"}"#,
                "latency.windows: unknown key; did you mean window? allowed: signal, window",
            ),
            (
                r#""complete""#,
                "latency: \"complete\" is not allowed; give an object such as {\"window\": \"30s\"}",
            ),
        ] {
            assert_eq!(latency(json).unwrap_err(), said);
        }
    }
}
