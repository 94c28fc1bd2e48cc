//! Sixteen VMs that share limits, and what their servers see of them.

use crate::fleet::{GET, In, ROUTE_HEADER, Response, pass_throughs, picked, respond};
use crate::fleet::{address, total_in_flight};
use crate::host::{HeaderMap, Plugin, Process, Property, Root, Stream, Vm, VmResult};
use crate::interleaving::Turns;
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

pub(crate) const VMS: usize = 16;
const INNER_STEPS: usize = 8;

/// A configuration of four upstreams, and what may never be exceeded.
pub(crate) struct Scene {
    pub(crate) config: &'static str,
    pub(crate) limits: &'static [Limit],
    /// Whether workers get new configurations, and requests are answered by another
    /// server than the one that was picked.
    pub(crate) is_restless: bool,
}

/// What a request at each upstream takes of something, and how much of it there is.
pub(crate) struct Limit {
    takes: [u64; 4],
    pub(crate) at_most: u64,
}

/// So much of something at each upstream, and in all.
pub(crate) const fn limit(takes: [u64; 4], at_most: u64) -> Limit {
    Limit { takes, at_most }
}

impl Limit {
    /// What is taken by so many requests at each upstream.
    fn taken(&self, requests: &[u64; 4]) -> u64 {
        self.takes.iter().zip(requests).map(|(a, b)| a * b).sum()
    }
}

/// Workers, and what the servers see of them.
pub(crate) struct Limited {
    scene: &'static Scene,
    pub(crate) case: String,
    pub(crate) process: Process,
    roots: Vec<RefCell<Root>>,
    /// Of former configurations.
    draining: Vec<RefCell<Vec<Root>>>,
    pub(crate) open: Vec<RefCell<Vec<Stream>>>,
    /// Requests that have ended at each server.
    pub(crate) ended: RefCell<BTreeMap<String, u64>>,
    pub(crate) turns: Turns,
    rng: RefCell<Rng>,
    /// The most that was taken under each limit.
    pub(crate) most: RefCell<Vec<u64>>,
    pub(crate) waited: Cell<u64>,
    pub(crate) reloads: Cell<u64>,
    pub(crate) moved: Cell<u64>,
}

impl Limited {
    pub(crate) fn start(scene: &'static Scene, seed: u64) -> Rc<Self> {
        let process = Process::new();
        let start = |_| RefCell::new(Vm::start(&process, scene.config).unwrap());
        let fleet = Rc::new(Self {
            scene,
            case: format!("seed {seed}"),
            roots: (0..VMS).map(start).collect(),
            draining: (0..VMS).map(|_| RefCell::default()).collect(),
            open: (0..VMS).map(|_| RefCell::default()).collect(),
            ended: RefCell::default(),
            turns: Turns::of(VMS),
            rng: RefCell::new(Rng::with_seed(seed)),
            most: RefCell::new(vec![0; scene.limits.len()]),
            waited: Cell::new(0),
            reloads: Cell::new(0),
            moved: Cell::new(0),
            process,
        });
        for worker in 0..VMS {
            fleet.watch(worker);
        }
        fleet
    }

