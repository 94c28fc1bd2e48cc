//! A project of containers, and load on it.

pub(crate) mod load;
pub(crate) mod stack;
#[path = "../../envoy/support/wait.rs"]
mod wait;

pub(crate) use wait::{SOON, eventually};
