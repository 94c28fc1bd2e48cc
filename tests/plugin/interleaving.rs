//! VMs that run in the middle of each other: at any host call of one, another may take
//! a callback, and a third in the middle of that.

use crate::fleet::In;
use crate::host::VmResult;
use std::cell::Cell;

/// VMs that are in the middle of a callback at the same time.
const DEPTH: usize = 4;

/// Who may run, and who is to run next.
pub(crate) struct Turns {
    /// Whether a VM is in a callback or dead, and so cannot take another.
    busy: Vec<Cell<bool>>,
    /// How many are in a callback.
    depth: Cell<usize>,
    /// Another VM runs at one in so many host calls.
    one_in: Cell<usize>,
    /// Inner steps that may still be taken.
    left: Cell<usize>,
    /// The VM that is to trap, or has.
    victim: Cell<Option<usize>>,
    inner_steps: Cell<u64>,
}

impl Turns {
    /// So many VMs, all idle.
    pub(crate) fn of(vms: usize) -> Self {
        Self {
            busy: vec![Cell::new(false); vms],
            depth: Cell::new(0),
            one_in: Cell::new(1),
            left: Cell::new(0),
            victim: Cell::new(None),
            inner_steps: Cell::new(0),
        }
    }

    /// From now on another VM runs at one in so many host calls.
    pub(crate) fn interrupt_one_in(&self, calls: usize) {
        self.one_in.set(calls);
    }

    /// So many steps may be taken in the middle of others.
    pub(crate) fn allow(&self, inner_steps: usize) {
        self.left.set(inner_steps);
    }

    /// A VM waits for the answer to a host call: whether another one runs, at one in
    /// `one_in` calls if that is given.
    pub(crate) fn is_interrupted(
        &self,
        one_in: Option<usize>,
        draw: impl FnOnce(usize) -> usize,
    ) -> bool {
        let may_run = (1..DEPTH).contains(&self.depth.get()) && self.left.get() > 0;
        let interrupted = may_run && draw(one_in.unwrap_or(self.one_in.get())) == 0;
        if interrupted {
            self.left.set(self.left.get() - 1);
            self.inner_steps.set(self.inner_steps.get() + 1);
        }
        interrupted
    }

    /// VMs that can take a callback.
    pub(crate) fn idle(&self) -> Vec<usize> {
        let all = 0..self.busy.len();
        all.filter(|worker| !self.busy[*worker].get()).collect()
    }

    /// A callback of a VM; only the victim may trap in it.
    pub(crate) fn run(&self, worker: usize, case: &str, callback: impl FnOnce() -> VmResult) {
        self.busy[worker].set(true);
        self.depth.set(self.depth.get() + 1);
        let outcome = callback();
        self.depth.set(self.depth.get() - 1);
        if outcome.is_err() && self.victim.get() == Some(worker) {
            return;
        }
        outcome.in_case(case);
        self.busy[worker].set(false);
    }

    /// This VM is to trap.
    pub(crate) fn doom(&self, worker: usize) {
        self.victim.set(Some(worker));
    }

    /// The VM that is to trap, or has.
    pub(crate) fn victim(&self) -> Option<usize> {
        self.victim.get()
    }

    /// Whether a VM is in a callback, or dead.
    pub(crate) fn is_busy(&self, worker: usize) -> bool {
        self.busy[worker].get()
    }

    /// This VM takes no callback any more.
    pub(crate) fn kill(&self, worker: usize) {
        self.busy[worker].set(true);
    }

    /// Another VM is in its place.
    pub(crate) fn replace(&self, worker: usize) {
        self.victim.set(None);
        self.busy[worker].set(false);
    }

    /// Steps that were taken in the middle of others.
    pub(crate) fn inner_steps(&self) -> u64 {
        self.inner_steps.get()
    }
}
