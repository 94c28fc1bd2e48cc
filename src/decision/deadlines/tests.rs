//! Requests with deadlines, through whole decisions.

use crate::config::Config;
use crate::decision::{Balancer, Decision, Demand, Finished};
use crate::host::memory::Memory;
use crate::outcome::End;
use crate::rejection::Reason;
use crate::time::Timestamp;

/// A worker, the store, and the present.
struct Worker {
    balancer: Balancer,
    shared: Memory,
    now: f64,
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

impl Worker {
    /// With two upstreams, of which `a` has taken a second for each of many requests and
    /// `b` four.
    fn new(policy: &str, deadline: &str, further: &str) -> Self {
        let json = format!(
            r#"{{"upstreams": [{{"cluster": "a"{further}}}, {{"cluster": "b"{further}}}],
                "policy": "{policy}", "admission": {{"deadline": {deadline}}}}}"#
        );
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        let mut worker = Worker {
            balancer: Balancer::new(&config, "test".to_owned(), 7),
            shared: Memory::default(),
            now: 100.0,
        };
        for _ in 0..400 {
            let route = worker.decide(None).routed().unwrap();
            let took = [1.0, 4.0][route.member.0];
            worker.now += took;
            worker.end(route.reservation);
        }
        worker
    }

    fn demand(&self, seconds: Option<f64>) -> Demand {
        Demand {
            due: seconds.map(|seconds| at(self.now + seconds)),
            ..Demand::default()
        }
    }

    /// Decides about a request that may take so many seconds.
    fn decide(&mut self, seconds: Option<f64>) -> Decision {
        let demand = self.demand(seconds);
        self.balancer
            .decide(&mut self.shared, &demand, at(self.now))
    }

    fn end(&mut self, reservation: crate::decision::Reservation) {
        let finished = Finished {
            end: End {
                status: Some(200),
                attempts: 1,
                request_complete: true,
                response_complete: true,
                ..End::default()
            },
            ..Finished::default()
        };
        let now = at(self.now);
        let released = self
            .balancer
            .release(&mut self.shared, reservation, &finished, now);
        released.unwrap();
    }

    /// How many of forty such requests go to each upstream, and how many to none, where
    /// each ends before the next.
    fn shares(&mut self, seconds: f64) -> [usize; 3] {
        let mut shares = [0; 3];
        for _ in 0..40 {
            match self.decide(Some(seconds)) {
                Decision::Route(route) => {
                    shares[route.member.0] += 1;
                    self.now += [1.0, 4.0][route.member.0];
                    self.end(route.reservation);
                }
                Decision::Reject(rejection) => {
                    assert_eq!(rejection, Reason::Deadline);
                    shares[2] += 1;
                }
                other => panic!("{other:?}"),
            }
            self.now += 1.0;
        }
        shares
    }
}

#[test]
fn whoever_can_serve_it_in_time_gets_it_under_every_policy() {
    for policy in ["round_robin", "random", "least_request", "peak_ewma"] {
        let mut worker = Worker::new(policy, "{}", "");
        assert_eq!(worker.shares(2.0), [40, 0, 0], "{policy}");
        assert_eq!(worker.shares(0.5), [0, 0, 40], "{policy}");
    }
    let [fast, slow, none] = Worker::new("round_robin", "{}", "").shares(9.0);
    assert_eq!([fast, slow, none], [20, 20, 0]);
}

#[test]
fn what_is_preferred_is_never_refused() {
    let mut worker = Worker::new("round_robin", r#"{"mode": "prefer"}"#, "");
    assert_eq!(worker.shares(2.0), [40, 0, 0]);
    assert_eq!(worker.shares(0.5), [20, 20, 0]);
}

#[test]
fn what_is_off_does_nothing() {
    let mut worker = Worker::new("round_robin", r#"{"mode": "off", "default": "1s"}"#, "");
    assert_eq!(worker.shares(0.5), [20, 20, 0]);
    assert_eq!(
        worker
            .balancer
            .latest_start(&worker.demand(Some(1.0)), at(0.0)),
        None
    );
}

#[test]
fn a_new_pool_refuses_nothing() {
    let json = r#"{"upstreams": [{"cluster": "a"}], "admission": {"deadline": {}}}"#;
    let config = Config::parse(Some(json.as_bytes())).unwrap();
    let mut worker = Worker {
        balancer: Balancer::new(&config, "test".to_owned(), 7),
        shared: Memory::default(),
        now: 100.0,
    };
    assert!(matches!(worker.decide(Some(1e-3)), Decision::Route(_)));
}

#[test]
fn what_waits_starts_while_nearly_all_would_be_done_in_time() {
    let cap = r#", "max_in_flight": 1"#;
    let mut worker = Worker::new("least_request", "{}", cap);
    let (first, second) = (worker.decide(None), worker.decide(None));
    assert!(matches!(
        (&first, &second),
        (Decision::Route(_), Decision::Route(_))
    ));
    // Whoever starts when one of them has ended does not share it with another.
    assert!(matches!(worker.decide(Some(1.5)), Decision::Hold(_)));
    assert_eq!(worker.decide(Some(0.5)), Decision::Reject(Reason::Deadline));
    let now = at(worker.now);
    let latest = |seconds| {
        let demand = worker.demand(Some(seconds));
        let latest = worker.balancer.latest_start(&demand, now).unwrap();
        latest.seconds_since(now)
    };
    // Twice a second before any request with a deadline has ended; but a quarter of the
    // time is for waiting.
    assert!((latest(10.0) - 8.0).abs() < 0.2, "{}", latest(10.0));
    assert!((latest(1.0) - 0.25).abs() < 0.01, "{}", latest(1.0));
    for held in [first, second] {
        worker.end(held.routed().unwrap().reservation);
    }
}
