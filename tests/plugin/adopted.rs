//! Sixteen VMs that discover the endpoints of a cluster, each of which has a cap. Envoy
//! sends some requests where it likes, and their places are taken when their answers
//! begin, room or no room. Beyond that no pick ever goes where there is no room.

use crate::fleet::{GET, In, pass_throughs, total_in_flight};
use crate::host::{Action, HeaderMap, Process, Property, Root, Stream, Vm, VmResult};
use crate::interleaving::Turns;
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

const CONFIG: &str =
    r#"{ "cluster": "gpus", "policy": "least_request", "endpoints": { "max_in_flight": 3 } }"#;
const CAP: usize = 3;
const VMS: usize = 16;
const ENDPOINTS: usize = 4;
const STEPS: usize = 500;
const INNER_STEPS: usize = 4;
const ENDPOINT_HEADER: &[u8] = b"x-gateway-destination-endpoint";

/// A request.
struct Open {
    stream: Stream,
    /// The endpoint that has it, as was seen when its VM was last idle.
    at: Cell<Option<usize>>,
    is_answered: bool,
    /// Whether the filter stopped it at its headers.
    is_stopped: bool,
}

impl Open {
    /// Whether Envoy has it: the filter let it go on, with a pick or without.
    fn has_gone_on(&self) -> bool {
        !self.is_stopped || self.stream.resumed()
    }
}

struct Discovering {
    case: String,
    process: Process,
    roots: Vec<Root>,
    open: Vec<RefCell<Vec<Open>>>,
    turns: Turns,
    rng: RefCell<Rng>,
    /// What each endpoint may have: the cap, or more where answers began there.
    allowed: RefCell<[usize; ENDPOINTS]>,
    adopted: Cell<u64>,
    beyond: Cell<u64>,
    waited: Cell<u64>,
    most: Cell<usize>,
}

fn address(number: usize) -> String {
    format!("10.0.0.{}:8000", number + 1)
}

/// The endpoint that the filter has chosen.
fn picked(stream: &Stream) -> Option<usize> {
    let headers = stream.sent_headers();
    let list = headers.get_all(ENDPOINT_HEADER).next()?;
    let list = String::from_utf8(list.to_vec()).unwrap();
    let first = list.split(',').next().unwrap().trim().to_owned();
    Some(
        (0..ENDPOINTS)
            .find(|number| address(*number) == first)
            .unwrap(),
    )
}

