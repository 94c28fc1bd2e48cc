//! The root context: one configured plugin in one worker.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::host::Proxy;
use super::http::Http;
use crate::config::Config;
use crate::worker::Worker;

/// The plugin, before and after it is configured. Nothing is kept outside of
/// it: two plugins may live in one VM.
#[derive(Default)]
pub(super) struct Root {
    worker: Option<Rc<RefCell<Worker>>>,
}

impl Root {
    fn with_worker(&self, act: impl FnOnce(&mut Worker)) {
        if let Some(worker) = &self.worker
            && let Ok(mut worker) = worker.try_borrow_mut()
        {
            act(&mut worker);
        }
    }
}

impl Context for Root {
    fn on_done(&mut self) -> bool {
        self.with_worker(|worker| worker.end(&mut Proxy));
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let bytes = match Proxy.configuration(size) {
            Ok(bytes) => bytes,
            Err(error) => {
                log::error!("paceline: the configuration could not be read: {error}");
                return false;
            }
        };
        let config = match Config::parse(bytes.as_deref()) {
            Ok(config) => config,
            Err(error) => {
                log::error!("paceline: the configuration is refused: {error}");
                return false;
            }
        };
        if config.reads_bodies() {
            log::info!(
                "paceline: requests wait for their bodies, which Envoy shows to the filter only \
                 with allow_on_headers_stop_iteration: true beside root_id"
            );
        }
        match Worker::new(config, &mut Proxy) {
            Ok(worker) => {
                worker.ask_for_ticks(&mut Proxy);
                self.worker = Some(Rc::new(RefCell::new(worker)));
            }
            Err(error) => {
                log::error!("paceline: the clock or the plugin's name cannot be read: {error}");
                return false;
            }
        }
        true
    }

    fn on_tick(&mut self) {
        self.with_worker(|worker| worker.tick(&mut Proxy));
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(context, self.worker.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
