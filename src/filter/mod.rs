//! The binding to proxy-wasm: the only modules that know it.
//!
//! They translate, and decide nothing. The SDK's own wrappers of host calls
//! panic on any status that they do not expect, and a panic would end every
//! stream of the worker, so [`host`] makes the calls itself.

mod abi;
mod host;
mod http;
mod log;
mod root;

use proxy_wasm::traits::RootContext;

proxy_wasm::main! {{
    log::install();
    proxy_wasm::set_root_context(|_| -> Box<dyn RootContext> {
        Box::new(root::Root::default())
    });
}}