impl Discovering {
    fn start(seed: u64) -> Rc<Self> {
        let process = Process::new();
        let roots: Vec<Root> = (0..VMS)
            .map(|_| Vm::start(&process, CONFIG).unwrap())
            .collect();
        let fleet = Rc::new(Self {
            case: format!("seed {seed}"),
            process,
            roots,
            open: (0..VMS).map(|_| RefCell::default()).collect(),
            turns: Turns::of(VMS),
            rng: RefCell::new(Rng::with_seed(seed)),
            allowed: RefCell::new([CAP; ENDPOINTS]),
            adopted: Cell::new(0),
            beyond: Cell::new(0),
            waited: Cell::new(0),
            most: Cell::new(0),
        });
        for root in &fleet.roots {
            let fleet = Rc::downgrade(&fleet);
            root.vm.watch(Rc::new(move |_: &'static str| {
                if let Some(fleet) = Weak::upgrade(&fleet)
                    && fleet.turns.is_interrupted(None, |below| fleet.draw(below))
                {
                    fleet.step_anywhere();
                }
            }));
        }
        fleet
    }

    fn draw(&self, below: usize) -> usize {
        self.rng.borrow_mut().usize(..below)
    }

    /// Requests at each endpoint. Those in the middle of a callback are not among them.
    fn counts(&self) -> [usize; ENDPOINTS] {
        let mut counts = [0; ENDPOINTS];
        for open in &self.open {
            for place in open.borrow().iter().filter_map(|it| it.at.get()) {
                counts[place] += 1;
            }
        }
        counts
    }

    /// Looks where the requests of an idle VM are: they may have been picked while they waited.
    fn look(&self, worker: usize) {
        for open in self.open[worker].borrow().iter() {
            if open.at.get().is_none() {
                open.at.set(picked(&open.stream));
            }
        }
    }

    fn check(&self) {
        let (counts, mut allowed) = (self.counts(), self.allowed.borrow_mut());
        let is_quiet = self.turns.idle().len() == VMS;
        for (count, allowed) in counts.iter().zip(allowed.iter_mut()) {
            assert!(*count <= *allowed, "{}: {counts:?}", self.case);
            if is_quiet {
                *allowed = CAP.max(*count);
            }
            self.most.set(self.most.get().max(*count));
        }
    }

    fn step_anywhere(&self) {
        let idle = self.turns.idle();
        let worker = idle[self.draw(idle.len())];
        self.turns.run(worker, &self.case, || self.step(worker));
        self.look(worker);
        self.check();
    }

    fn step(&self, worker: usize) -> VmResult {
        let root = &self.roots[worker];
        match self.draw(12) {
            0..5 => self.begin(worker),
            5..9 => {
                let count = self.open[worker].borrow().len();
                match count {
                    0 => self.begin(worker),
                    _ => {
                        let open = self.open[worker].borrow_mut().swap_remove(self.draw(count));
                        self.go_on(worker, open)
                    }
                }
            }
            9..11 => root.vm.deliver_queue_items(),
            _ => {
                self.process.advance(Duration::from_millis(20));
                root.tick()
            }
        }
    }

    fn begin(&self, worker: usize) -> VmResult {
        self.process.advance(Duration::from_micros(300));
        let stream = self.roots[worker].stream()?;
        let action = stream.request_headers(HeaderMap::new(GET), true)?;
        let is_stopped = action == Action::Pause;
        self.waited.set(self.waited.get() + u64::from(is_stopped));
        self.open[worker].borrow_mut().push(Open {
            stream,
            at: Cell::new(None),
            is_answered: false,
            is_stopped,
        });
        Ok(())
    }

    /// A request is answered, where the filter wanted it, at its second try or where Envoy
    /// liked; or, if it was, it ends.
    fn go_on(&self, worker: usize, open: Open) -> VmResult {
        let chosen = picked(&open.stream);
        if open.is_answered || !open.has_gone_on() {
            return open.stream.end();
        }
        let at = match chosen {
            Some(chosen) if self.draw(6) > 0 => chosen,
            _ => self.draw(ENDPOINTS),
        };
        let is_elsewhere = chosen != Some(at);
        let attempts = 1 + i64::from(is_elsewhere && chosen.is_some());
        let stream = &open.stream;
        stream.set_property(&["upstream", "address"], Property::text(&address(at)));
        stream.set_property(
            &["upstream", "request_attempt_count"],
            Property::int(attempts),
        );
        stream.set_property(
            &["response", "code_details"],
            Property::text("via_upstream"),
        );
        stream.set_property(&["response", "code"], Property::int(200));
        stream.set_property(&["xds", "cluster_name"], Property::text("gpus"));
        stream.response_headers(HeaderMap::new([(":status", "200")]), false)?;
        self.open[worker].borrow_mut().push(Open {
            at: Cell::new(Some(at)),
            is_answered: true,
            ..open
        });
        if is_elsewhere {
            self.adopted.set(self.adopted.get() + 1);
            let count = self.counts()[at];
            if count > CAP {
                self.beyond.set(self.beyond.get() + 1);
            }
            // Those that were picked before and are in the middle of their callbacks come on top.
            let busy = VMS - self.turns.idle().len();
            let allowed = &mut self.allowed.borrow_mut()[at];
            *allowed = (count + busy).max(*allowed);
        }
        Ok(())
    }

    fn rest(&self) {
        for _ in 0..2_000 {
            for worker in 0..VMS {
                self.roots[worker]
                    .vm
                    .deliver_queue_items()
                    .in_case(&self.case);
                let open = self.open[worker].take();
                let (gone, waits): (Vec<_>, Vec<_>) = open.into_iter().partition(Open::has_gone_on);
                self.open[worker].replace(waits);
                for open in gone {
                    open.stream.end().in_case(&self.case);
                }
                self.roots[worker].tick().in_case(&self.case);
            }
            self.process.advance(Duration::from_millis(10));
            if self.open.iter().all(|open| open.borrow().is_empty()) {
                break;
            }
        }
        self.process.advance(Duration::from_millis(300));
        for root in &self.roots {
            root.tick().in_case(&self.case);
        }
        assert!(
            self.open.iter().all(|open| open.borrow().is_empty()),
            "{}: some wait for ever",
            self.case
        );
        assert_eq!(total_in_flight(&self.process), 0, "{}", self.case);
        let held = self.process.gauges("paceline_held;");
        assert_eq!(held.values().sum::<u64>(), 0, "{}", self.case);
    }
}

#[test]
fn picks_never_exceed_the_cap_of_an_endpoint_that_has_been_discovered() {
    let (mut adopted, mut beyond, mut waited) = (0, 0, 0);
    for seed in 0..3 {
        let fleet = Discovering::start(9_000 + seed);
        for _ in 0..STEPS {
            fleet.turns.interrupt_one_in([4, 8, 16][fleet.draw(3)]);
            fleet.turns.allow(INNER_STEPS);
            fleet.step_anywhere();
        }
        fleet.turns.allow(0);
        fleet.rest();
        let reasons = pass_throughs(&fleet.process);
        let others: BTreeMap<_, _> = reasons
            .iter()
            .filter(|(it, _)| *it != "exploration")
            .collect();
        assert!(others.is_empty(), "{reasons:?}");
        assert!(fleet.most.get() >= CAP, "the caps were reached");
        adopted += fleet.adopted.get();
        beyond += fleet.beyond.get();
        waited += fleet.waited.get();
    }
    println!(
        "{adopted} counted where they were answered, {beyond} of them beyond the cap; {waited} waited"
    );
    assert!(
        adopted > 50 && beyond > 3,
        "{adopted}, {beyond} beyond the cap"
    );
    assert!(waited > 50, "{waited} waited");
}
