//! The built filter in a real Envoy, on the shipped configuration.
//!
//! The Envoy binary comes from `make setup`, the filter from `make build`; if
//! either is missing, the tests fail and say so. Every test starts an Envoy of
//! its own on ports that the system chooses, so all run in parallel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod gateway;
mod in_flight;
mod policies;
mod reload;
mod routing;
mod support;
mod vm_trap;
