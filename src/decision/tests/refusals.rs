//! Requests that an upstream says are wrong.

use super::*;

#[test]
fn a_server_that_alone_says_that_requests_are_wrong_draws_few() {
    for policy in LEARNING {
        for status in [400, 401, 403, 404, 413, 422] {
            let finished = |server| answered(if server == 0 { status } else { 200 });
            let seconds = |server| if server == 0 { 0.001 } else { 0.3 };
            let mut balancer = pool_of(policy, 4);
            let shares = closed_loop(&mut balancer, 8, 4_000, finished, seconds);
            assert!(shares[0] < 200, "{policy} {status}: {shares:?}");
        }
        let finished = |server| answered(if server < 2 { 404 } else { 200 });
        let seconds = |server| if server < 2 { 0.001 } else { 0.3 };
        let mut balancer = pool_of(policy, 8);
        let shares = closed_loop(&mut balancer, 16, 4_000, finished, seconds);
        assert!(shares[0] + shares[1] < 300, "{policy}: {shares:?}");
    }
}

#[test]
fn few_requests_suffice_to_find_a_server_that_refuses_them() {
    // Four clients, five seconds each: less than a request a second.
    let finished = |server| answered(if server == 0 { 404 } else { 200 });
    let seconds = |server| if server == 0 { 0.001 } else { 5.0 };
    let mut balancer = pool_of("shortest_expected_delay", 4);
    let shares = closed_loop(&mut balancer, 4, 3_000, finished, seconds);
    assert!(shares[0] < 150, "{shares:?}");
}

#[test]
fn requests_that_are_wrong_everywhere_punish_nobody() {
    for policy in LEARNING {
        for share in [10, 50, 100] {
            let rng = std::cell::RefCell::new(Rng::new(11));
            let finished = |_| {
                let is_wrong = rng.borrow_mut().below(100) < share;
                answered(if is_wrong { 400 } else { 200 })
            };
            let mut balancer = pool_of(policy, 4);
            let shares = closed_loop(&mut balancer, 8, 4_000, finished, |_| 0.3);
            assert!(
                shares.iter().all(|n| (850..1_150).contains(n)),
                "{policy}, {share} %: {shares:?}"
            );
        }
    }
}

/// Eight requests at a time, each for a while that depends on chance. After each
/// that is sent, `then` may do more.
struct Traffic {
    shared: Memory,
    balancer: Balancer,
    rng: Rng,
    now: f64,
    open: Vec<(usize, Reservation)>,
}

impl Traffic {
    fn new(balancer: Balancer) -> Self {
        Traffic {
            shared: Memory::default(),
            balancer,
            rng: Rng::new(17),
            now: 1.0,
            open: Vec::new(),
        }
    }

    fn pick(&mut self) -> Route {
        self.balancer
            .decide(&mut self.shared, &ANY, at(self.now))
            .routed()
            .unwrap()
    }

    fn release(&mut self, reservation: Reservation, status: u16) {
        self.balancer
            .release(
                &mut self.shared,
                reservation,
                &answered(status),
                at(self.now),
            )
            .unwrap();
    }

    /// Sends so many requests, four a second; returns how many each server got.
    fn run(&mut self, requests: usize, status: impl Fn(usize) -> u16) -> [usize; 4] {
        let mut shares = [0; 4];
        for _ in 0..requests {
            self.now += 0.25;
            if self.open.len() == 8 {
                let (member, reservation) = self.open.swap_remove(self.rng.below(8));
                self.release(reservation, status(member));
            }
            let route = self.pick();
            shares[route.member.0] += 1;
            self.open.push((route.member.0, route.reservation));
        }
        shares
    }
}

#[test]
fn one_client_whose_requests_are_all_wrong_shifts_little() {
    let mut traffic = Traffic::new(pool_of("shortest_expected_delay", 4));
    let mut shares = [0; 4];
    for _ in 0..20 {
        for (share, more) in shares.iter_mut().zip(traffic.run(200, |_| 200)) {
            *share += more;
        }
        // Refused at once, so that each goes to the server that is idlest until
        // that is doubted.
        for _ in 0..30 {
            let route = traffic.pick();
            traffic.release(route.reservation, 400);
        }
    }
    assert!(
        shares.iter().all(|n| (800..1_200).contains(n)),
        "{shares:?}"
    );
}

#[test]
fn a_server_that_is_mended_gets_its_share_again() {
    for policy in ["shortest_expected_delay", "least_request"] {
        let mut traffic = Traffic::new(pool_of(policy, 4));
        let refuses = |member| if member == 0 { 404 } else { 200 };
        traffic.run(1_200, refuses);
        let broken = traffic.run(1_200, refuses);
        assert!(broken[0] < 60, "{policy}: {broken:?}");
        // Its ejection ends.
        traffic.now += 300.0;
        let soon = traffic.run(480, |_| 200);
        let mended = traffic.run(1_200, |_| 200);
        println!("{policy}: {broken:?} {soon:?} {mended:?}");
        assert!((240..360).contains(&mended[0]), "{policy}: {mended:?}");
    }
}
