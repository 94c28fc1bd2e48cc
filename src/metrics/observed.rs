//! The metrics of a pool that balances a part of its requests, or none: how Paceline's
//! picks compare with the proxy's, and how the requests fare that took either.

use super::metric::{Metric, label};
use crate::host::{Host, MetricKind};
use crate::outcome::{End, Outcome};

/// Who decided where a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Paceline.
    Balanced,
    /// The proxy.
    Observed,
}

/// How the upstream that served a request compares with the pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It is the same.
    Agreed,
    /// It is another.
    Differed,
    /// The server is no upstream that is known.
    Unidentified,
    /// The proxy sent the request nowhere.
    Unserved,
}

impl Group {
    const ALL: [&str; 2] = ["balanced", "observed"];
}

impl Agreement {
    const ALL: [&str; 4] = ["agreed", "differed", "unidentified", "unserved"];
}

/// The metrics of one pool.
#[derive(Debug)]
pub(super) struct ObservedMetrics {
    /// By agreement.
    compared: Vec<Metric>,
    /// See [`DELAYS`].
    delays: [Metric; 2],
    /// By group.
    groups: Vec<GroupMetrics>,
}

#[derive(Debug)]
struct GroupMetrics {
    outcomes: Vec<Metric>,
    latency: Metric,
}

/// What was expected at the picks, and where the requests went.
const DELAYS: [&str; 2] = [
    "paceline_observed_pick_delay_microseconds_total",
    "paceline_observed_server_delay_microseconds_total",
];

// Parts and not formats: these are half as much code.
#[inline(never)]
fn counter(parts: &[&str]) -> Metric {
    Metric::new(MetricKind::Counter, parts.concat())
}

impl ObservedMetrics {
    pub(super) fn new(pool: &str) -> Self {
        let pool = [";pool=", &label(pool)].concat();
        let compared =
            |agreement: &&str| counter(&["paceline_observed_total", &pool, ";outcome=", agreement]);
        let delay = |name: &str| counter(&[name, &pool]);
        let group = |group: &&str| {
            let labels = [&pool, ";group=", group].concat();
            let outcome = |outcome: &Outcome| {
                let name = "paceline_group_outcomes_total";
                counter(&[name, &labels, ";outcome=", outcome.label()])
            };
            let latency = ["paceline_group_latency_milliseconds", &labels].concat();
            GroupMetrics {
                outcomes: Outcome::ALL.iter().map(outcome).collect(),
                latency: Metric::new(MetricKind::Histogram, latency),
            }
        };
        ObservedMetrics {
            compared: Agreement::ALL.iter().map(compared).collect(),
            delays: DELAYS.map(delay),
            groups: Group::ALL.iter().map(group).collect(),
        }
    }

    /// A request went where it went, with the seconds that were expected at the pick and
    /// there.
    pub(super) fn compared(
        &mut self,
        host: &mut impl Host,
        agreement: Agreement,
        delays: Option<(f64, f64)>,
    ) {
        if let Some(metric) = self.compared.get_mut(agreement as usize) {
            metric.add(host, 1);
        }
        if let Some((at_pick, there)) = delays {
            for (metric, seconds) in self.delays.iter_mut().zip([at_pick, there]) {
                metric.add(host, (seconds * 1e6) as i64);
            }
        }
    }

    /// A request of the group ended, after so many milliseconds.
    pub(super) fn tried(&mut self, host: &mut impl Host, group: Group, end: &End, millis: u64) {
        let Some(group) = self.groups.get_mut(group as usize) else {
            return;
        };
        if let Some(metric) = group.outcomes.get_mut(end.outcome().index()) {
            metric.add(host, 1);
        }
        // An error that comes at once is no low latency.
        let is_good = end.status.is_some_and(|status| status < 400);
        if is_good && end.response_complete {
            group.latency.record(host, millis);
        }
    }
}