    fn watch(self: &Rc<Self>, worker: usize) {
        let fleet = Rc::downgrade(self);
        let watcher = move |_: &'static str| {
            if let Some(fleet) = Weak::upgrade(&fleet) {
                fleet.at_host_call();
            }
        };
        self.root(worker).vm.watch(Rc::new(watcher));
    }

    pub(crate) fn root(&self, worker: usize) -> Root {
        self.roots[worker].borrow().clone()
    }

    pub(crate) fn draw(&self, below: usize) -> usize {
        self.rng.borrow_mut().usize(..below)
    }

    /// What the servers have now: they got what names them, and some of it has ended.
    fn at_servers(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|number| {
            let name = format!("gpu-{number}");
            let sent = self.process.header_count(ROUTE_HEADER, &name);
            sent - self.ended.borrow().get(&name).unwrap_or(&0)
        })
    }

    fn at_host_call(&self) {
        let servers = self.at_servers();
        let mut most = self.most.borrow_mut();
        for (limit, most) in self.scene.limits.iter().zip(most.iter_mut()) {
            let taken = limit.taken(&servers);
            assert!(taken <= limit.at_most, "{}: {servers:?}", self.case);
            *most = taken.max(*most);
        }
        drop(most);
        if self.turns.is_interrupted(None, |below| self.draw(below)) {
            self.step_anywhere();
        }
    }

    fn step_anywhere(&self) {
        let idle = self.turns.idle();
        let worker = idle[self.draw(idle.len())];
        self.run(worker, || self.step(worker));
    }

    pub(crate) fn run(&self, worker: usize, callback: impl FnOnce() -> VmResult) {
        self.turns.run(worker, &self.case, callback);
    }

    pub(crate) fn step(&self, worker: usize) -> VmResult {
        if self.scene.is_restless && self.draw(40) == 0 {
            return self.reload(worker);
        }
        let root = self.root(worker);
        match self.draw(12) {
            0..5 => self.begin(worker),
            5..8 => {
                let count = self.open[worker].borrow().len();
                match count {
                    0 => self.begin(worker),
                    _ => {
                        let stream = self.open[worker].borrow_mut().swap_remove(self.draw(count));
                        self.end(stream)
                    }
                }
            }
            8..10 => root.vm.deliver_queue_items(),
            10 => root.tick(),
            _ => {
                self.process.advance(Duration::from_millis(20));
                Ok(())
            }
        }
    }

    /// The same configuration comes once more; what is open ends under the old one.
    fn reload(&self, worker: usize) -> VmResult {
        let vm = self.root(worker).vm;
        let root = vm.create_root(Plugin::new(self.scene.config))?;
        assert!(root.configure()?, "{}", self.case);
        let old = self.roots[worker].replace(root);
        self.draining[worker].borrow_mut().push(old);
        self.reloads.set(self.reloads.get() + 1);
        Ok(())
    }

    fn begin(&self, worker: usize) -> VmResult {
        self.process.advance(Duration::from_micros(300));
        let stream = self.root(worker).stream()?;
        let mut headers = HeaderMap::new(GET);
        headers.replace(b":path", [b"/a/", b"/b/"][self.draw(2)]);
        let outcome = stream.request_headers(headers, true);
        if picked(&stream).is_none() {
            self.waited.set(self.waited.get() + 1);
        }
        self.open[worker].borrow_mut().push(stream);
        outcome.map(drop)
    }

    /// A request ends: with its answer, or because the client leaves.
    fn end(&self, stream: Stream) -> VmResult {
        if let Some(upstream) = picked(&stream) {
            // The server is done before Envoy tells.
            *self.ended.borrow_mut().entry(upstream.clone()).or_default() += 1;
            if self.scene.is_restless && self.draw(6) == 0 {
                self.answer_elsewhere(&stream, &upstream)?;
            } else if self.draw(4) > 0 {
                respond(&self.process, &stream, &Response::OK)?;
            } else {
                let served_by = Property::text(&address(&stream));
                stream.set_property(&["upstream", "address"], served_by);
                stream.set_property(&["xds", "cluster_name"], Property::text(&upstream));
            }
        }
        stream.end()
    }

    /// Envoy has tried again: at the same upstream, or at the pool's other one, where
    /// nothing was asked for.
    fn answer_elsewhere(&self, stream: &Stream, upstream: &str) -> VmResult {
        let response = Response {
            attempts: 2,
            ..Response::OK
        };
        if self.draw(2) == 0 {
            return respond(&self.process, stream, &response).map(drop);
        }
        self.moved.set(self.moved.get() + 1);
        let number: usize = upstream.trim_start_matches("gpu-").parse().unwrap();
        let other = format!("10.0.0.{}:8000", (number ^ 1) + 2);
        stream.set_property(&["upstream", "address"], Property::text(&other));
        stream.set_property(
            &["upstream", "request_attempt_count"],
            Property::int(response.attempts),
        );
        stream.set_property(&["xds", "cluster_name"], Property::text(upstream));
        stream.set_property(&["response", "code"], Property::int(200));
        stream
            .response_headers(HeaderMap::new([(":status", "200")]), true)
            .map(drop)
    }

    pub(crate) fn steps(&self, count: usize) {
        self.turns.interrupt_one_in([2, 4, 8, 16][self.draw(4)]);
        for _ in 0..count {
            self.turns.allow(INNER_STEPS);
            self.step_anywhere();
        }
        self.turns.allow(0);
    }

    fn living(&self) -> impl Iterator<Item = usize> + use<> {
        self.turns.idle().into_iter()
    }

    /// Lets the servers finish, with calls between the workers and, where these do not
    /// suffice, ticks. Returns how often ticks were needed.
    pub(crate) fn drain(&self) -> usize {
        let mut ticks = 0;
        for _ in 0..10_000 {
            // Envoy makes the calls as soon as it can, and calls may cause calls.
            for _ in 0..VMS {
                for worker in self.living() {
                    let vm = self.root(worker).vm;
                    vm.deliver_queue_items().in_case(&self.case);
                }
            }
            let mut sent = 0;
            for worker in self.living() {
                let streams = self.open[worker].take();
                let (served, waiting): (Vec<_>, Vec<_>) = streams
                    .into_iter()
                    .partition(|stream| picked(stream).is_some());
                self.open[worker].replace(waiting);
                for stream in served {
                    sent += 1;
                    self.end(stream).in_case(&self.case);
                }
            }
            if self
                .living()
                .all(|worker| self.open[worker].borrow().is_empty())
            {
                return ticks;
            }
            if sent == 0 {
                ticks += 1;
                self.process.advance(Duration::from_millis(10));
                self.tick_all();
            }
            assert!(ticks < 1000, "{}: some wait for ever", self.case);
        }
        panic!("{}: never done", self.case);
    }

    pub(crate) fn tick_all(&self) {
        for worker in self.living() {
            for old in self.draining[worker].borrow().iter() {
                old.tick().in_case(&self.case);
            }
            self.root(worker).tick().in_case(&self.case);
        }
    }

    /// Nothing is left anywhere.
    pub(crate) fn check_rest(&self) {
        for worker in self.living() {
            for old in self.draining[worker].take() {
                old.shut_down().in_case(&self.case);
            }
        }
        self.process.advance(Duration::from_millis(300));
        self.tick_all();
        assert_eq!(self.at_servers(), [0; 4], "{}", self.case);
        assert_eq!(total_in_flight(&self.process), 0, "{}", self.case);
        let in_pool = self.process.gauges("paceline_pool_in_flight;");
        assert_eq!(
            in_pool.values().sum::<u64>(),
            0,
            "{}: {in_pool:?}",
            self.case
        );
        let used = self.process.gauges("paceline_device_memory_used_bytes;");
        assert_eq!(used.values().sum::<u64>(), 0, "{}: {used:?}", self.case);
        let held = self.process.gauges("paceline_held;");
        assert_eq!(held.values().sum::<u64>(), 0, "{}: {held:?}", self.case);
        assert_eq!(
            pass_throughs(&self.process),
            BTreeMap::new(),
            "{}",
            self.case
        );
        let rejected = self.process.counters("paceline_rejections_total;");
        assert_eq!(rejected, BTreeMap::new(), "{}", self.case);
    }
}
