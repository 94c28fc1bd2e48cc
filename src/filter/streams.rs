//! The streams of this VM, by their contexts.

use std::cell::RefCell;
use std::rc::Rc;

use super::host::Proxy;
use crate::exchange::{Exchange, Start};
use crate::map::Map;
use crate::rejection::Reason;
use crate::request::Unknown;
use crate::worker::Worker;

/// What a stream's callbacks act on.
#[derive(Clone)]
pub(super) struct Stream {
    worker: Option<Rc<RefCell<Worker>>>,
    exchange: Rc<RefCell<Exchange>>,
}

impl Stream {
    /// The stream with this context, and the worker that it begins with.
    pub(super) fn new(context: u32, worker: Option<Rc<RefCell<Worker>>>) -> Self {
        let exchange = Rc::new(RefCell::new(Exchange::new(context)));
        Stream { worker, exchange }
    }

    pub(super) fn with_worker<T: Default>(
        &self,
        act: impl FnOnce(&mut Exchange, &mut Worker) -> T,
    ) -> T {
        if let Some(worker) = &self.worker
            && let Ok(mut worker) = worker.try_borrow_mut()
            && let Ok(mut exchange) = self.exchange.try_borrow_mut()
        {
            return act(&mut exchange, &mut worker);
        }
        T::default()
    }

    /// The request has waited enough for its body; the proxy is at its stream.
    pub(super) fn give_up(&self, reason: Unknown) {
        self.with_worker(|exchange, worker| exchange.give_up(worker, &mut Proxy, reason));
    }

    /// It is the turn of the request, which waits for room; the proxy is at its stream.
    pub(super) fn start(&self) -> Start {
        // One that cannot be tried now stays where it is.
        self.with_worker(|exchange, worker| Some(exchange.start(worker, &mut Proxy)))
            .unwrap_or(Start::NoRoom)
    }

    /// The request waits for room no more; the proxy is at its stream.
    pub(super) fn refuse(&self, reason: Reason) {
        self.with_worker(|exchange, worker| exchange.refuse(worker, &mut Proxy, reason));
    }

    /// The proxy may have sent the request somewhere by now; it is at its stream.
    pub(super) fn look_for_server(&self, context: u32) {
        self.with_worker(|exchange, worker| {
            if !exchange.look_for_server(worker, &mut Proxy) {
                worker.watch(context, &mut Proxy);
            }
        });
    }

    /// The stream is over, one way or another.
    pub(super) fn end(&self) {
        self.with_worker(|exchange, worker| exchange.end(worker, &mut Proxy));
    }
}

thread_local! {
    /// The streams of this VM, by their context.
    static STREAMS: RefCell<Streams> = RefCell::new(Streams::default());
}

/// By their contexts.
type Streams = Map<u32, Stream>;

/// The stream is there from now on.
pub(super) fn begin(context: u32, stream: Stream) {
    STREAMS.with(|streams| {
        if let Ok(mut streams) = streams.try_borrow_mut() {
            streams.insert(context, stream);
        }
    });
}

/// The stream with this context; `None` where it is gone.
pub(super) fn find(context: u32) -> Option<Stream> {
    STREAMS.with(|streams| streams.try_borrow().ok()?.get(&context).cloned())
}

/// The stream is gone, and this was it; `None` where there is none.
pub(super) fn end(context: u32) -> Option<Stream> {
    STREAMS.with(|streams| streams.try_borrow_mut().ok()?.remove(&context))
}
