//! One VM, which is one Envoy worker's copy of the filter, and its root contexts.

use super::abi::Action;
use super::calls::{Call, Ledger, Which};
use super::context::{Answer, CallOut, Context, LogLine, Plugin, RootState, StreamState};
use super::headers::HeaderMap;
use super::metrics::MetricIds;
use super::process::Process;
use super::stream::Stream;
use super::{artifact, imports, wasi};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use wasmi::{Instance, Linker, Store, WasmParams, WasmResults};

/// The `vm_id` that the project recommends.
pub(crate) const VM_ID: &str = "paceline";

/// A VM instruction budget for one callback: some seconds of interpretation.
/// A callback that needs more is taken for one that never ends.
const FUEL: u64 = 2_000_000_000;

/// A handle on a VM; clones are the same VM. Dropping all of them, those in
/// roots and streams too, is how a VM dies without any callback.
#[derive(Clone)]
pub(crate) struct Vm(Rc<RefCell<Inner>>);

struct Inner {
    store: Store<VmState>,
    instance: Instance,
}

pub(super) struct VmState {
    pub(super) process: Process,
    /// Which VM of the process this is.
    pub(super) index: usize,
    pub(super) vm_id: Vec<u8>,
    pub(super) contexts: BTreeMap<u32, Context>,
    last_context: u32,
    last_token: u32,
    /// The context whose callback is running.
    pub(super) current: u32,
    /// The context that host calls are about, if not the current one; else 0.
    pub(super) effective: u32,
    pub(super) callback: &'static str,
    pub(super) ledger: Ledger,
    /// Instructions executed in each callback.
    work: BTreeMap<&'static str, u64>,
    pub(super) log: Vec<LogLine>,
    pub(super) metric_ids: MetricIds,
    /// The callback sent a response of its own: whatever it returns is a pause.
    pub(super) stop_iteration: bool,
    trapped: bool,
}

impl VmState {
    /// The context that a host call is about.
    pub(super) fn context(&mut self) -> Option<&mut Context> {
        let exists = self.contexts.contains_key(&self.effective);
        let id = if exists { self.effective } else { self.current };
        self.contexts.get_mut(&id)
    }

    /// The root context that a host call is about.
    pub(super) fn root(&mut self) -> Option<&mut RootState> {
        let root = match self.context()? {
            Context::Root(_) => None,
            Context::Stream(stream) => Some(stream.root),
        };
        let context = match root {
            Some(root) => self.contexts.get_mut(&root),
            None => self.context(),
        };
        match context {
            Some(Context::Root(root)) => Some(root),
            _ => None,
        }
    }

    /// What a call-out is called that is about to be sent.
    pub(super) fn next_token(&mut self) -> u32 {
        self.last_token += 1;
        self.last_token
    }

    fn add_context(&mut self, context: Context) -> u32 {
        self.last_context += 1;
        self.contexts.insert(self.last_context, context);
        self.last_context
    }
}

/// Why a VM did not do what was asked of it.
pub(crate) enum VmError {
    /// It trapped, then or in an earlier callback: Envoy makes no further ones.
    Trap {
        callback: &'static str,
        cause: String,
        log: Vec<LogLine>,
    },
    /// It refused its configuration.
    Refused { log: Vec<LogLine> },
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = match self {
            Self::Trap {
                callback,
                cause,
                log,
            } => {
                write!(f, "the VM trapped in {callback}: {cause}")?;
                log
            }
            Self::Refused { log } => {
                write!(f, "the filter refused its configuration")?;
                log
            }
        };
        log.iter()
            .try_for_each(|line| write!(f, "\n  {:?}: {}", line.level, line.text))
    }
}

/// The same as for display, so that a failed `unwrap` can be read.
impl fmt::Debug for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for VmError {}

/// What comes back from a VM.
pub(crate) type VmResult<T = ()> = Result<T, VmError>;

impl Vm {
    /// Starts a VM with one plugin, as an Envoy worker does.
    pub(crate) fn start(process: &Process, configuration: impl AsRef<[u8]>) -> VmResult<Root> {
        let root = Self::boot(process, VM_ID)?.create_root(Plugin::new(configuration))?;
        if root.configure()? {
            return Ok(root);
        }
        let log = root.vm.take_log();
        Err(VmError::Refused { log })
    }

