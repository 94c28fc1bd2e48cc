//! Random schedules of several workers on one shared record: whatever comes
//! between what, the gauges are the streams that are open.

use crate::fleet::{
    GET, In, POLICIES, Response, config, in_flight, pass_throughs, picked, respond, total_in_flight,
};
use crate::host::{Process, Root, Status, Stream, Vm, VmResult, Which};
use fastrand::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const STEPS: usize = 300;

/// An open stream and where it was sent, if it was.
type Open = (Stream, Option<String>);

/// Workers of one process and what each has open. No borrow is held while a
/// VM runs, so that one worker's step can be taken in the middle of another's.
pub(crate) struct Fleet {
    pub(crate) case: String,
    pub(crate) process: Process,
    configuration: String,
    roots: Vec<RefCell<Root>>,
    open: Vec<RefCell<Vec<Open>>>,
    rng: RefCell<Rng>,
}

impl Fleet {
    fn new(seed: u64, policy: &str) -> Rc<Self> {
        let mut rng = Rng::with_seed(seed);
        let upstreams = rng.usize(1..=5);
        let workers = rng.usize(2..=4);
        Rc::new(Self::start(rng, policy, (upstreams, workers)))
    }

    /// So many workers in front of so many upstreams.
    pub(crate) fn start(rng: Rng, policy: &str, (upstreams, workers): (usize, usize)) -> Self {
        let process = Process::new();
        let configuration = config(upstreams, policy);
        let start = |_| RefCell::new(Vm::start(&process, &configuration).unwrap());
        Self {
            case: format!("seed {}, {policy}", rng.get_seed()),
            roots: (0..workers).map(start).collect(),
            open: (0..workers).map(|_| RefCell::default()).collect(),
            rng: RefCell::new(rng),
            configuration,
            process,
        }
    }

    pub(crate) fn workers(&self) -> usize {
        self.roots.len()
    }

    pub(crate) fn root(&self, worker: usize) -> Root {
        self.roots[worker].borrow().clone()
    }

    /// Another VM in place of this one, which is gone with the streams that it had
    /// open, without a word to anybody.
    pub(crate) fn replace(&self, worker: usize) {
        let new = Vm::start(&self.process, &self.configuration).in_case(&self.case);
        self.roots[worker].replace(new);
        self.open[worker].take();
    }

    pub(crate) fn draw(&self, below: usize) -> usize {
        self.rng.borrow_mut().usize(..below)
    }

    pub(crate) fn any_worker(&self) -> usize {
        self.draw(self.workers())
    }

    /// A request begins, ends in one of many ways, or a tick comes.
    pub(crate) fn step(&self, worker: usize) -> VmResult {
        match self.draw(10) {
            0..4 => self.begin(worker),
            4..8 => self.end_one(worker),
            8 => self.root(worker).tick(),
            _ => {
                self.process.advance(Duration::from_millis(100));
                Ok(())
            }
        }
    }

    fn begin(&self, worker: usize) -> VmResult {
        let stream = self.root(worker).request(GET)?;
        let upstream = picked(&stream);
        self.open[worker].borrow_mut().push((stream, upstream));
        Ok(())
    }

    fn end_one(&self, worker: usize) -> VmResult {
        let count = self.open[worker].borrow().len();
        if count == 0 {
            return Ok(());
        }
        let chosen = self.draw(count);
        let (stream, _) = self.open[worker].borrow_mut().swap_remove(chosen);
        let status = [200, 200, 200, 404, 429, 503, 0, 0][self.draw(8)];
        if status > 0 {
            let response = Response {
                status,
                ..Response::OK
            };
            respond(&self.process, &stream, &response)?;
        }
        match self.draw(4) {
            0 => stream.delete(),
            1 => {
                stream.done()?;
                stream.delete()
            }
            _ => stream.end(),
        }
    }

    pub(crate) fn tick_all(&self) {
        for worker in 0..self.workers() {
            let root = self.root(worker);
            root.tick().in_case(&self.case);
            // Envoy tells a queue's consumer as soon as something is put in.
            root.vm.deliver_queue_items().in_case(&self.case);
        }
    }

    pub(crate) fn check(&self, step: usize) {
        let gauges = in_flight(&self.process);
        let mut open: BTreeMap<String, u64> = gauges.keys().map(|u| (u.clone(), 0)).collect();
        for streams in &self.open {
            for upstream in streams.borrow().iter().filter_map(|(_, u)| u.as_ref()) {
                *open.entry(upstream.clone()).or_default() += 1;
            }
        }
        assert_eq!(gauges, open, "{}, step {step}", self.case);
    }

    /// How many streams a worker has open.
    pub(crate) fn open(&self, worker: usize) -> u64 {
        self.open[worker].borrow().len() as u64
    }

    pub(crate) fn end_all(&self) {
        for streams in &self.open {
            for (stream, _) in streams.take() {
                stream.end().in_case(&self.case);
            }
        }
    }
}

/// Runs `step` with fleets of every policy.
fn run(seeds: std::ops::Range<u64>, step: impl Fn(&Rc<Fleet>, usize)) {
    for seed in seeds {
        let fleet = Fleet::new(seed, POLICIES[seed as usize % POLICIES.len()]);
        for index in 0..STEPS {
            step(&fleet, index);
            // Envoy ticks every worker, busy or not.
            if index % 10 == 9 {
                fleet.tick_all();
            }
        }
        fleet.end_all();
        fleet.tick_all();
        assert_eq!(total_in_flight(&fleet.process), 0, "{}", fleet.case);
    }
}

#[test]
fn the_gauges_are_exact_at_every_step() {
    run(0..21, |fleet, index| {
        fleet.step(fleet.any_worker()).in_case(&fleet.case);
        fleet.check(index);
        let passed = pass_throughs(&fleet.process);
        assert_eq!(passed, BTreeMap::new(), "{}", fleet.case);
    });
}

#[test]
fn the_gauges_are_exact_after_a_tick_when_workers_run_in_the_middle_of_each_other() {
    run(100..121, |fleet, index| {
        let victim = fleet.any_worker();
        let rival = (victim + 1 + fleet.draw(fleet.workers() - 1)) % fleet.workers();
        let among = Rc::clone(fleet);
        let vm = fleet.root(victim).vm;
        vm.interrupt(Which::At(fleet.draw(8)), move || {
            among.step(rival).in_case(&among.case);
        });
        fleet.step(victim).in_case(&fleet.case);
        vm.clear_plans();
        fleet.root(victim).tick().in_case(&fleet.case);
        fleet.check(index);
    });
}

#[test]
fn the_gauges_are_exact_after_a_tick_when_host_calls_fail() {
    const STATUSES: [Status; 4] = [
        Status::CasMismatch,
        Status::InternalFailure,
        Status::NotFound,
        Status::BadArgument,
    ];
    run(200..221, |fleet, index| {
        let worker = fleet.any_worker();
        let vm = fleet.root(worker).vm;
        let which = match fleet.draw(4) {
            0 => Which::From(fleet.draw(8)),
            1 => Which::Every("proxy_set_shared_data"),
            _ => Which::At(fleet.draw(20)),
        };
        vm.fail(which, STATUSES[fleet.draw(STATUSES.len())]);
        fleet.step(worker).in_case(&fleet.case);
        vm.clear_plans();
        fleet.root(worker).tick().in_case(&fleet.case);
        fleet.check(index);
    });
}
