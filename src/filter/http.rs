//! The HTTP context: one request and its response.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::Proxy;
use crate::exchange::{Exchange, Flow};
use crate::worker::Worker;

/// One stream. It keeps the worker that it began with: after a change of
/// configuration the streams that are under way end where they were counted.
pub(super) struct Http {
    worker: Option<Rc<RefCell<Worker>>>,
    /// Shared with the worker while the request waits.
    exchange: Rc<RefCell<Exchange>>,
}

impl Http {
    pub(super) fn new(context: u32, worker: Option<Rc<RefCell<Worker>>>) -> Self {
        Http {
            worker,
            exchange: Exchange::new(context),
        }
    }

    fn with_worker<T: Default>(&self, act: impl FnOnce(&mut Exchange, &mut Worker) -> T) -> T {
        if let Some(worker) = &self.worker
            && let Ok(mut worker) = worker.try_borrow_mut()
            && let Ok(mut exchange) = self.exchange.try_borrow_mut()
        {
            return act(&mut exchange, &mut worker);
        }
        T::default()
    }

    fn end(&mut self) {
        self.with_worker(|exchange, worker| exchange.end(worker, &mut Proxy));
    }
}

impl Context for Http {
    fn on_done(&mut self) -> bool {
        self.end();
        true
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        action(self.with_worker(|exchange, worker| {
            exchange.on_request_headers(worker, &mut Proxy, end_of_stream)
        }))
    }

    fn on_http_request_body(&mut self, bytes: usize, end_of_stream: bool) -> Action {
        action(self.with_worker(|exchange, worker| {
            exchange.on_request_body(worker, &mut Proxy, bytes, end_of_stream)
        }))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.with_worker(|exchange, worker| exchange.on_request_trailers(worker, &mut Proxy));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.with_worker(|exchange, worker| {
            exchange.on_response_headers(worker, &mut Proxy, end_of_stream);
        });
        Action::Continue
    }

    fn on_http_response_body(&mut self, bytes: usize, end_of_stream: bool) -> Action {
        self.with_worker(|exchange, worker| {
            exchange.on_response_body(worker, &mut Proxy, bytes, end_of_stream);
        });
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        self.with_worker(|exchange, _| exchange.on_response_trailers());
        Action::Continue
    }

    fn on_log(&mut self) {
        self.end();
    }
}

impl Drop for Http {
    /// For a stream that the proxy forgets without telling its end.
    fn drop(&mut self) {
        self.end();
    }
}

fn action(flow: Flow) -> Action {
    match flow {
        Flow::Continue => Action::Continue,
        Flow::Pause => Action::Pause,
    }
}
