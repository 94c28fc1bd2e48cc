//! What happens while a scenario runs, as its file has it.

use std::collections::HashMap;

use serde::Deserialize;

use super::ScenarioError;
use super::limits::{refused, seconds_within, within};
use crate::model::{Control, Fleet, Time};
use crate::simulate::engine::{Happening, Incident, Reports};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventEntry {
    at_seconds: f64,
    until_seconds: Option<f64>,
    servers: Option<Vec<String>>,
    control: Option<Control>,
    membership: Option<Membership>,
    restart_worker: Option<WorkerEntry>,
    reports: Option<ReportsEntry>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Membership {
    Join,
    Leave,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerEntry {
    gateway: usize,
    worker: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportsEntry {
    lost: Option<f64>,
    delay_seconds: Option<f64>,
}

/// Which servers are there from the start, and what happens in the order of time.
pub(super) fn read_events(
    entries: Vec<EventEntry>,
    fleet: &Fleet,
    gateways: &[usize],
    workers: &[usize],
) -> Result<(Vec<bool>, Vec<Incident>), ScenarioError> {
    let numbers: HashMap<&str, usize> = fleet
        .servers()
        .iter()
        .zip(0..)
        .map(|(server, number)| (server.name.as_str(), number))
        .collect();
    let mut incidents = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        entry.check(index, &numbers, (gateways, workers), &mut incidents)?;
    }
    incidents.sort_by_key(|incident| incident.at);
    let mut present = vec![true; fleet.servers().len()];
    // Who joins before leaving was not there before.
    for incident in incidents.iter().rev() {
        if let Happening::Join(server) | Happening::Leave(server) = incident.what
            && let Some(there) = present.get_mut(server)
        {
            *there = matches!(incident.what, Happening::Leave(_));
        }
    }
    Ok((present, incidents))
}

impl EventEntry {
    fn check(
        self,
        index: usize,
        numbers: &HashMap<&str, usize>,
        (gateways, workers): (&[usize], &[usize]),
        incidents: &mut Vec<Incident>,
    ) -> Result<(), ScenarioError> {
        let key = |key: &str| format!("events[{index}].{key}");
        let time = |name: &str, seconds: f64| {
            let span = seconds_within(&key(name), Some(seconds), 0.0)?;
            Ok::<_, ScenarioError>(Time::ZERO + span.unwrap_or_default())
        };
        let at_time = time("at_seconds", self.at_seconds)?;
        let mut servers = Vec::new();
        for (place, name) in self.servers.iter().flatten().enumerate() {
            let number = numbers.get(name.as_str()).ok_or_else(|| {
                let place = key(&format!("servers[{place}]"));
                refused(
                    &place,
                    format!("{name:?}"),
                    "the name of a server of the fleet",
                )
            })?;
            servers.push(*number);
        }
        let mut add = |at, what| incidents.push(Incident { at, what });
        let until = self.until_seconds.map(|until| time("until_seconds", until));
        let until = until.transpose()?;
        if let Some(until) = until.filter(|until| *until <= at_time) {
            let allowed = "a time after at_seconds";
            return Err(refused(&key("until_seconds"), until.as_secs_f64(), allowed));
        }
        match (
            self.control,
            self.membership,
            self.restart_worker,
            self.reports,
        ) {
            (Some(control), None, None, None) => {
                control.check().map_err(|error| {
                    ScenarioError::Inside(format!("{}.{error}", key("control")))
                })?;
                if servers.is_empty() {
                    return Err(refused(&key("servers"), "nothing", "at least one server"));
                }
                for server in servers {
                    let control = control.clone();
                    add(at_time, Happening::Control { server, control });
                    if let Some(until) = until {
                        let control = Control {
                            normal: true,
                            ..Control::default()
                        };
                        add(until, Happening::Control { server, control });
                    }
                }
            }
            (None, Some(membership), None, None) => {
                if let Some(until) = self.until_seconds {
                    return Err(refused(
                        &key("until_seconds"),
                        until,
                        "only control and reports have it",
                    ));
                }
                if servers.is_empty() {
                    return Err(refused(&key("servers"), "nothing", "at least one server"));
                }
                for server in servers {
                    let what = match membership {
                        Membership::Join => Happening::Join(server),
                        Membership::Leave => Happening::Leave(server),
                    };
                    add(at_time, what);
                }
            }
            (None, None, Some(WorkerEntry { gateway, worker }), None) => {
                if self.until_seconds.is_some() || self.servers.is_some() {
                    let allowed = "restart_worker has neither until_seconds nor servers";
                    return Err(refused(&key("restart_worker"), "this event", allowed));
                }
                let fewest = |counts: &[usize]| counts.iter().copied().min().unwrap_or(1);
                within(
                    &key("restart_worker.gateway"),
                    gateway,
                    0,
                    fewest(gateways) - 1,
                )?;
                within(
                    &key("restart_worker.worker"),
                    worker,
                    0,
                    fewest(workers) - 1,
                )?;
                add(at_time, Happening::RestartWorker { gateway, worker });
            }
            (None, None, None, Some(reports)) => {
                if self.servers.is_some() {
                    let allowed = "reports has no servers: it is of all ends";
                    return Err(refused(&key("reports"), "this event", allowed));
                }
                add(at_time, Happening::Reports(reports.check(&key("reports"))?));
                if let Some(until) = until {
                    add(until, Happening::Reports(Reports::default()));
                }
            }
            _ => {
                let allowed = "one of control, membership, restart_worker and reports";
                return Err(refused(&format!("events[{index}]"), "this event", allowed));
            }
        }
        Ok(())
    }
}

impl ReportsEntry {
    fn check(&self, key: &str) -> Result<Reports, ScenarioError> {
        let lost = self.lost.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&lost) {
            return Err(refused(&format!("{key}.lost"), lost, "0 to 1"));
        }
        let delay = seconds_within(&format!("{key}.delay_seconds"), self.delay_seconds, 0.0)?;
        if self.lost.is_none() && delay.is_none() {
            return Err(refused(key, "nothing", "lost or delay_seconds"));
        }
        Ok(Reports {
            lost,
            delay: delay.unwrap_or_default(),
        })
    }
}
