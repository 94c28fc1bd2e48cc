//! A limit finds what servers can do, though nobody tells it.

use proptest::prelude::*;

use super::*;
use crate::random::Rng;

/// How a server shares itself among what is in flight.
#[derive(Clone, Copy)]
enum Server {
    /// So many at once, the others wait.
    Slots(usize),
    /// All at once: a request alone takes `alone` seconds, and each other adds so much.
    Batch { alone: f64, each: f64 },
}

/// A server that always gets as much as the limit allows.
struct Backlog {
    server: Server,
    limit: ConcurrencyLimit,
    rng: Rng,
    now: f64,
    /// Work that is left, work in all, when it was picked, and the load then.
    jobs: Vec<Job>,
    completed: usize,
    /// It refuses what exceeds this.
    refuses_above: usize,
    refused: usize,
    mean_in_flight: f64,
}

struct Job {
    left: f64,
    work: f64,
    picked_at: f64,
    load: f64,
}

impl Backlog {
    fn new(server: Server, seed: u64) -> Self {
        Backlog {
            server,
            limit: ConcurrencyLimit::default(),
            rng: Rng::new(seed),
            now: 1000.0,
            jobs: Vec::new(),
            completed: 0,
            refuses_above: usize::MAX,
            refused: 0,
            mean_in_flight: 0.0,
        }
    }

    fn timestamp(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((seconds * 1e9) as u64)
    }

    fn fill(&mut self) {
        loop {
            let now = Backlog::timestamp(self.now);
            if self.jobs.len() as u64 >= self.limit.at(now) {
                return;
            }
            let load = self.jobs.len() as f64 + 1.0;
            if self.jobs.len() >= self.refuses_above {
                self.refused += 1;
                self.limit
                    .overload(load, now, Backlog::timestamp(self.now + 1e-3));
                self.now += 2e-3;
                return;
            }
            // Service times like a diffusion server's, and a part that size explains.
            let work = 0.2 - 0.8 * (1.0 - self.rng.unit()).ln();
            self.jobs.push(Job {
                left: work,
                work,
                picked_at: self.now,
                load,
            });
        }
    }

    /// Runs until the next request has ended.
    fn step(&mut self) {
        self.fill();
        let (running, rate) = match self.server {
            Server::Slots(slots) => (slots.min(self.jobs.len()), 1.0),
            Server::Batch { alone, each } => {
                let others = self.jobs.len() as f64 - 1.0;
                (self.jobs.len(), 1.0 / (alone + each * others))
            }
        };
        let running = &mut self.jobs[..running];
        let first = (0..running.len())
            .min_by(|a, b| running[*a].left.total_cmp(&running[*b].left))
            .unwrap();
        let seconds = running[first].left / rate;
        for job in running {
            job.left -= seconds * rate;
        }
        self.now += seconds;
        let job = self.jobs.remove(first);
        let latency = self.now - job.picked_at;
        self.completed += 1;
        self.mean_in_flight += (self.jobs.len() as f64 + 1.0 - self.mean_in_flight) / 300.0;
        let load = self.jobs.len() as f64 + 1.0;
        let now = Backlog::timestamp(self.now);
        self.limit.succeed(job.load, load, latency / job.work, now);
    }

