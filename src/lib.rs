//! Paceline: a load balancer for model serving, as a proxy-wasm filter.
//!
//! A request's way through the modules: [`request`] reads its facts. [`config`]
//! and [`pool`] define what can be chosen, and [`health`] what is ready. [`decision`] picks by a [`policy`],
//! from the shared [`state`] and the [`estimate`]s. [`serving`] finds out who
//! answers, and [`outcome`] how the request ended. [`exchange`] does all this for
//! one request; [`worker`] has what the requests of one worker share, and
//! [`waiting`] holds requests until their bodies have come. All of these modules
//! are pure: they reach the proxy through the traits of [`host`]. `filter` binds
//! them to proxy-wasm. `docs/architecture.md` explains the whole.

pub mod config;
pub mod decimal;
pub mod decision;
pub mod discovery;
pub mod estimate;
pub mod exchange;
pub mod health;
pub mod hold;
pub mod host;
pub mod map;
pub mod metrics;
pub mod outcome;
pub mod outlier;
pub mod policy;
pub mod pool;
pub mod random;
pub mod recent;
pub mod rejection;
pub mod request;
pub mod serving;
pub mod state;
pub mod status;
pub mod time;
pub mod waiting;
pub mod wake;
pub mod worker;

#[cfg(target_arch = "wasm32")]
mod filter;
