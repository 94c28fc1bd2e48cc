//! How long, and for how much, a request waits for its body.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::reader::Node;

const MAX_BYTES: RangeInclusive<u32> = 1024..=64 * 1024 * 1024;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);

/// The bounds of a wait for a body that has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The largest body that is waited for: 1 KiB to 64 MiB, default 1000000
    /// bytes, a little less than what Envoy buffers unless told otherwise.
    pub max_bytes: u32,
    /// How long it may take to come: 100 ms to 5 minutes, default 5 seconds.
    pub timeout: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max_bytes: 1_000_000,
            timeout: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<BodyLimits> {
    let object = node.object("an object with max_bytes or timeout", problems)?;
    object.allow_only(&["max_bytes", "timeout"], problems);
    let defaults = BodyLimits::default();
    Some(BodyLimits {
        max_bytes: object
            .whole("max_bytes", MAX_BYTES, problems)
            .unwrap_or(defaults.max_bytes),
        timeout: object
            .duration("timeout", TIMEOUTS, problems)
            .unwrap_or(defaults.timeout),
    })
}
