//! The callbacks for a request and its response.
//!
//! The module exports them itself, without the dispatcher of an SDK. That saves a table of
//! contexts beside [`streams`] and a callback for each request, and the answers for the
//! request's body are not in the SDK for Rust: the number with which Envoy keeps a
//! request's parts in the stream's own buffer, and stops reading from the client when it
//! is full. With the one that the SDK has, Envoy joins the parts and shows them together.
//! Such a request cannot continue from a tick: Envoy would add the next part to what it
//! has sent already, and lose or repeat it.

use super::host::Proxy;
use super::streams;
use crate::exchange::{Exchange, Flow};
use crate::worker::Worker;

/// The stream goes on.
const CONTINUE: u32 = 0;
/// It stops until it is told to go on.
const STOP: u32 = 1;
/// What has come is kept, and no more is read than the buffer holds.
const STOP_AND_WATERMARK: u32 = 2;

/// Acts on the stream with this context. It keeps the worker that it began with: after a
/// change of configuration the streams that are under way end where they were counted.
fn with<T: Default>(context: u32, act: impl FnOnce(&mut Exchange, &mut Worker) -> T) -> T {
    let stream = streams::find(context);
    stream.map_or_else(T::default, |stream| stream.with_worker(act))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: usize, end_of_stream: u32) -> u32 {
    let flow = with(context, |exchange, worker| {
        exchange.on_request_headers(worker, &mut Proxy, end_of_stream != 0)
    });
    match flow {
        Flow::Continue => CONTINUE,
        Flow::Pause => STOP,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, bytes: usize, end_of_stream: u32) -> u32 {
    let flow = with(context, |exchange, worker| {
        exchange.on_request_body(worker, &mut Proxy, bytes, end_of_stream != 0)
    });
    match flow {
        Flow::Continue => CONTINUE,
        Flow::Pause => STOP_AND_WATERMARK,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _trailers: usize) -> u32 {
    let flow = with(context, |exchange, worker| {
        exchange.on_request_trailers(worker, &mut Proxy)
    });
    match flow {
        Flow::Continue => CONTINUE,
        Flow::Pause => STOP,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _headers: usize, end_of_stream: u32) -> u32 {
    with(context, |exchange, worker| {
        exchange.on_response_headers(worker, &mut Proxy, end_of_stream != 0);
    });
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, bytes: usize, end_of_stream: u32) -> u32 {
    with(context, |exchange, worker| {
        exchange.on_response_body(worker, &mut Proxy, bytes, end_of_stream != 0);
    });
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(context: u32, _trailers: usize) -> u32 {
    with(context, |exchange, _| exchange.on_response_trailers());
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    with(context, |exchange, worker| exchange.end(worker, &mut Proxy));
}
