//! Values of a scenario's file within their limits, and what is said about the others.

use std::fmt;
use std::time::Duration;

use super::ScenarioError;

const MAX_SECONDS: f64 = 1e6;

pub(super) fn seconds_within(
    key: &str,
    seconds: Option<f64>,
    least: f64,
) -> Result<Option<Duration>, ScenarioError> {
    match seconds {
        Some(seconds) if !(least..=MAX_SECONDS).contains(&seconds) => Err(refused(
            key,
            seconds,
            format!("{least} to {MAX_SECONDS} seconds"),
        )),
        seconds => Ok(seconds.map(Duration::from_secs_f64)),
    }
}

pub(super) fn within(
    key: &str,
    count: usize,
    least: usize,
    most: usize,
) -> Result<(), ScenarioError> {
    if (least..=most).contains(&count) {
        Ok(())
    } else {
        Err(refused(key, count, format!("{least} to {most}")))
    }
}

pub(super) fn refused(
    key: &str,
    value: impl fmt::Display,
    allowed: impl fmt::Display,
) -> ScenarioError {
    ScenarioError::Inside(format!("{key}: {value} is not allowed: {allowed}"))
}
