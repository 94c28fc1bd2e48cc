//! What a VM asked of its host: a ledger of calls, and a plan to make some fail.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// One call of a host function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The imported name, such as `proxy_get_shared_data`.
    pub(crate) function: &'static str,
    /// The callback during which the VM made the call.
    pub(crate) callback: &'static str,
    /// Bytes that the host read from the VM's memory.
    pub(crate) bytes_in: usize,
    /// Bytes that the host wrote to the VM's memory.
    pub(crate) bytes_out: usize,
    /// The status (WASI: the error number) that the VM got; 0 is success.
    pub(crate) code: u32,
}

/// Picks calls, counted from the moment that the plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The n-th call of all, from 0.
    At(usize),
    /// The n-th call of this function, from 0.
    Nth(&'static str, usize),
    /// Every call of this function.
    Every(&'static str),
    /// All calls from the n-th on.
    From(usize),
}

/// All calls of one VM so far, and what is planned for those to come.
#[derive(Default)]
pub(crate) struct Ledger {
    calls: Vec<Call>,
    faults: Vec<(Which, u32)>,
    interruptions: Vec<(Which, Box<dyn FnOnce()>)>,
    watcher: Option<Rc<dyn Fn(&'static str)>>,
    trap: Option<Which>,
    seen: usize,
    seen_by_name: BTreeMap<&'static str, usize>,
}

/// What shall happen at a call that is about to be made.
#[derive(Default)]
pub(crate) struct Plan {
    /// To be run before the call.
    pub(crate) interruption: Option<Box<dyn FnOnce()>>,
    /// To be run before every call, with its function's name.
    pub(crate) watcher: Option<Rc<dyn Fn(&'static str)>>,
    /// Whether the VM traps when it gets the answer.
    pub(crate) traps: bool,
    /// The code to return in place of making the call.
    pub(crate) fault: Option<u32>,
}

impl Ledger {
    /// Makes the calls that `which` picks fail with `code`, without effect.
    pub(crate) fn fail(&mut self, which: Which, code: u32) {
        self.restart();
        self.faults.push((which, code));
    }

    /// Runs `action` just before the call that `which` picks; it may use other
    /// VMs of the process, but not this one.
    pub(crate) fn interrupt(&mut self, which: Which, action: impl FnOnce() + 'static) {
        self.restart();
        self.interruptions.push((which, Box::new(action)));
    }

    /// Runs `watcher` with the function's name just before every call from now on,
    /// plans or no plans; it may use other VMs of the process, but not this one.
    pub(crate) fn watch(&mut self, watcher: Rc<dyn Fn(&'static str)>) {
        self.watcher = Some(watcher);
    }

    /// Makes the VM trap at the call that `which` picks, after its effect.
    pub(crate) fn trap(&mut self, which: Which) {
        self.restart();
        self.trap = Some(which);
    }

    /// Forgets what was planned.
    pub(crate) fn clear_plans(&mut self) {
        self.faults.clear();
        self.interruptions.clear();
        self.trap = None;
    }

    /// Hands out the calls made since the last time.
    pub(crate) fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    pub(super) fn begin(&mut self, function: &'static str) -> Plan {
        let index = self.seen;
        let count = self.seen_by_name.entry(function).or_default();
        let nth = *count;
        *count += 1;
        self.seen += 1;
        let picks = |which: &Which| match *which {
            Which::At(wanted) => wanted == index,
            Which::Nth(name, wanted) => name == function && wanted == nth,
            Which::Every(name) => name == function,
            Which::From(first) => index >= first,
        };
        let due = self
            .interruptions
            .iter()
            .position(|(which, _)| picks(which));
        Plan {
            interruption: due.map(|due| self.interruptions.remove(due).1),
            watcher: self.watcher.clone(),
            traps: self.trap.as_ref().is_some_and(picks),
            fault: self
                .faults
                .iter()
                .find(|(which, _)| picks(which))
                .map(|fault| fault.1),
        }
    }

    pub(super) fn record(&mut self, call: Call) {
        self.calls.push(call);
    }

    fn restart(&mut self) {
        self.seen = 0;
        self.seen_by_name.clear();
    }
}

/// The calls of one request, summed up by callback and function in the order
/// of their first use. Prints as a table.
pub(crate) struct CallTable {
    rows: Vec<Row>,
}

struct Row {
    callback: &'static str,
    function: &'static str,
    calls: usize,
    bytes_in: usize,
    bytes_out: usize,
}

impl CallTable {
    pub(crate) fn new(calls: &[Call]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for call in calls {
            let is_it = |row: &Row| (row.callback, row.function) == (call.callback, call.function);
            let index = rows.iter().position(is_it).unwrap_or_else(|| {
                rows.push(Row {
                    callback: call.callback,
                    function: call.function,
                    calls: 0,
                    bytes_in: 0,
                    bytes_out: 0,
                });
                rows.len() - 1
            });
            let row = &mut rows[index];
            row.calls += 1;
            row.bytes_in += call.bytes_in;
            row.bytes_out += call.bytes_out;
        }
        Self { rows }
    }

    /// Calls of all functions.
    pub(crate) fn calls(&self) -> usize {
        self.rows.iter().map(|row| row.calls).sum()
    }

    /// Calls of one function.
    pub(crate) fn calls_of(&self, function: &str) -> usize {
        let rows = self.rows.iter().filter(|row| row.function == function);
        rows.map(|row| row.calls).sum()
    }

    /// Bytes that the host read from the VM's memory.
    pub(crate) fn bytes_in(&self) -> usize {
        self.rows.iter().map(|row| row.bytes_in).sum()
    }

    /// Bytes that crossed the VM's boundary, in both directions.
    pub(crate) fn bytes(&self) -> usize {
        self.rows
            .iter()
            .map(|row| row.bytes_in + row.bytes_out)
            .sum()
    }
}

impl fmt::Display for CallTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = (
            "callback",
            "host function",
            "calls",
            "bytes in",
            "bytes out",
        );
        writeln!(
            f,
            "{:<26}{:<36}{:>6}{:>10}{:>10}",
            head.0, head.1, head.2, head.3, head.4
        )?;
        for row in &self.rows {
            let Row {
                callback,
                function,
                calls,
                bytes_in,
                bytes_out,
            } = row;
            writeln!(
                f,
                "{callback:<26}{function:<36}{calls:>6}{bytes_in:>10}{bytes_out:>10}"
            )?;
        }
        let bytes_in = self.bytes_in();
        let bytes_out = self.bytes() - bytes_in;
        write!(
            f,
            "{:<26}{:<36}{:>6}{bytes_in:>10}{bytes_out:>10}",
            "all",
            "",
            self.calls()
        )
    }
}
