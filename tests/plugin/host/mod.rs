//! A proxy-wasm host in memory that does what Envoy does, status for status,
//! and that a test can make fail at any call.
//!
//! A [`Process`] is one Envoy: shared data, queues, metrics and clocks. Each
//! [`Vm`] in it is one worker's copy of the filter, each [`Root`] one plugin in
//! a VM, each [`Stream`] one HTTP stream. Everything runs on the test's own
//! thread, one callback at a time, so that a test decides how workers interleave.
//!
//! The behaviour follows proxy-wasm-cpp-host and Envoy's own part of the host.
//! Not there, because the filter uses none of it: gRPC call-outs, network filters
//! and writing to bodies.

pub(crate) mod artifact;

mod abi;
mod calls;
mod context;
mod guest;
mod headers;
mod imports;
mod metrics;
mod process;
mod shared_data;
mod stream;
mod vm;
mod wasi;

pub(crate) use abi::{Action, LogLevel, Status};
pub(crate) use calls::{Call, CallTable, Which};
pub(crate) use context::{Answer, CallOut, LocalResponse, Plugin, Property};
pub(crate) use headers::HeaderMap;
pub(crate) use process::Process;
pub(crate) use stream::Stream;
pub(crate) use vm::{Root, VM_ID, Vm, VmError, VmResult};
