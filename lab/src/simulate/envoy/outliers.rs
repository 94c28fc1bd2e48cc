//! Envoy's outlier detection.
//!
//! Written from [its documentation][arch] and [its fields][api], and from the behaviour of `outlier_detection_impl.cc` of 1.40 where they
//! leave something open. Each process judges for itself, and a host's counters are those of all its workers.
//!
//! - Five 5xx in a row eject a host at once. A reset counts as 503, a timeout as 504, and a client that gives up as nothing. Failures of
//!   gateways (502, 503, 504) in a row are counted by Envoy, too, and eject nobody unless somebody sets
//!   `enforcing_consecutive_gateway_failure`; with the same number of five they would add nothing.
//! - Every ten seconds a host is ejected whose success rate is more than 1.9 standard deviations below the mean, where at least five hosts
//!   had a hundred requests each.
//! - An ejection lasts 30 seconds, times how often it has happened, five minutes at most, and is ended by the same timer. The number
//!   falls by one with each ten seconds in the pool.
//!
//! Of the defaults one is not kept. With `max_ejection_percent` at 10, which is Envoy's, not one of fewer than ten hosts is ever ejected
//! since 1.27 (`always_eject_one_host` is off); here it is 50, as in Paceline.
//!
//! [arch]: https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/outlier
//! [api]: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/outlier_detection.proto

use std::time::Duration;

use crate::model::Time;

/// `interval`.
const INTERVAL: Duration = Duration::from_secs(10);
/// `base_ejection_time`.
const BASE_EJECTION: Duration = Duration::from_secs(30);
/// `max_ejection_time`.
const MAX_EJECTION: Duration = Duration::from_secs(300);
/// `consecutive_5xx`.
const CONSECUTIVE_5XX: u32 = 5;
/// `max_ejection_percent`.
const MAX_EJECTION_PERCENT: usize = 50;
/// `success_rate_minimum_hosts`.
const MINIMUM_HOSTS: usize = 5;
/// `success_rate_request_volume`.
const REQUEST_VOLUME: u32 = 100;
/// `success_rate_stdev_factor`, which is given in thousandths.
const STDEV_FACTOR: f64 = 1.9;

/// One process's view of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Outliers {
    /// By number of the server.
    hosts: Vec<Host>,
    looked_at: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    is_member: bool,
    consecutive_5xx: u32,
    /// Within this interval.
    requests: u32,
    successes: u32,
    ejected_at: Option<Time>,
    returned_at: Option<Time>,
    /// How many times the base an ejection lasts.
    times: u32,
}

