//! Random schedules of several workers on one shared record: whatever comes
//! between what, the gauges are the streams that are open.

use crate::fleet::{
    GET, In, POLICIES, Response, config, in_flight, pass_throughs, picked, respond, total_in_flight,
};
use crate::host::{Process, Root, Status, Stream, Vm, Which};
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
struct Fleet {
    case: String,
    process: Process,
    roots: Vec<Root>,
    open: Vec<RefCell<Vec<Open>>>,
    rng: RefCell<Rng>,
}

impl Fleet {
    fn new(seed: u64, policy: &str) -> Rc<Self> {
        let mut rng = Rng::with_seed(seed);
        let process = Process::new();
        let configuration = config(rng.usize(1..=5), policy);
        let workers = rng.usize(2..=4);
        let start = |_| Vm::start(&process, &configuration).unwrap();
        Rc::new(Self {
            case: format!("seed {seed}, {policy}"),
            roots: (0..workers).map(start).collect(),
            open: (0..workers).map(|_| RefCell::default()).collect(),
            rng: RefCell::new(rng),
            process,
        })
    }

    fn draw(&self, below: usize) -> usize {
        self.rng.borrow_mut().usize(..below)
    }

    fn any_worker(&self) -> usize {
        self.draw(self.roots.len())
    }

    /// A request begins, ends in one of many ways, or a tick comes.
    fn step(&self, worker: usize) {
        match self.draw(10) {
            0..4 => self.begin(worker),
            4..8 => self.end_one(worker),
            8 => self.roots[worker].tick().in_case(&self.case),
            _ => self.process.advance(Duration::from_millis(100)),
        }
    }

    fn begin(&self, worker: usize) {
        let stream = self.roots[worker].request(GET).in_case(&self.case);
        let upstream = picked(&stream);
        self.open[worker].borrow_mut().push((stream, upstream));
    }

    fn end_one(&self, worker: usize) {
        let count = self.open[worker].borrow().len();
        if count == 0 {
            return;
        }
        let chosen = self.draw(count);
        let (stream, _) = self.open[worker].borrow_mut().swap_remove(chosen);
        let status = [200, 200, 200, 404, 429, 503, 0, 0][self.draw(8)];
        if status > 0 {
            let response = Response {
                status,
                ..Response::OK
            };
            respond(&self.process, &stream, &response).in_case(&self.case);
        }
        match self.draw(4) {
            0 => stream.delete().in_case(&self.case),
            1 => {
                stream.done().in_case(&self.case);
                stream.delete().in_case(&self.case);
            }
            _ => stream.end().in_case(&self.case),
        }
    }

    fn tick_all(&self) {
        for root in &self.roots {
            root.tick().in_case(&self.case);
            // Envoy tells a queue's consumer as soon as something is put in.
            root.vm.deliver_queue_items().in_case(&self.case);
        }
    }

    fn check(&self, step: usize) {
        let gauges = in_flight(&self.process);
        let mut open: BTreeMap<String, u64> = gauges.keys().map(|u| (u.clone(), 0)).collect();
        for streams in &self.open {
            for upstream in streams.borrow().iter().filter_map(|(_, u)| u.as_ref()) {
                *open.entry(upstream.clone()).or_default() += 1;
            }
        }
        assert_eq!(gauges, open, "{}, step {step}", self.case);
    }

    fn end_all(&self) {
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
        fleet.step(fleet.any_worker());
        fleet.check(index);
        let passed = pass_throughs(&fleet.process);
        assert_eq!(passed, BTreeMap::new(), "{}", fleet.case);
    });
}

#[test]
fn the_gauges_are_exact_after_a_tick_when_workers_run_in_the_middle_of_each_other() {
    run(100..121, |fleet, index| {
        let victim = fleet.any_worker();
        let rival = (victim + 1 + fleet.draw(fleet.roots.len() - 1)) % fleet.roots.len();
        let among = Rc::clone(fleet);
        let vm = &fleet.roots[victim].vm;
        vm.interrupt(Which::At(fleet.draw(8)), move || among.step(rival));
        fleet.step(victim);
        vm.clear_plans();
        fleet.roots[victim].tick().in_case(&fleet.case);
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
        let vm = &fleet.roots[worker].vm;
        let which = match fleet.draw(4) {
            0 => Which::From(fleet.draw(8)),
            1 => Which::Every("proxy_set_shared_data"),
            _ => Which::At(fleet.draw(20)),
        };
        vm.fail(which, STATUSES[fleet.draw(STATUSES.len())]);
        fleet.step(worker);
        vm.clear_plans();
        fleet.roots[worker].tick().in_case(&fleet.case);
        fleet.check(index);
    });
}
