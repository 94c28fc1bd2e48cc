//! Envoy's active health checks over HTTP.
//!
//! Written from [their documentation][arch] and [their fields][api]: every second each process asks every host. Two timeouts or broken
//! connections in a row make a host unhealthy, a wrong answer at once; one good answer makes it healthy. A host that joins is
//! unhealthy until its first good answer, and those that a cluster begins with have been checked before it serves. The check expects
//! 200 and `ready` in the body (`receive`), as Paceline's does in these comparisons.
//!
//! [arch]: https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/health_checking
//! [api]: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/core/v3/health_check.proto

use std::time::Duration;

use paceline::random::Rng;

use crate::model::{HealthAnswer, Time};
use crate::simulate::fleet::Fleet;
use crate::simulate::probed::Probed;

/// `interval`.
const INTERVAL: Duration = Duration::from_secs(1);
/// `timeout`.
const TIMEOUT: Duration = Duration::from_millis(500);
/// `unhealthy_threshold`.
const UNHEALTHY_THRESHOLD: u32 = 2;

/// One process's view of a cluster. `healthy_threshold` is 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    /// By number of the server.
    hosts: Vec<Host>,
    /// Whether the cluster has begun to serve.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    is_member: bool,
    is_unhealthy: bool,
    /// Timeouts and broken connections in a row.
    broken: u32,
    due_at: Time,
    /// When the check that is under way began.
    asked_at: Option<Time>,
}

impl Checks {
    /// The cluster has these hosts from `now` on.
    pub(super) fn set_members(&mut self, members: &[usize], now: Time, rng: &mut Rng) {
        let most = members.iter().max().map_or(0, |most| most + 1);
        self.hosts
            .resize(self.hosts.len().max(most), Host::default());
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let is_member = members.contains(&number);
            if host.is_member == is_member {
                continue;
            }
            // What is new is asked at once; at first all are, at moments of their own.
            let wait = if self.has_begun { 0.0 } else { rng.unit() };
            *host = Host {
                is_member,
                is_unhealthy: self.has_begun,
                due_at: now + INTERVAL.mul_f64(wait),
                ..Host::default()
            };
        }
        self.has_begun = true;
    }

    pub(super) fn is_unhealthy(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(|host| host.is_unhealthy)
    }

    /// Asks those that are due, and hears those that answer. Returns the hosts whose checks succeeded.
    pub(super) fn tick(&mut self, now: Time, fleet: &Fleet) -> Vec<usize> {
        let mut good = Vec::new();
        let members = self.hosts.iter_mut().enumerate();
        for (number, host) in members.filter(|(_, host)| host.is_member) {
            let asked_at = match host.asked_at {
                Some(asked_at) => asked_at,
                None if host.due_at <= now => now,
                None => continue,
            };
            let Some(replica) = fleet.replicas().get(number) else {
                continue;
            };
            host.asked_at = None;
            match Probed::of(replica, now) {
                Probed::Answered(HealthAnswer::Ready) => {
                    (host.is_unhealthy, host.broken) = (false, 0);
                    good.push(number);
                }
                Probed::Answered(_) => host.is_unhealthy = true,
                Probed::Nothing if now.since(asked_at) < TIMEOUT => {
                    host.asked_at = Some(asked_at);
                    continue;
                }
                Probed::Nothing | Probed::Reset => {
                    host.broken += 1;
                    host.is_unhealthy |= host.broken >= UNHEALTHY_THRESHOLD;
                }
            }
            // The interval begins at the end of a check.
            host.due_at = now + INTERVAL;
        }
        good
    }
}
