//! What a decision comes to.

use super::pass_through::PassThrough;
use super::route::Route;
use crate::pool::PoolIndex;
use crate::rejection::Reason;

/// What is to happen to a request. Whoever asks handles all four.
#[derive(Debug, PartialEq)]
#[must_use = "a route that is dropped is never released"]
// Not `expect`: on 32 bits a route is small enough.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all decisions are routes, and a box would be an allocation for each request"
)]
pub enum Decision {
    /// It goes to an upstream, where it is counted.
    Route(Route),
    /// It waits until an upstream may take it.
    Hold(Hold),
    /// It is answered here, by an error.
    Reject(Reason),
    /// It is left to the proxy's own route.
    PassThrough(PassThrough),
}

impl Decision {
    /// The route, for those who can neither hold nor reject a request: they pass it
    /// through.
    ///
    /// # Errors
    /// Why the request is passed through.
    pub fn routed(self) -> Result<Route, PassThrough> {
        match self {
            Decision::Route(route) => Ok(route),
            Decision::Hold(_) => Err(PassThrough::NoRoom),
            Decision::Reject(Reason::TooLarge) => Err(PassThrough::TooLarge),
            Decision::Reject(_) => Err(PassThrough::Late),
            Decision::PassThrough(reason) => Err(reason),
        }
    }
}

/// A request that waits because no upstream of its pool may take it now. It is
/// counted nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The pool whose upstreams it waits for.
    pub pool: PoolIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_hold_or_reject_passes_through() {
        let hold = Decision::Hold(Hold { pool: PoolIndex(0) });
        let decisions = [
            (hold, PassThrough::NoRoom),
            (Decision::Reject(Reason::TooLarge), PassThrough::TooLarge),
            (Decision::Reject(Reason::Deadline), PassThrough::Late),
            (
                Decision::PassThrough(PassThrough::Drained),
                PassThrough::Drained,
            ),
        ];
        for (decision, reason) in decisions {
            assert_eq!(decision.routed(), Err(reason));
        }
    }
}
