//! The binding to proxy-wasm: the only modules that know it.
//!
//! They translate, and decide nothing. They export the callbacks of the ABI and make its
//! host calls themselves: the wrappers of the SDK for Rust panic on any status that they do
//! not expect, and a panic would end every stream of the worker.

mod abi;
mod host;
mod http;
mod lifecycle;
mod log;
mod root;
mod streams;
