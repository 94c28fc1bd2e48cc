//! What the end of a probe says.

use crate::config::HealthCheck;
use crate::host::{Calls, HostError, attributes};

/// The most of a body that is read. A larger one is no answer to a health check.
pub const MAX_BODY: usize = 64 * 1024;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream is ready.
    Success,
    /// It answered with a status that is not expected: it loads, say, or redirects.
    Status,
    /// It answered with an expected status, and its body does not say what it must.
    Body,
    /// Its answer is larger than 64 KiB, and the check needs its body.
    BodyTooLarge,
    /// It did not answer in time.
    Timeout,
    /// The proxy had no connection to it, or lost it.
    Unreachable,
    /// The proxy has no such cluster.
    NoCluster,
    /// The proxy refused the call for another reason.
    Refused,
}

impl Verdict {
    /// All of them, in the order of [`Verdict::index`].
    pub const ALL: [Verdict; 8] = [
        Verdict::Success,
        Verdict::Status,
        Verdict::Body,
        Verdict::BodyTooLarge,
        Verdict::Timeout,
        Verdict::Unreachable,
        Verdict::NoCluster,
        Verdict::Refused,
    ];

    /// Its place in [`Verdict::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Verdict::Success => "success",
            Verdict::Status => "status",
            Verdict::Body => "body",
            Verdict::BodyTooLarge => "body_too_large",
            Verdict::Timeout => "timeout",
            Verdict::Unreachable => "unreachable",
            Verdict::NoCluster => "no_cluster",
            Verdict::Refused => "refused",
        }
    }

    /// What a call says that the proxy did not take.
    #[must_use]
    pub fn of_refusal(error: HostError) -> Self {
        match error.0 {
            // A bad argument; the others are right.
            2 => Verdict::NoCluster,
            // The proxy had its answer at once: no host, no connection allowed.
            10 => Verdict::Unreachable,
            _ => Verdict::Refused,
        }
    }

    /// What the answer to a probe says that `host` is at; it has a body of so many
    /// bytes.
    pub fn of_answer(check: &HealthCheck, host: &mut impl Calls, body_size: usize) -> Self {
        let status = host.call_header(":status").unwrap_or(None);
        let status = status.and_then(|status| str::from_utf8(&status).ok()?.parse::<u16>().ok());
        let Some(status) = status else {
            return Verdict::Unreachable;
        };
        if !check.expected_statuses.contains(&status) {
            // An upstream's own answer has a header that the proxy adds.
            let of_upstream = host.call_header(attributes::SERVICE_TIME_HEADER);
            let of_upstream = of_upstream.unwrap_or(None).is_some();
            return match status {
                504 if !of_upstream => Verdict::Timeout,
                503 if !of_upstream => Verdict::Unreachable,
                _ => Verdict::Status,
            };
        }
        let Some(body_check) = &check.body else {
            return Verdict::Success;
        };
        if body_size > MAX_BODY {
            return Verdict::BodyTooLarge;
        }
        let body = host.call_body(MAX_BODY).unwrap_or(None);
        match body_check.holds(&body.unwrap_or_default()) {
            true => Verdict::Success,
            false => Verdict::Body,
        }
    }
}
