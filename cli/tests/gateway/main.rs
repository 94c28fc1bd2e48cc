//! What `paceline` writes, in a real Envoy, in front of emulated servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod changes;
mod run;
mod support;
mod tls;
mod written;
