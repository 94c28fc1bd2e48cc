//! Sixteen VMs of one process, as an Envoy with sixteen workers has them, in random
//! schedules: at every host call of one, another may run in the middle of it, and a
//! third in the middle of that. Nothing that they share may come out wrong.

use crate::fleet::{In, LEASE, POLICIES, pass_throughs, picks, total_in_flight};
use crate::host::Which;
use crate::interleaving::Turns;
use crate::schedule::Fleet;
use fastrand::Rng;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

const VMS: usize = 16;
const UPSTREAMS: usize = 4;
/// Steps that a schedule takes one after the other.
const STEPS: usize = 12;
/// Steps in the middle of one of those. They also bound the time that passes in a
/// callback: a VM that stalls for half a lease is another test's.
const INNER_STEPS: usize = 5;
const SCHEDULES: usize = 256;
const DEATHS: usize = 12;

const WRITE: &str = "proxy_set_shared_data";

/// A fleet whose VMs run in the middle of each other.
struct Interleaved {
    fleet: Fleet,
    turns: Turns,
    host_calls: Cell<u64>,
}

impl Interleaved {
    fn start(seed: u64, policy: &str) -> Rc<Self> {
        let fleet = Fleet::start(Rng::with_seed(seed), policy, (UPSTREAMS, VMS));
        let fleet = Rc::new(Self {
            fleet,
            turns: Turns::of(VMS),
            host_calls: Cell::new(0),
        });
        for worker in 0..VMS {
            fleet.watch(worker);
        }
        fleet
    }

    fn watch(self: &Rc<Self>, worker: usize) {
        let fleet = Rc::downgrade(self);
        let watcher = move |function| {
            if let Some(fleet) = Weak::upgrade(&fleet) {
                fleet.at_host_call(function);
            }
        };
        self.fleet.root(worker).vm.watch(Rc::new(watcher));
    }

    /// A VM waits for the answer to a host call: perhaps another one runs.
    fn at_host_call(&self, function: &str) {
        self.host_calls.set(self.host_calls.get() + 1);
        let one_in = (function == WRITE).then_some(2);
        if self
            .turns
            .is_interrupted(one_in, |below| self.fleet.draw(below))
        {
            self.step_anywhere();
        }
    }

    /// Any VM that can takes a step.
    fn step_anywhere(&self) {
        let idle = self.turns.idle();
        let worker = idle[self.fleet.draw(idle.len())];
        let case = &self.fleet.case;
        self.turns.run(worker, case, || self.fleet.step(worker));
    }

    /// So many steps, with others in the middle of them.
    fn steps(&self, count: usize) {
        self.turns
            .interrupt_one_in([3, 6, 12, 25][self.fleet.draw(4)]);
        for _ in 0..count {
            self.turns.allow(INNER_STEPS);
            self.step_anywhere();
        }
        self.turns.allow(0);
    }

    /// Ticks all VMs that live, with others in the middle of them.
    fn ticks(&self) {
        self.turns.allow(2 * INNER_STEPS);
        for worker in self.turns.idle() {
            let root = self.fleet.root(worker);
            self.turns.run(worker, &self.fleet.case, || root.tick());
            // What it called is not looked at here.
            root.vm.take_calls();
        }
        self.turns.allow(0);
    }

