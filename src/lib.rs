//! Paceline: a load balancer for model serving, as a proxy-wasm filter.
//!
//! A request's way through the modules: [`request`] reads the facts, [`pool`]
//! and [`config`] say what can be chosen, [`decision`] picks with a [`policy`]
//! on the shared [`state`] and what the [`estimate`]s learned, [`outcome`]
//! tells how the request ended, and [`exchange`] strings these together for one
//! request, [`worker`] for one worker, [`waiting`] holds requests until their
//! bodies have come. All of them are pure: the proxy is
//! behind the traits of [`host`]. `filter` binds them to proxy-wasm.

pub mod config;
pub mod decision;
pub mod discovery;
pub mod estimate;
pub mod exchange;
pub mod host;
pub mod metrics;
pub mod outcome;
pub mod policy;
pub mod pool;
pub mod random;
pub mod request;
pub mod state;
pub mod time;
pub mod waiting;
pub mod worker;

#[cfg(target_arch = "wasm32")]
mod filter;
