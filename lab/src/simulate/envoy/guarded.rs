//! `LEAST_REQUEST` that leaves out the hosts that Envoy holds for unhealthy.

use paceline::random::Rng;

use super::LeastRequest;
use super::checks::Checks;
use super::outliers::Outliers;
use crate::model::Time;
use crate::simulate::balancer::{Ended, LoadBalancer, Pick};
use crate::simulate::call::Call;
use crate::simulate::fleet::Fleet;

/// `healthy_panic_threshold`: if a smaller part of the hosts is healthy, in percent, all of them are used.
const PANIC_THRESHOLD: usize = 50;

/// `LEAST_REQUEST` with outlier detection, and health checks if it is told so. Each process has its own.
#[derive(Debug)]
pub struct Guarded {
    least_request: LeastRequest,
    gateways: Vec<Cluster>,
    present: Vec<usize>,
    rng: Rng,
}

#[derive(Clone, Debug, Default)]
struct Cluster {
    outliers: Outliers,
    checks: Option<Checks>,
}

impl Guarded {
    /// Two choices, as Envoy's default.
    pub fn new(has_checks: bool, gateways: usize, seed: u64) -> Self {
        let cluster = Cluster {
            outliers: Outliers::default(),
            checks: has_checks.then(Checks::default),
        };
        Self {
            least_request: LeastRequest::new(Some(2), gateways, seed),
            gateways: vec![cluster; gateways],
            present: Vec::new(),
            rng: Rng::new(seed ^ 0x0068_6561_6c74_6879),
        }
    }
}

impl Cluster {
    fn is_healthy(&self, host: usize) -> bool {
        let fails = self.checks.as_ref().is_some_and(|it| it.is_unhealthy(host));
        !fails && !self.outliers.is_ejected(host)
    }
}

impl LoadBalancer for Guarded {
    fn pick(&mut self, call: &Call, _now: Time, fleet: &Fleet) -> Pick {
        let Some(cluster) = self.gateways.get(call.gateway) else {
            return Pick::Unavailable;
        };
        let present = self.present.iter().copied();
        let healthy: Vec<usize> = present.filter(|host| cluster.is_healthy(*host)).collect();
        let panics = 100 * healthy.len() < PANIC_THRESHOLD * self.present.len();
        let hosts = if panics { &self.present } else { &healthy };
        self.least_request.pick_among(hosts, call, fleet)
    }

    fn ended(&mut self, ended: &Ended<'_>, now: Time, fleet: &Fleet) {
        self.least_request.ended(ended, now, fleet);
        let cluster = self.gateways.get_mut(ended.call.gateway);
        if let (Some(cluster), Some(status)) = (cluster, ended.finished.end.status) {
            cluster.outliers.hear(ended.server, status, now);
        }
    }

    fn membership(&mut self, now: Time, fleet: &Fleet) {
        self.present = fleet.present().map(|(host, _)| host).collect();
        for cluster in &mut self.gateways {
            cluster.outliers.set_members(&self.present);
            if let Some(checks) = &mut cluster.checks {
                checks.set_members(&self.present, now, &mut self.rng);
            }
        }
    }

    fn tick(&mut self, now: Time, fleet: &Fleet) {
        for Cluster { outliers, checks } in &mut self.gateways {
            for host in checks.iter_mut().flat_map(|it| it.tick(now, fleet)) {
                // `successful_active_health_check_uneject_host` is on by default.
                outliers.restore(host, now);
            }
            outliers.tick(now);
        }
    }
}