    /// The same with nothing in the middle.
    fn quiet_ticks(&self) {
        for worker in self.turns.idle() {
            self.fleet.root(worker).tick().in_case(&self.fleet.case);
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.fleet.process.counter(name)
    }

    fn outcomes(&self) -> u64 {
        let outcomes = self.fleet.process.counters("paceline_outcomes_total;");
        outcomes.values().sum()
    }

    /// Merges and claims that failed because another VM wrote first.
    fn lost_tries(&self) -> u64 {
        let conflicts = self.fleet.process.conflicts();
        let lost = |key: &str| conflicts.get(key).copied().unwrap_or(0);
        lost("lanes") + lost("learned")
    }

    /// What must hold whenever no VM is in a callback.
    fn check(&self, case: &str) {
        let process = &self.fleet.process;
        assert_eq!(pass_throughs(process), BTreeMap::new(), "{case}");
        assert_eq!(self.counter("paceline_state_errors_total"), 0, "{case}");
        let conflicts = process.conflicts();
        let lane = conflicts.keys().find(|key| key.parse::<u16>().is_ok());
        assert_eq!(lane, None, "{case}: two competed for a lane");
    }

    /// Streams that the VMs have open that are not dead, and those of the dead one.
    fn open(&self) -> (u64, u64) {
        let dead = self.turns.victim();
        let living = (0..VMS).filter(|worker| Some(*worker) != dead);
        let living = living.map(|worker| self.fleet.open(worker)).sum();
        (living, dead.map_or(0, |dead| self.fleet.open(dead)))
    }
}

#[test]
fn sixteen_vms_interleaved_at_every_host_call_lose_no_count_and_no_try() {
    let (mut inner_steps, mut lost) = (0, 0);
    for (seed, policy) in POLICIES.iter().enumerate() {
        let it = Interleaved::start(1_000 + seed as u64, policy);
        for schedule in 0..SCHEDULES {
            let case = format!("{}, schedule {schedule}", it.fleet.case);
            it.steps(STEPS);
            // At once, before any tick makes up for anything.
            it.fleet.check(schedule);
            it.ticks();
            it.fleet.check(schedule);
            it.fleet.end_all();
            assert_eq!(total_in_flight(&it.fleet.process), 0, "{case}");
            // What was learned last is merged a moment later.
            it.fleet.process.advance(Duration::from_millis(20));
            it.quiet_ticks();
            it.check(&case);
            let retries = it.counter("paceline_transaction_retries_total");
            assert_eq!(retries, it.lost_tries(), "{case}");
            assert_eq!(it.outcomes(), picks(&it.fleet.process), "{case}");
        }
        inner_steps += it.turns.inner_steps();
        lost += it.lost_tries();
        println!(
            "{policy}: {SCHEDULES} schedules, {} host calls, {} steps in the middle of others, \
             writes that came too late: {:?}",
            it.host_calls.get(),
            it.turns.inner_steps(),
            it.fleet.process.conflicts()
        );
    }
    // The VMs did meet.
    assert!(
        inner_steps > 20_000,
        "{inner_steps} in the middle of others"
    );
    assert!(lost > 100, "{lost} tries came too late");
}

#[test]
fn what_a_vm_that_traps_had_open_is_counted_until_its_lease_ends() {
    for (seed, policy) in POLICIES.iter().enumerate() {
        let it = Interleaved::start(2_000 + seed as u64, policy);
        let mut trapped = 0;
        for death in 0..DEATHS {
            let case = format!("{}, death {death}", it.fleet.case);
            it.steps(STEPS);
            // Some VM traps at one of its next host calls, wherever that is.
            let victim = it.fleet.any_worker();
            it.turns.doom(victim);
            let calls = it.fleet.draw(30);
            it.fleet.root(victim).vm.trap(Which::At(calls));
            it.turns
                .run(victim, &it.fleet.case, || it.fleet.step(victim));
            it.steps(STEPS);
            trapped += u64::from(it.turns.is_busy(victim));
            // Where it was not called so often, it is gone all the same.
            it.turns.kill(victim);
            it.ticks();
            // It had perhaps shown the request that it trapped in, perhaps not.
            let ((living, dead), total) = (it.open(), total_in_flight(&it.fleet.process));
            let expected = living + dead..=living + dead + 1;
            assert!(expected.contains(&total), "{case}: {total}, {expected:?}");
            let mut waited = Duration::ZERO;
            while waited <= LEASE {
                let step = LEASE / 4;
                it.fleet.process.advance(step);
                waited += step;
                it.ticks();
            }
            let living = it.open().0;
            assert_eq!(total_in_flight(&it.fleet.process), living, "{case}");
            // Another takes its place, and its lane.
            it.fleet.replace(victim);
            it.turns.replace(victim);
            it.watch(victim);
            it.steps(STEPS);
            it.fleet.check(death);
            it.check(&case);
        }
        it.fleet.end_all();
        it.ticks();
        it.fleet.end_all();
        assert_eq!(total_in_flight(&it.fleet.process), 0, "{}", it.fleet.case);
        let most = DEATHS as u64 / 2;
        assert!(trapped > most, "{policy}: {trapped} trapped in a callback");
        println!(
            "{policy}: {trapped} traps, {:?}",
            it.fleet.process.conflicts()
        );
    }
}
