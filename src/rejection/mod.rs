//! Requests that are answered here, by an error: why, and in which words.
//!
//! The status says whose fault it is: 429 the caller's, which asks for more than its
//! share; 413 the request's, which fits nowhere; 503 nobody's, there is no capacity. A
//! gRPC request gets the gRPC status that means the same to its retry policy.

mod answer;
mod retry_after;

pub use answer::{Answer, REASON_HEADER, is_grpc};
pub use retry_after::{DrainRate, retry_after};

use crate::hold::Cause;

/// Why a request is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As many requests wait as may.
    QueueFull,
    /// As many requests wait as may, and the tenant has more than its share of them.
    TenantShare,
    /// The queue fills, and other requests are more important.
    LowPriority,
    /// It has waited as long as it may.
    MaxWait,
    /// It cannot be expected to be done in time.
    Deadline,
    /// It needs more than any upstream ever has.
    TooLarge,
}

impl Reason {
    /// All reasons, in the order of [`Reason::index`].
    pub const ALL: [Reason; 6] = [
        Reason::QueueFull,
        Reason::TenantShare,
        Reason::LowPriority,
        Reason::MaxWait,
        Reason::Deadline,
        Reason::TooLarge,
    ];

    /// The reason's place in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the reason in metrics, headers and bodies.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::QueueFull => "queue_full",
            Reason::TenantShare => "tenant_share",
            Reason::LowPriority => "low_priority",
            Reason::MaxWait => "max_wait",
            Reason::Deadline => "deadline",
            Reason::TooLarge => "too_large",
        }
    }

    /// The reason in a sentence, for people.
    const fn message(self) -> &'static str {
        match self {
            Reason::QueueFull => "No upstream has room, and too many requests wait already.",
            Reason::TenantShare => {
                "No upstream has room, and too many requests of yours wait already."
            }
            Reason::LowPriority => "Upstreams are busy, and more important requests wait.",
            Reason::MaxWait => "No upstream had room in time.",
            Reason::Deadline => {
                "No upstream can be expected to answer in the time that the request allows."
            }
            Reason::TooLarge => "The request needs more than any upstream has.",
        }
    }

    /// The HTTP status: 413, 429 or 503.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Reason::TenantShare => 429,
            Reason::TooLarge => 413,
            _ => 503,
        }
    }

    /// The gRPC status: 8, `RESOURCE_EXHAUSTED`, where to try again at once does not
    /// help, or 14, `UNAVAILABLE`, where it may.
    #[must_use]
    pub const fn grpc_status(self) -> u32 {
        match self {
            Reason::TenantShare | Reason::TooLarge => 8,
            _ => 14,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        !matches!(self, Reason::TooLarge)
    }
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Full => Reason::QueueFull,
            Cause::Share => Reason::TenantShare,
            Cause::Early => Reason::LowPriority,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_their_index() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }

    #[test]
    fn the_status_says_whose_fault_it_is() {
        let statuses = Reason::ALL.map(|it| (it.status(), it.grpc_status()));
        let none = (503, 14);
        assert_eq!(statuses, [none, (429, 8), none, none, none, (413, 8)]);
    }
}
