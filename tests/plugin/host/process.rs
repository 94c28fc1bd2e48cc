//! One Envoy process: what its VMs share, and the clock, under the test's hand.

use super::metrics::Metrics;
use super::shared_data::{SharedData, SharedQueues};
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A handle on the process; clones are the same process.
#[derive(Clone)]
pub(crate) struct Process(Rc<RefCell<State>>);

pub(super) struct State {
    pub(super) data: SharedData,
    pub(super) queues: SharedQueues,
    pub(super) metrics: Metrics,
    /// Nanoseconds since an arbitrary moment.
    pub(super) monotonic: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) realtime: u64,
    /// What the VMs draw their randomness from: a fixed sequence.
    pub(super) random: Rng,
    vms: usize,
}

impl Process {
    /// A process in which everything is at rest and one hour has passed since boot.
    pub(crate) fn new() -> Self {
        let boot = Duration::from_secs(3_600);
        let today = Duration::from_secs(1_784_700_000);
        Self(Rc::new(RefCell::new(State {
            data: SharedData::default(),
            queues: SharedQueues::default(),
            metrics: Metrics::default(),
            monotonic: boot.as_nanos() as u64,
            realtime: today.as_nanos() as u64,
            random: Rng::with_seed(1),
            vms: 0,
        })))
    }

    pub(super) fn with<R>(&self, body: impl FnOnce(&mut State) -> R) -> R {
        body(&mut self.0.borrow_mut())
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
