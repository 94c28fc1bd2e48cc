//! The built filter, `paceline.wasm`, in a host that follows Envoy's and can be
//! made to fail at any call. Run `make build` first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod admission;
mod adopted;
mod bodies;
mod capacity;
mod capacity_faults;
mod contention;
mod contract;
mod corruption;
mod cost;
mod devices;
mod draining;
mod endpoints;
mod faults;
mod fleet;
mod health;
mod host;
mod input;
mod interleaved;
mod interleaving;
mod learning;
mod lease;
mod limited;
mod limits;
mod observe;
mod order;
mod outcomes;
mod outliers;
mod schedule;
mod served;
mod status;
mod uploads;
mod workers;