impl Outliers {
    /// The cluster has these hosts. What was known of others is forgotten.
    pub(super) fn set_members(&mut self, members: &[usize]) {
        let most = members.iter().max().map_or(0, |most| most + 1);
        self.hosts
            .resize(self.hosts.len().max(most), Host::default());
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let is_member = members.contains(&number);
            if host.is_member != is_member {
                *host = Host {
                    is_member,
                    ..Host::default()
                };
            }
        }
    }

    pub(super) fn is_ejected(&self, host: usize) -> bool {
        let host = self.hosts.get(host);
        host.is_some_and(|host| host.ejected_at.is_some())
    }

    /// A host has answered with this status, or Envoy in its place.
    pub(super) fn hear(&mut self, number: usize, status: u16, now: Time) {
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.is_member) else {
            return;
        };
        host.requests += 1;
        if !(500..600).contains(&status) {
            host.successes += 1;
            host.consecutive_5xx = 0;
            return;
        }
        host.consecutive_5xx += 1;
        if host.consecutive_5xx == CONSECUTIVE_5XX && host.ejected_at.is_none() {
            host.consecutive_5xx = 0;
            self.eject(number, now);
        }
    }

    /// A health check has found the host well.
    pub(super) fn restore(&mut self, number: usize, now: Time) {
        if let Some(host) = self.hosts.get_mut(number) {
            host.restore(now);
        }
    }

    /// To be called more often than every interval.
    pub(super) fn tick(&mut self, now: Time) {
        if now.since(self.looked_at) < INTERVAL {
            return;
        }
        self.looked_at = now;
        for host in &mut self.hosts {
            let lasts = (BASE_EJECTION * host.times).min(MAX_EJECTION);
            if host.ejected_at.is_some_and(|at| now.since(at) >= lasts) {
                host.restore(now);
            }
        }
        for number in self.unsuccessful() {
            self.eject(number, now);
        }
        for host in &mut self.hosts {
            (host.requests, host.successes) = (0, 0);
            let has_stayed = |at| now.since(at) >= INTERVAL;
            if host.ejected_at.is_none() && host.returned_at.is_some_and(has_stayed) {
                host.times = host.times.saturating_sub(1);
            }
        }
    }

    /// Those whose success rate is an outlier.
    fn unsuccessful(&self) -> Vec<usize> {
        let judged = self.hosts.iter().enumerate().filter(|(_, host)| {
            host.is_member && host.ejected_at.is_none() && host.requests >= REQUEST_VOLUME
        });
        let rates: Vec<(usize, f64)> = judged
            .map(|(number, host)| (number, f64::from(host.successes) / f64::from(host.requests)))
            .collect();
        if rates.len() < MINIMUM_HOSTS {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let squares = rates.iter().map(|(_, rate)| (rate - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        let least = mean - STDEV_FACTOR * deviation;
        let outliers = rates.iter().filter(|(_, rate)| *rate < least);
        outliers.map(|(number, _)| *number).collect()
    }

    fn eject(&mut self, number: usize, now: Time) {
        let members = self.hosts.iter().filter(|host| host.is_member);
        let (count, out) = members.fold((0, 0), |(count, out), host| {
            (count + 1, out + usize::from(host.ejected_at.is_some()))
        });
        let may = 100 * (out + 1) <= MAX_EJECTION_PERCENT * count;
        if let Some(host) = self.hosts.get_mut(number).filter(|_| may) {
            host.ejected_at = Some(now);
            if BASE_EJECTION * host.times < MAX_EJECTION + BASE_EJECTION {
                host.times += 1;
            }
        }
    }
}

impl Host {
    fn restore(&mut self, now: Time) {
        if self.ejected_at.take().is_some() {
            self.consecutive_5xx = 0;
            self.returned_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn cluster(hosts: usize) -> Outliers {
        let mut outliers = Outliers::default();
        outliers.set_members(&(0..hosts).collect::<Vec<_>>());
        outliers
    }

    fn hear(outliers: &mut Outliers, host: usize, statuses: &[u16], now: Time) {
        for status in statuses {
            outliers.hear(host, *status, now);
        }
    }

    #[test]
    fn five_5xx_in_a_row_eject_and_each_time_for_longer() {
        let mut outliers = cluster(4);
        hear(
            &mut outliers,
            0,
            &[500, 503, 404, 500, 500, 500, 504],
            at(1),
        );
        assert!(!outliers.is_ejected(0));
        hear(&mut outliers, 0, &[502], at(1));
        assert!(outliers.is_ejected(0));
        let ejections: Vec<u64> = (0..3)
            .map(|_| {
                let began = outliers.hosts[0].ejected_at.unwrap();
                let mut now = began;
                while outliers.is_ejected(0) {
                    now = now + Duration::from_millis(250);
                    outliers.tick(now);
                }
                hear(&mut outliers, 0, &[503; 5], now);
                now.since(began).as_secs()
            })
            .collect();
        // The timer ends them, so they may be up to ten seconds longer.
        assert_eq!(ejections, [39, 60, 90]);
    }

    #[test]
    fn no_more_than_half_are_ejected() {
        let mut outliers = cluster(5);
        for host in 0..5 {
            hear(&mut outliers, host, &[503; 5], at(1));
        }
        let ejected = (0..5).filter(|host| outliers.is_ejected(*host)).count();
        assert_eq!(ejected, 2);
    }

    #[test]
    fn a_success_rate_far_below_the_others_ejects() {
        let mut outliers = cluster(8);
        let answers =
            |failed: usize| (0..120).map(move |place| if place % 4 < failed { 500 } else { 200 });
        for host in 0..8 {
            let failed = usize::from(host == 3);
            hear(
                &mut outliers,
                host,
                &answers(failed).collect::<Vec<_>>(),
                at(1),
            );
        }
        outliers.tick(at(10));
        let ejected: Vec<usize> = (0..8).filter(|host| outliers.is_ejected(*host)).collect();
        assert_eq!(ejected, [3]);
        // A hundred requests are needed, of five hosts.
        let mut few = cluster(8);
        for host in 0..8 {
            hear(
                &mut few,
                host,
                &[if host == 3 { 500 } else { 200 }, 200].repeat(45),
                at(1),
            );
        }
        few.tick(at(10));
        assert!((0..8).all(|host| !few.is_ejected(host)));
    }

    #[test]
    fn a_good_health_check_ends_an_ejection_and_who_leaves_is_forgotten() {
        let mut outliers = cluster(4);
        hear(&mut outliers, 1, &[503; 5], at(1));
        outliers.restore(1, at(2));
        assert!(!outliers.is_ejected(1));
        hear(&mut outliers, 1, &[503; 5], at(3));
        outliers.set_members(&[0, 2, 3]);
        outliers.set_members(&[0, 1, 2, 3]);
        assert!(!outliers.is_ejected(1));
    }
}