    /// Loads the filter into a new VM, without any root context yet.
    pub(crate) fn boot(process: &Process, vm_id: &str) -> VmResult<Self> {
        let module = artifact::module();
        let mut store = Store::new(
            module.engine(),
            VmState {
                process: process.clone(),
                index: process.next_vm(),
                vm_id: vm_id.as_bytes().to_vec(),
                contexts: BTreeMap::new(),
                last_context: 0,
                last_token: 0,
                current: 0,
                effective: 0,
                callback: "_initialize",
                ledger: Ledger::default(),
                work: BTreeMap::new(),
                log: Vec::new(),
                metric_ids: MetricIds::default(),
                stop_iteration: false,
                trapped: false,
            },
        );
        let unlinkable = |cause: &dyn fmt::Display| VmError::Trap {
            callback: "instantiation",
            cause: cause.to_string(),
            log: Vec::new(),
        };
        let mut linker = Linker::new(module.engine());
        imports::define(&mut linker, module).map_err(|error| unlinkable(&error))?;
        wasi::define(&mut linker).map_err(|error| unlinkable(&error))?;
        let instance = linker.instantiate_and_start(&mut store, module);
        let instance = instance.map_err(|error| unlinkable(&error))?;
        let vm = Self(Rc::new(RefCell::new(Inner { store, instance })));
        vm.call::<(), ()>(0, "_initialize", ())?;
        Ok(vm)
    }

    /// Adds a plugin to the VM: two with different configurations share one VM.
    pub(crate) fn create_root(&self, plugin: Plugin) -> VmResult<Root> {
        self.with(|vm| vm.process.runs(&vm.vm_id, &plugin));
        self.create_observer(plugin)
    }

    /// Adds a plugin to a VM that is to serve nothing.
    pub(super) fn create_observer(&self, plugin: Plugin) -> VmResult<Root> {
        let root = RootState {
            plugin,
            configuring: false,
            tick_period: None,
            calls: Vec::new(),
            answer: None,
        };
        let id = self.with(|vm| vm.add_context(Context::Root(root)));
        self.call::<_, ()>(id, "proxy_on_context_create", (id, 0))?;
        self.call_if_there::<_, u32>(id, "proxy_on_vm_start", (id, 0))?;
        let vm = self.clone();
        Ok(Root { vm, id })
    }

    /// Hands out the host calls made since the last time.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        self.with(|vm| vm.ledger.take())
    }

    /// Hands out how many instructions each callback has executed since the last
    /// time, as the interpreter counts them.
    pub(crate) fn take_work(&self) -> BTreeMap<&'static str, u64> {
        self.with(|vm| std::mem::take(&mut vm.work))
    }

    /// Hands out what was logged since the last time.
    pub(crate) fn take_log(&self) -> Vec<LogLine> {
        self.with(|vm| std::mem::take(&mut vm.log))
    }

    /// Makes the host calls that `which` picks, counted from now, fail with
    /// `code`: a [`Status`](super::Status), or the error number of a WASI call.
    pub(crate) fn fail(&self, which: Which, code: impl Into<u32>) {
        let code = code.into();
        self.with(|vm| vm.ledger.fail(which, code));
    }

    /// Runs `action` just before the host call that `which` picks, counted from
    /// now; it may use other VMs of the process.
    pub(crate) fn interrupt(&self, which: Which, action: impl FnOnce() + 'static) {
        self.with(|vm| vm.ledger.interrupt(which, action));
    }

    /// Runs `watcher` with the function's name just before every host call from
    /// now on; it may use other VMs of the process.
    pub(crate) fn watch(&self, watcher: Rc<dyn Fn(&'static str)>) {
        self.with(|vm| vm.ledger.watch(watcher));
    }

    /// Makes the VM trap when the host call that `which` picks, counted from now,
    /// has been made.
    pub(crate) fn trap(&self, which: Which) {
        self.with(|vm| vm.ledger.trap(which));
    }

    /// Lets all host calls go well again.
    pub(crate) fn clear_plans(&self) {
        self.with(|vm| vm.ledger.clear_plans());
    }

    /// How many metric ids the VM has asked for.
    pub(crate) fn metric_definitions(&self) -> usize {
        self.with(|vm| vm.metric_ids.len())
    }

    /// Size of the VM's memory in bytes.
    pub(crate) fn memory_size(&self) -> usize {
        let inner = self.0.borrow();
        let memory = inner.instance.get_memory(&inner.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&inner.store))
    }

    /// Tells the roots of this VM of items in the queues that they registered.
    pub(crate) fn deliver_queue_items(&self) -> VmResult {
        let ready = self.with(|vm| vm.process.with(|p| p.queues.take_ready(vm.index)));
        for (root, token) in ready {
            self.call::<_, ()>(root, "proxy_on_queue_ready", (root, token))?;
        }
        Ok(())
    }

    pub(super) fn with<R>(&self, body: impl FnOnce(&mut VmState) -> R) -> R {
        body(self.0.borrow_mut().store.data_mut())
    }

    /// Makes a callback. After a trap there are no more.
    pub(super) fn call<P, R>(&self, context: u32, callback: &'static str, params: P) -> VmResult<R>
    where
        P: WasmParams,
        R: WasmResults,
    {
        let mut inner = self.0.borrow_mut();
        let Inner { store, instance } = &mut *inner;
        let state = store.data_mut();
        let trap = |cause: String, log: &[LogLine]| VmError::Trap {
            callback,
            cause,
            log: log.to_vec(),
        };
        if state.trapped {
            return Err(trap("it had trapped before".into(), &[]));
        }
        state.current = context;
        state.effective = 0;
        state.callback = callback;
        state.stop_iteration = false;
        let logged = state.log.len();
        let outcome = instance
            .get_typed_func::<P, R>(&*store, callback)
            .and_then(|function| {
                store.set_fuel(FUEL)?;
                function.call(&mut *store, params)
            });
        let executed = FUEL - store.get_fuel().unwrap_or(FUEL);
        *store.data_mut().work.entry(callback).or_default() += executed;
        outcome.map_err(|error| {
            let state = store.data_mut();
            state.trapped = true;
            trap(
                error.to_string(),
                state.log.get(logged..).unwrap_or_default(),
            )
        })
    }

    /// Makes a callback, unless the filter does not export it: Envoy goes on then as if
    /// it had. `None` where it was not made.
    pub(super) fn call_if_there<P, R>(
        &self,
        context: u32,
        callback: &'static str,
        params: P,
    ) -> VmResult<Option<R>>
    where
        P: WasmParams,
        R: WasmResults,
    {
        let inner = self.0.borrow();
        let is_there = inner.instance.get_func(&inner.store, callback).is_some();
        drop(inner);
        is_there
            .then(|| self.call(context, callback, params))
            .transpose()
    }

    /// Makes a callback that says whether the stream goes on.
    pub(super) fn call_for_action<P: WasmParams>(
        &self,
        context: u32,
        callback: &'static str,
        params: P,
    ) -> VmResult<Action> {
        let answer: u32 = self.call(context, callback, params)?;
        Ok(self.action(answer))
    }

    /// What a callback's answer comes to.
    pub(super) fn action(&self, answer: u32) -> Action {
        let stopped = self.with(|vm| vm.stop_iteration);
        match answer == 0 && !stopped {
            true => Action::Continue,
            false => Action::Pause,
        }
    }
}

