//! Paceline: a load balancer for model serving, as a proxy-wasm filter.

pub mod config;
pub mod estimate;
pub mod host;
pub mod random;
pub mod time;