    fn run(&mut self, requests: usize) -> f64 {
        let (before, began) = (self.completed, self.now);
        while self.completed < before + requests {
            self.step();
        }
        requests as f64 / (self.now - began)
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(second * 1_000_000_000)
}

/// The limits seen in so many requests: their mean.
fn mean_limit(backlog: &mut Backlog, requests: usize) -> f64 {
    let mut sum = 0.0;
    for _ in 0..requests {
        backlog.step();
        sum += f64::from(backlog.limit.limit);
    }
    sum / requests as f64
}

#[test]
fn slots_are_filled_and_what_stands_in_line_there_is_bounded() {
    let mut seen = Vec::new();
    for slots in [1, 2, 4, 8, 16] {
        let mut backlog = Backlog::new(Server::Slots(slots), 1);
        backlog.run(20_000);
        let share = backlog.run(5_000) / slots as f64;
        let limit = mean_limit(&mut backlog, 5_000);
        seen.push((slots, share, limit));
    }
    println!("{seen:?}");
    for (slots, share, limit) in seen {
        assert!(share > 0.9, "{slots} slots: {share} of capacity");
        let most = slots as f64 * 4.0;
        assert!(limit < most, "{slots} slots: {limit}");
    }
}

#[test]
fn a_batch_grows_as_long_as_that_is_worth_it() {
    let mut seen = Vec::new();
    for each in [0.5, 0.1, 0.02] {
        let mut backlog = Backlog::new(Server::Batch { alone: 1.0, each }, 1);
        backlog.run(20_000);
        let share = backlog.run(5_000) * each;
        let limit = mean_limit(&mut backlog, 20_000);
        seen.push((each, share, limit));
    }
    println!("{seen:?}");
    for (each, share, limit) in &seen {
        assert!(*share > 0.85, "{each}: {share} of the highest throughput");
        assert!(*limit < 60.0 / each, "{each}: {limit}");
    }
    assert!(
        seen.is_sorted_by(|a, b| a.2 < b.2),
        "the less each costs, the more at once"
    );
}

#[test]
fn a_server_that_changes_is_followed() {
    let mut backlog = Backlog::new(Server::Slots(16), 5);
    let mut limit_at = |slots| {
        backlog.server = Server::Slots(slots);
        backlog.run(20_000);
        mean_limit(&mut backlog, 3_000)
    };
    let limits = [16, 4, 16].map(&mut limit_at);
    println!("{limits:?}");
    assert!((8.0..96.0).contains(&limits[0]), "{limits:?}");
    assert!((2.0..24.0).contains(&limits[1]), "{limits:?}");
    // It overshoots before it comes back.
    assert!((8.0..1000.0).contains(&limits[2]), "{limits:?}");
}

#[test]
fn what_a_server_says_counts_at_once() {
    let mut backlog = Backlog::new(Server::Slots(32), 3);
    backlog.refuses_above = 10;
    backlog.run(5_000);
    let refused = backlog.refused;
    backlog.run(5_000);
    let refused = backlog.refused - refused;
    assert!(refused < 250, "{refused} of 5000");
    let limit = mean_limit(&mut backlog, 1_000);
    assert!((5.0..11.0).contains(&limit), "{limit}");
}

#[test]
fn one_overload_is_one_cut_however_many_requests_saw_it() {
    let mut limit = ConcurrencyLimit::default();
    for picked in 1..10 {
        limit.overload(4.0, at(picked), at(20));
    }
    assert_eq!(limit.parts().0[0], 3.6);
    limit.overload(2.0, at(21), at(22));
    assert_eq!(limit.parts().0[0], 1.8);
    for second in 23..40 {
        limit.overload(9.0, at(second), at(second));
    }
    assert_eq!((limit.base(), limit.at(at(0))), (1, 1));
}

#[test]
fn it_is_probed_in_turns_of_at_least_eight_latencies() {
    let mut limit = ConcurrencyLimit::default();
    for _ in 0..30 {
        limit.succeed(4.0, 4.0, 1.0, at(1));
    }
    limit.set(9.9);
    let at = |turns: f64| {
        let turn = (1u64 << 33) as f64;
        limit.at(Timestamp::from_nanos((turns * turn) as u64))
    };
    // 2^33 ns, 8.6 seconds.
    let seen = [0.1, 0.9, 1.1, 1.9, 2.1, 2.9, 3.1].map(at);
    assert_eq!(seen, [10, 10, 12, 12, 10, 10, 12]);
}

#[test]
fn a_limit_that_is_not_reached_does_not_rise() {
    let mut limit = ConcurrencyLimit::default();
    for _ in 0..100 {
        limit.succeed(255.0, 255.0, 1.0, at(1));
        limit.succeed(256.0, 256.0, 0.0, at(1));
        limit.succeed(256.0, 256.0, f64::NAN, at(1));
    }
    assert_eq!(limit.base(), 256);
    limit.succeed(256.0, 256.0, 1.0, at(1));
    assert!(limit.limit > 256.0);
}

proptest! {
    #[test]
    fn whatever_is_seen_it_stays_in_range_and_is_stored(
        seen in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>(), any::<bool>()), 0..50),
        parts in any::<[f32; ConcurrencyLimit::PARTS]>(),
    ) {
        let stored = ConcurrencyLimit::from_parts(parts, Timestamp::ZERO);
        for mut limit in [ConcurrencyLimit::default(), stored] {
            for (number, (one, two, three, is_success)) in seen.iter().enumerate() {
                let now = Timestamp::from_nanos(number as u64);
                match is_success {
                    true => limit.succeed(*one, *two, *three, now),
                    false => limit.overload(*one, now, now),
                }
                prop_assert!((1..=5120).contains(&limit.at(now)));
                let (parts, cut_at) = limit.parts();
                prop_assert_eq!(ConcurrencyLimit::from_parts(parts, cut_at), limit);
            }
        }
    }
}
