//! Peak-EWMA with two choices, written from tower's documentation of `load::PeakEwma` and `balance::p2c`.

use paceline::random::Rng;

use super::balancer::{Ended, LoadBalancer, Pick};
use super::call::Call;
use super::fleet::Fleet;
use crate::model::Time;

/// The least peak-sensitive latency times requests in flight, of two servers drawn without replacement.
///
/// Every end counts as a latency, a failure too: that is what tower measures. A process has one balancer, whatever its workers.
#[derive(Debug)]
pub struct PeakEwma {
    rng: Rng,
    present: Vec<usize>,
    /// By process and server.
    endpoints: Vec<Vec<Endpoint>>,
}

/// As tower's example and Linkerd have it.
const DEFAULT_RTT: f64 = 0.03;
const DECAY: f64 = 10.0;

#[derive(Clone, Copy, Debug)]
struct Endpoint {
    /// Seconds.
    rtt: f64,
    updated_at: Time,
    pending: u32,
}

impl Endpoint {
    /// A slower latency replaces the estimate, a faster one draws it down with the time since the last update.
    fn update(&mut self, rtt: f64, now: Time) {
        if rtt > self.rtt {
            self.rtt = rtt;
        } else {
            let kept = (-now.since(self.updated_at).as_secs_f64() / DECAY).exp();
            self.rtt = self.rtt * kept + rtt * (1.0 - kept);
        }
        self.updated_at = now;
    }

    /// A look at the load is an update with a latency of zero, so that what nobody uses comes back.
    fn load(&mut self, now: Time) -> f64 {
        self.update(0.0, now);
        self.rtt * f64::from(self.pending + 1)
    }
}

impl PeakEwma {
    /// For so many processes.
    pub fn new(gateways: usize, seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            present: Vec::new(),
            endpoints: vec![Vec::new(); gateways],
        }
    }
}

impl LoadBalancer for PeakEwma {
    fn pick(&mut self, call: &Call, now: Time, _fleet: &Fleet) -> Pick {
        let Some(endpoints) = self.endpoints.get_mut(call.gateway) else {
            return Pick::Unavailable;
        };
        let count = self.present.len();
        let first = self.rng.below(count);
        let mut second = self.rng.below(count.saturating_sub(1));
        second += usize::from(second >= first);
        let drawn = [first, second].map(|place| self.present.get(place).copied());
        let mut load = |server: usize| endpoints.get_mut(server).map(|it| it.load(now));
        let winner = match drawn {
            [Some(first), Some(second)] if load(second) < load(first) => second,
            [Some(first), _] => first,
            [None, _] => return Pick::Unavailable,
        };
        if let Some(endpoint) = endpoints.get_mut(winner) {
            endpoint.pending += 1;
        }
        Pick::Server(winner)
    }

    fn ended(&mut self, ended: &Ended<'_>, now: Time, _fleet: &Fleet) {
        let endpoints = self.endpoints.get_mut(ended.call.gateway);
        if let Some(endpoint) = endpoints.and_then(|all| all.get_mut(ended.server)) {
            endpoint.pending -= 1;
            endpoint.update(ended.latency.as_secs_f64(), now);
        }
    }

    fn membership(&mut self, now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(server, _)| server).collect();
        let fresh = Endpoint {
            rtt: DEFAULT_RTT,
            updated_at: now,
            pending: 0,
        };
        for endpoints in &mut self.endpoints {
            endpoints.resize(fleet.replicas().len(), fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_estimate_jumps_up_decays_and_is_drawn_down_by_looks() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut endpoint = Endpoint {
            rtt: DEFAULT_RTT,
            updated_at: at(0),
            pending: 2,
        };
        endpoint.update(1.0, at(0));
        assert_eq!(endpoint.rtt, 1.0);
        assert!((endpoint.load(at(10)) - 3.0 / std::f64::consts::E).abs() < 1e-9);
        endpoint.update(0.1, at(20));
        let expected = (-2f64).exp() + 0.1 * (1.0 - (-1f64).exp());
        assert!((endpoint.rtt - expected).abs() < 1e-9);
    }
}
