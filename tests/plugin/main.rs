//! The built filter, `paceline.wasm`, in a host that follows Envoy's and can be
//! made to fail at any call. Run `make build` first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod bodies;
mod contention;
mod contract;
mod corruption;
mod cost;
mod endpoints;
mod faults;
mod fleet;
mod host;
mod input;
mod learning;
mod lease;
mod order;
mod outcomes;
mod schedule;
mod workers;
