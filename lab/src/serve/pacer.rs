//! One thread that lets the servers of a fleet do what is due, when it is due.
//!
//! Timers of async runtimes are a millisecond coarse, a step of an emulated engine may take less than that at a high time scale.
//! So a thread of its own sleeps until the earliest time that any server named. It is late by some ten microseconds, which never add
//! up: servers schedule by their own absolute times and only what they tell the world is late.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::Thread;

use super::clock::ScaledClock;
use crate::model::Time;

/// When each server next wants to be looked at.
#[derive(Debug)]
pub(super) struct Agenda {
    /// In nanoseconds of the servers' time; `NEVER` where nothing is due.
    due: Box<[AtomicU64]>,
    /// Until when the pacer sleeps; 0 while it is awake and will look at `due` before it sleeps.
    sleeps_until: AtomicU64,
    pacer: OnceLock<Thread>,
    stopped: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Agenda {
    pub(super) fn of(servers: usize) -> Self {
        Self {
            due: (0..servers).map(|_| AtomicU64::new(NEVER)).collect(),
            sleeps_until: AtomicU64::new(NEVER),
            pacer: OnceLock::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The server is to be looked at then. To be called under that server's lock, so that the last word is the newest.
    ///
    /// No wake-up is lost: this writes `due` and then reads `sleeps_until`, the pacer writes `sleeps_until` and then reads `due`
    /// once more before it sleeps. Whichever comes second sees the other.
    pub(super) fn schedule(&self, server: usize, time: Option<Time>) {
        let time = time.map_or(NEVER, Time::as_nanos);
        if let Some(due) = self.due.get(server) {
            due.store(time, SeqCst);
        }
        if time < self.sleeps_until.load(SeqCst) {
            self.wake();
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(pacer) = self.pacer.get() {
            pacer.unpark();
        }
    }

    fn earliest(&self) -> u64 {
        let due = self.due.iter().map(|due| due.load(SeqCst));
        due.min().unwrap_or(NEVER)
    }

    /// Calls `catch_up` with the number of each server that is due, until [`stop`](Self::stop).
    pub(super) fn run(&self, clock: ScaledClock, catch_up: impl Fn(usize)) {
        sleep_precisely();
        // Set once: `run` is called once an agenda.
        let _ = self.pacer.set(std::thread::current());
        while !self.stopped.load(SeqCst) {
            self.sleeps_until.store(0, SeqCst);
            let now = clock.now().as_nanos();
            for (due, server) in self.due.iter().zip(0..) {
                if due.load(SeqCst) <= now {
                    catch_up(server);
                }
            }
            let earliest = self.earliest();
            self.sleeps_until.store(earliest, SeqCst);
            if self.earliest() < earliest || self.stopped.load(SeqCst) {
                continue;
            }
            if earliest == NEVER {
                std::thread::park();
            } else {
                let rest = clock.until(Time::from_nanos(earliest));
                if !rest.is_zero() {
                    std::thread::park_timeout(rest);
                }
            }
        }
    }
}

/// By default Linux may end a sleep 50 microseconds late to save wake-ups.
fn sleep_precisely() {
    // Where that is refused the servers are a little less precise, no more.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
