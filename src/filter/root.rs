//! The root contexts: each is one configured plugin in one worker.

use std::cell::RefCell;
use std::rc::Rc;

use super::host::Proxy;
use super::streams;
use crate::config::Config;
use crate::exchange::Start;
use crate::host::{CallId, Host as _, QueueId};
use crate::waiting::Due;
use crate::worker::Worker;

/// The plugin, before and after it is configured.
#[derive(Clone, Default)]
struct Root {
    worker: Option<Rc<RefCell<Worker>>>,
}

thread_local! {
    /// The plugins of this VM, by their contexts: two may live in one VM.
    static ROOTS: RefCell<Vec<(u32, Root)>> = const { RefCell::new(Vec::new()) };
}

/// A plugin is to be configured.
pub(super) fn begin(context: u32) {
    ROOTS.with(|roots| {
        if let Ok(mut roots) = roots.try_borrow_mut() {
            roots.push((context, Root::default()));
        }
    });
}

/// The plugin's worker; `None` where there is no such plugin, or it is not configured.
pub(super) fn worker_of(context: u32) -> Option<Rc<RefCell<Worker>>> {
    find(context)?.worker
}

/// The plugin is gone; its streams keep its worker until they have ended.
pub(super) fn end(context: u32) {
    let ended = ROOTS.with(|roots| {
        let mut roots = roots.try_borrow_mut().ok()?;
        let place = roots.iter().position(|(root, _)| *root == context)?;
        Some(roots.swap_remove(place))
    });
    if let Some((_, root)) = ended {
        root.with_worker(|worker| worker.end(&mut Proxy));
    }
}

fn find(context: u32) -> Option<Root> {
    ROOTS.with(|roots| {
        let roots = roots.try_borrow().ok()?;
        let (_, root) = roots.iter().find(|(root, _)| *root == context)?;
        Some(root.clone())
    })
}

/// Returns 1 if the configuration of so many bytes is accepted, otherwise 0.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, size: usize) -> u32 {
    let Some(worker) = configured(size) else {
        return 0;
    };
    let is_kept = ROOTS.with(|roots| {
        let mut roots = roots.try_borrow_mut().ok()?;
        let (_, root) = roots.iter_mut().find(|(root, _)| *root == context)?;
        root.worker = Some(Rc::new(RefCell::new(worker)));
        Some(())
    });
    u32::from(is_kept.is_some())
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    if let Some(root) = find(context) {
        root.tick();
    }
}

/// A request that the plugin sent itself has ended: with an answer of so many headers, or
/// without one. Envoy tells the end of some that it has refused before.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    context: u32,
    call: u32,
    headers: usize,
    body_size: usize,
    _trailers: usize,
) {
    if let Some(root) = find(context) {
        root.with_worker(|worker| {
            worker.call_ended(&mut Proxy, CallId(call), headers > 0, body_size);
        });
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(context: u32, queue: u32) {
    if let Some(root) = find(context) {
        root.answer_call(QueueId(queue));
    }
}

impl Root {
    fn with_worker(&self, act: impl FnOnce(&mut Worker)) {
        if let Some(worker) = &self.worker
            && let Ok(mut worker) = worker.try_borrow_mut()
        {
            act(&mut worker);
        }
    }

    fn tick(&self) {
        let mut due = Vec::new();
        self.with_worker(|worker| due = worker.tick(&mut Proxy));
        for Due { context, reason } in due {
            match streams::find(context) {
                // Where the proxy cannot turn to it, the next tick tries again.
                Some(stream) if Proxy.attend(context).is_ok() => stream.give_up(reason),
                Some(_) => {}
                None => self.with_worker(|worker| worker.waiting.leave(context)),
            }
        }
        self.look_for_servers();
        self.refuse_waiters();
        self.start_waiters(true);
        self.with_worker(|worker| worker.rest(&mut Proxy));
    }

    /// Finds out where the proxy has sent the requests that took its own route.
    fn look_for_servers(&self) {
        let mut watched = Vec::new();
        self.with_worker(|worker| watched = worker.take_watched());
        for context in watched {
            if let Some(stream) = streams::find(context)
                && Proxy.attend(context).is_ok()
            {
                stream.look_for_server(context);
            }
        }
    }

    /// Another worker, or this one, has made room or changed who waits.
    fn answer_call(&self, queue: QueueId) {
        let mut is_called = false;
        self.with_worker(|worker| is_called = worker.answer_calls(&mut Proxy, queue));
        if is_called {
            self.refuse_waiters();
            self.start_waiters(false);
        }
    }

    /// Answers those that may not wait for room any more.
    fn refuse_waiters(&self) {
        let mut refusals = Vec::new();
        self.with_worker(|worker| refusals = worker.take_refusals(&mut Proxy));
        for refusal in refusals {
            match streams::find(refusal.context) {
                Some(stream) if Proxy.attend(refusal.context).is_ok() => {
                    stream.refuse(refusal.reason);
                }
                // Where the proxy cannot turn to it, the next tick tries again.
                Some(_) => self.with_worker(|worker| worker.refuse_again(refusal)),
                None => {}
            }
        }
    }

    /// Sends on what waits for room, as far as there is any: each in its turn among those
    /// of all workers, unless this one `insists`.
    fn start_waiters(&self, insists: bool) {
        let mut pools = Vec::new();
        self.with_worker(|worker| {
            pools = worker.waiting_pools();
            if !pools.is_empty() {
                worker.look_for_room(&mut Proxy);
            }
        });
        for pool in pools {
            loop {
                let mut next = None;
                self.with_worker(|worker| next = worker.next_to_start(&mut Proxy, pool, insists));
                let Some(context) = next else {
                    break;
                };
                match streams::find(context) {
                    Some(stream) if Proxy.attend(context).is_ok() => {
                        if stream.start() == Start::NoRoom {
                            break;
                        }
                    }
                    // Where the proxy cannot turn to it, the next tick tries again.
                    Some(_) => break,
                    None => self.with_worker(|worker| worker.forget(&mut Proxy, context)),
                }
            }
        }
    }
}

/// A worker with the configuration of so many bytes; `None` where the configuration is
/// refused, which the log explains.
fn configured(size: usize) -> Option<Worker> {
    let bytes = match Proxy.configuration(size) {
        Ok(bytes) => bytes,
        Err(error) => {
            log::error!("paceline: the configuration could not be read: {error}");
            return None;
        }
    };
    let config = match Config::parse(bytes.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            // A line each: the log is searched for what they begin with.
            for line in error.lines() {
                log::error!("paceline: the configuration is refused: {line}");
            }
            return None;
        }
    };
    match Worker::new(config, &mut Proxy) {
        Ok(worker) => {
            worker.ask_for_ticks(&mut Proxy);
            Some(worker)
        }
        Err(error) => {
            log::error!("paceline: the clock or the plugin's name cannot be read: {error}");
            None
        }
    }
}
