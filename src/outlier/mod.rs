//! Upstreams that fall out of line: which are ejected from their pool and for how
//! long, which are only full, and how the load of those that come back grows.
//!
//! Pure state and arithmetic, as in [`crate::estimate`]: time is always an argument.
//! What is known of one upstream is its [`Health`], a part of its row in what all
//! workers have learned; so all of them agree. Whoever compares upstreams with each
//! other, and keeps within the limits of a pool, is [`crate::decision`].

mod failures;
mod fullness;
mod health;
mod moment;
mod slowness;
#[cfg(test)]
mod tests;
mod warming;

pub use failures::{Failures, Record};
pub use fullness::Fullness;
pub use health::{Ended, Event, Health, Phase, Reason};
pub use moment::Moment;
pub use slowness::{Slowness, Typical};
pub use warming::{WARM_REQUESTS, warmth};
