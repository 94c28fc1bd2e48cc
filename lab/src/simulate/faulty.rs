//! When servers are not as they should be, and what is sent there nevertheless.

use super::call::Ending;
use super::engine::{Happening, Incident};
use crate::model::{Control, Time};

/// A server is not as it should be, from one time to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fault {
    server: usize,
    from: Time,
    /// `None` is for ever.
    until: Option<Time>,
}

impl Fault {
    fn holds(&self, at: Time) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// Of the requests that were sent while any server was told to be slow, to fail, to hang, to load or not to be ready: the part that went
/// to such a server. Nothing where there were none.
pub(super) fn sent_to_faulty(incidents: &[Incident], endings: &[Ending]) -> Option<f64> {
    let faults = faults(incidents);
    let (mut all, mut there) = (0u32, 0u32);
    for ending in endings {
        let mut now = faults.iter().filter(|fault| fault.holds(ending.sent));
        let first = now.next();
        let mut at_fault = first.into_iter().chain(now).map(|fault| fault.server);
        all += u32::from(first.is_some());
        there += u32::from(at_fault.any(|server| ending.server == Some(server)));
    }
    (all > 0).then(|| f64::from(there) / f64::from(all))
}

fn faults(incidents: &[Incident]) -> Vec<Fault> {
    let told = |incident: &Incident| match &incident.what {
        Happening::Control { server, control } => Some((incident.at, *server, control.clone())),
        _ => None,
    };
    let controls: Vec<(Time, usize, Control)> = incidents.iter().filter_map(told).collect();
    let faults = controls
        .iter()
        .enumerate()
        .filter(|(_, (_, _, it))| !it.normal);
    let fault = faults.map(|(place, (from, server, control))| {
        let later = controls.iter().skip(place + 1);
        let next = later.filter(|(_, it, _)| it == server).map(|it| it.0);
        let loaded = control.reload_seconds;
        let loaded = loaded.map(|seconds| *from + std::time::Duration::from_secs_f64(seconds));
        Fault {
            server: *server,
            from: *from,
            until: next.chain(loaded).min(),
        }
    });
    fault.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use paceline::outcome::Outcome;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn told(seconds: u64, server: usize, json: &str) -> Incident {
        let control = Control::from_json(json.as_bytes()).unwrap();
        Incident {
            at: at(seconds),
            what: Happening::Control { server, control },
        }
    }

    #[test]
    fn what_is_sent_to_servers_at_fault_is_counted_while_they_are() {
        let incidents = [
            told(10, 0, r#"{"ready": false}"#),
            told(20, 0, r#"{"ready": true, "reload_seconds": 5}"#),
            told(40, 1, r#"{"mode": "stop"}"#),
            told(50, 1, r#"{"normal": true}"#),
        ];
        let sent = |seconds, server| {
            let ending = Ending::sent_at(at(seconds));
            Ending {
                server: Some(server),
                outcome: Outcome::Success,
                ..ending
            }
        };
        let of = |endings: &[Ending]| sent_to_faulty(&incidents, endings);
        assert_eq!(of(&[sent(5, 0), sent(25, 0), sent(50, 1)]), None);
        let some = [
            sent(10, 0),
            sent(12, 1),
            sent(24, 0),
            sent(45, 0),
            sent(49, 1),
        ];
        assert_eq!(of(&some), Some(3.0 / 5.0));
    }
}
