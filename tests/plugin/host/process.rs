//! One Envoy process: what its VMs share, and the clock, under the test's hand.

use super::context::Plugin;
use super::metrics::Metrics;
use super::shared_data::{SharedData, SharedQueues};
use super::vm::{Root, Vm};
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// A handle on the process; clones are the same process.
#[derive(Clone)]
pub(crate) struct Process {
    state: Rc<RefCell<State>>,
    /// A VM for each plugin that never serves, as Envoy's main thread has: it
    /// sees what the workers have published.
    observers: Rc<RefCell<Vec<Root>>>,
}

pub(super) struct State {
    pub(super) data: SharedData,
    pub(super) queues: SharedQueues,
    pub(super) metrics: Metrics,
    /// Nanoseconds since an arbitrary moment.
    pub(super) monotonic: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) realtime: u64,
    /// Clusters that Envoy does not have; it has all others.
    pub(super) missing_clusters: BTreeSet<String>,
    /// What the VMs draw their randomness from: a fixed sequence.
    pub(super) random: Rng,
    /// The plugins that were ever run, with the `vm_id`s of their VMs.
    plugins: Vec<(Vec<u8>, Plugin)>,
    vms: usize,
    /// How often each header was set to each value, in all VMs.
    headers: BTreeMap<(Vec<u8>, Vec<u8>), u64>,
}

impl Process {
    /// A process in which everything is at rest and one hour has passed since boot.
    pub(crate) fn new() -> Self {
        let boot = Duration::from_secs(3_600);
        let today = Duration::from_secs(1_784_700_000);
        let state = State {
            data: SharedData::default(),
            queues: SharedQueues::default(),
            metrics: Metrics::default(),
            monotonic: boot.as_nanos() as u64,
            realtime: today.as_nanos() as u64,
            missing_clusters: BTreeSet::new(),
            random: Rng::with_seed(1),
            plugins: Vec::new(),
            vms: 0,
            headers: BTreeMap::new(),
        };
        Self {
            state: Rc::new(RefCell::new(state)),
            observers: Rc::default(),
        }
    }

    pub(super) fn with<R>(&self, body: impl FnOnce(&mut State) -> R) -> R {
        body(&mut self.state.borrow_mut())
    }

    /// Remembers a plugin that a VM of the process runs.
    pub(super) fn runs(&self, vm_id: &[u8], plugin: &Plugin) {
        let run = (vm_id.to_vec(), plugin.clone());
        self.with(|state| {
            if !state.plugins.contains(&run) {
                state.plugins.push(run);
            }
        });
    }

    /// Ticks the main thread's VMs, which show in the gauges what the workers
    /// have published.
    pub(crate) fn observe(&self) {
        let mut observers = self.observers.borrow_mut();
        let known = observers.len();
        let new = self.with(|state| state.plugins.split_off(known.min(state.plugins.len())));
        for (vm_id, plugin) in new {
            // Without observers of its own, or neither would ever be dropped.
            let process = Self {
                state: Rc::clone(&self.state),
                observers: Rc::default(),
            };
            let vm_id = String::from_utf8_lossy(&vm_id).into_owned();
            let vm = Vm::boot(&process, &vm_id).expect("the main thread's VM starts");
            let root = vm.create_observer(plugin.clone()).expect("its root starts");
            root.configure().expect("it is configured");
            self.with(|state| state.plugins.push((vm_id.into_bytes(), plugin)));
            observers.push(root);
        }
        for observer in observers.iter() {
            observer.tick().expect("the main thread's VM ticks");
        }
    }

    /// Takes a cluster from Envoy, for call-outs.
    pub(crate) fn remove_cluster(&self, cluster: &str) {
        self.with(|state| state.missing_clusters.insert(cluster.to_owned()));
    }

    /// Lets time pass, on both clocks.
    pub(crate) fn advance(&self, time: Duration) {
        self.with(|state| {
            state.monotonic += time.as_nanos() as u64;
            state.realtime += time.as_nanos() as u64;
        });
    }

    /// Turns the monotonic clock back, which no kernel should ever do.
    pub(crate) fn turn_back(&self, time: Duration) {
        self.with(|state| state.monotonic -= time.as_nanos() as u64);
    }

    /// What a counter has reached; 0 if nobody has defined it.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.with(|state| state.metrics.counter(name))
    }

    /// The counters whose names begin with `prefix`.
    pub(crate) fn counters(&self, prefix: &str) -> BTreeMap<String, u64> {
        self.with(|state| starting_with(state.metrics.counters(), prefix))
    }

    /// The gauges whose names begin with `prefix`.
    pub(crate) fn gauges(&self, prefix: &str) -> BTreeMap<String, u64> {
        self.with(|state| starting_with(state.metrics.gauges(), prefix))
    }

    /// The values recorded in the histograms whose names begin with `prefix`.
    pub(crate) fn histograms(&self, prefix: &str) -> BTreeMap<String, Vec<u64>> {
        self.with(|state| starting_with(state.metrics.histograms(), prefix))
    }

    /// The keys of the shared data of all VMs with this `vm_id`.
    pub(crate) fn keys(&self, vm_id: &str) -> Vec<Vec<u8>> {
        self.with(|state| state.data.keys(vm_id.as_bytes()))
    }

    /// How often a write to shared data was refused because another VM had
    /// written first, by the last part of the key.
    pub(crate) fn conflicts(&self) -> BTreeMap<String, u64> {
        self.with(|state| state.data.conflicts().clone())
    }

    /// The value under a key of the shared data, if there is one.
    pub(crate) fn read(&self, vm_id: &str, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.with(|state| state.data.get(vm_id.as_bytes(), key));
        entry.ok().map(|(value, _cas)| value)
    }

    /// Writes to the shared data as some other VM might.
    pub(crate) fn write(&self, vm_id: &str, key: &[u8], value: &[u8]) {
        let written = self.with(|state| state.data.set(vm_id.as_bytes(), key, value, 0));
        assert_eq!(written, Ok(()), "a write without a CAS always succeeds");
    }

    /// How often a header was set to this value, in all VMs. May be asked while VMs are in
    /// the middle of a callback.
    pub(crate) fn header_count(&self, name: &[u8], value: &str) -> u64 {
        let header = (name.to_vec(), value.as_bytes().to_vec());
        self.with(|state| state.headers.get(&header).copied().unwrap_or(0))
    }

    pub(super) fn note_header(&self, name: &[u8], value: &[u8]) {
        let header = (name.to_vec(), value.to_vec());
        self.with(|state| *state.headers.entry(header).or_default() += 1);
    }

    pub(super) fn next_vm(&self) -> usize {
        self.with(|state| {
            state.vms += 1;
            state.vms
        })
    }
}

fn starting_with<V: Clone>(metrics: &BTreeMap<String, V>, prefix: &str) -> BTreeMap<String, V> {
    let matching = metrics.iter().filter(|(name, _)| name.starts_with(prefix));
    matching
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
