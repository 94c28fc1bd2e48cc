//! How much of its load an upstream gets that is new, or has come back.
//!
//! Envoy's formula, `max(min_weight, (time / window) ^ (1 / aggression))`, with the
//! requests that the upstream has completed beside the time: a server whose requests take
//! a minute is not warm after half a minute of nothing.

use crate::config::SlowStart;

/// So many completed requests make an upstream warm, once the window is over.
pub const WARM_REQUESTS: u32 = 10;

/// The part of its weight that an upstream gets, `elapsed` seconds after it came, when it
/// has completed so many requests: above 0, and 1 when it is warm.
#[must_use]
pub fn warmth(slow_start: &SlowStart, elapsed: f64, completed: u32) -> f64 {
    let in_time = elapsed / slow_start.window.as_secs_f64();
    let in_requests = f64::from(completed) / f64::from(WARM_REQUESTS);
    let progress = in_time.min(in_requests);
    if progress >= 1.0 {
        return 1.0;
    }
    let progress = progress.max(0.0);
    let part = match slow_start.aggression {
        1.0 => progress,
        // A power, without the kilobytes that make `powf` exact to the last bit.
        aggression => (progress.ln() / aggression).exp(),
    };
    part.max(slow_start.min_weight_percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LINEAR: SlowStart = SlowStart {
        window: Duration::from_secs(60),
        aggression: 1.0,
        min_weight_percent: 10.0,
    };

    #[test]
    fn it_grows_with_time_as_envoys_does() {
        let warmth = |aggression, elapsed| {
            let slow_start = SlowStart {
                aggression,
                ..LINEAR
            };
            warmth(&slow_start, elapsed, 100)
        };
        assert_eq!(warmth(1.0, 0.0), 0.1);
        assert_eq!(warmth(1.0, 3.0), 0.1);
        assert_eq!(warmth(1.0, 30.0), 0.5);
        assert_eq!(warmth(1.0, 60.0), 1.0);
        assert_eq!(warmth(1.0, 1e9), 1.0);
        assert!((warmth(2.0, 30.0) - 0.5f64.sqrt()).abs() < 1e-9);
        assert!((warmth(0.5, 30.0) - 0.25).abs() < 1e-9);
        assert_eq!(warmth(2.0, 0.0), 0.1);
    }

    #[test]
    fn and_no_faster_than_with_the_requests_that_it_completes() {
        assert_eq!(warmth(&LINEAR, 1e9, 0), 0.1);
        assert_eq!(warmth(&LINEAR, 1e9, 5), 0.5);
        assert_eq!(warmth(&LINEAR, 30.0, WARM_REQUESTS), 0.5);
        assert_eq!(warmth(&LINEAR, 60.0, WARM_REQUESTS), 1.0);
        assert_eq!(warmth(&LINEAR, -1.0, 5), 0.1);
        assert_eq!(warmth(&LINEAR, f64::NAN, 5), 0.5);
    }
}
