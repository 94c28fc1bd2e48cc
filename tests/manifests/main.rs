//! The manifests in `istio/`: against the models of Istio and Kubernetes, and
//! with traffic through a real Envoy that is configured as Istio would from them.
//!
//! Needs what `make setup` and `make build` provide, and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod documents;
mod envoy;
mod failure;
mod istio;
mod model;
mod models;
mod patch;
mod reload;
mod server;
mod status;
mod traffic;
#[path = "../envoy/support/trap.rs"]
#[allow(dead_code, reason = "the Envoy tests use more of it")]
mod trap;
