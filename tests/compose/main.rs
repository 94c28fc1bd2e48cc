//! `envoy/docker-compose.yaml` as users start it, and what only containers can
//! show: a server that is killed, frozen, cut off, scaled.
//!
//! `make compose-test` runs these, after the suite of `tests/envoy` against
//! containers; alone they run with `cargo test --test compose`, given an engine,
//! compose, and what `make build` makes. Every test has a project of its own on
//! ports that the system chooses, and mostly waits, so all run in parallel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

mod cleanup;
mod demonstration;
mod faults;
mod health;
mod observability;
mod scaling;
mod status;
mod support;
