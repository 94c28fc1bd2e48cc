//! Paceline: a load balancer for model serving, as a proxy-wasm filter.

pub mod config;
pub mod estimate;
pub mod host;
pub mod pool;
pub mod random;
pub mod state;
pub mod time;
