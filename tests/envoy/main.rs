//! The built filter in a real Envoy, on the shipped configuration.
//!
//! The Envoy binary comes from `make setup`, the filter from `make build`; if
//! either is missing, the tests fail and say so. Every test starts an Envoy of
//! its own on ports that the system chooses, so all run in parallel.
//!
//! With `PACELINE_HARNESS=containers` the same tests put each Envoy into a
//! container, of the image that `ENVOY_IMAGE` names, on a network made for them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod bodies;
mod capacity;
mod churn;
mod configuration;
mod devices;
mod dynamic;
mod endings;
mod endpoints;
mod gateway;
mod health;
mod in_flight;
mod latencies;
mod metrics;
mod missing_cluster;
mod models;
mod observability;
mod observe;
mod outliers;
mod page;
mod policies;
mod prober;
mod refusals;
mod reload;
mod retries;
mod routing;
mod served;
mod shipped;
mod sizes;
mod soak;
mod status;
mod support;
mod vm_trap;