/// A plugin in a VM.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) vm: Vm,
    id: u32,
}

impl Root {
    /// Hands over the configuration; whether the filter takes it.
    pub(crate) fn configure(&self) -> VmResult<bool> {
        let size = self.with(|root| {
            root.configuring = true;
            root.plugin.configuration.len() as u32
        });
        let taken = self
            .vm
            .call::<_, u32>(self.id, "proxy_on_configure", (self.id, size));
        self.with(|root| root.configuring = false);
        Ok(taken? != 0)
    }

    pub(crate) fn tick(&self) -> VmResult {
        self.vm.call(self.id, "proxy_on_tick", self.id)
    }

    /// The period at which the filter asked for ticks.
    pub(crate) fn tick_period(&self) -> Option<Duration> {
        self.with(|root| root.tick_period)
    }

    /// The call-outs of the plugin that have not ended.
    pub(crate) fn calls(&self) -> Vec<CallOut> {
        self.with(|root| root.calls.clone())
    }

    /// Ends a call-out of the plugin with an answer, or without one: a connection that
    /// broke. Envoy ends one at times that it has refused, so it need not be known.
    pub(crate) fn end_call(&self, token: u32, answer: Option<Answer>) -> VmResult {
        let (headers, body) = answer
            .as_ref()
            .map_or((0, 0), |it| (it.headers.len(), it.body.len()));
        self.with(|root| {
            root.calls.retain(|call| call.token != token);
            root.answer = answer;
        });
        let params = (self.id, token, headers as u32, body as u32, 0);
        let ended = self
            .vm
            .call::<_, ()>(self.id, "proxy_on_http_call_response", params);
        self.with(|root| root.answer = None);
        ended
    }

    /// Tells the root that its plugin is gone, and deletes it.
    pub(crate) fn shut_down(self) -> VmResult {
        let done = self
            .vm
            .call_if_there::<_, u32>(self.id, "proxy_on_done", self.id);
        done?;
        self.vm.call::<_, ()>(self.id, "proxy_on_delete", self.id)
    }

    /// Opens a stream of which the filter has heard nothing but its existence.
    pub(crate) fn stream(&self) -> VmResult<Stream> {
        let stream = StreamState {
            root: self.id,
            ..StreamState::default()
        };
        let id = self
            .vm
            .with(|vm| vm.add_context(Context::Stream(Box::new(stream))));
        self.vm
            .call::<_, ()>(id, "proxy_on_context_create", (id, self.id))?;
        Ok(Stream::new(self.vm.clone(), id))
    }

    /// Opens a stream with a request that has these headers and no body.
    pub(crate) fn request<N, V>(
        &self,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> VmResult<Stream>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        // What the workers wrote is read again when it is older than this.
        let process = self.vm.with(|vm| vm.process.clone());
        process.advance(Duration::from_millis(1));
        let stream = self.stream()?;
        stream.request_headers(HeaderMap::new(headers), true)?;
        Ok(stream)
    }

    fn with<R>(&self, body: impl FnOnce(&mut RootState) -> R) -> R {
        self.vm.with(|vm| match vm.contexts.get_mut(&self.id) {
            Some(Context::Root(root)) => body(root),
            _ => panic!("context {} is no root", self.id),
        })
    }
}
