//! The scenarios, by what they ask.

use std::ops::Range;
use std::time::Duration;

use super::contender::Contender::{self, Guarded, Paceline, Plain};
use super::contender::Setup;
use super::scenario::{Check, Event, Scenario};
use crate::model::{Control, Fleet, FleetError, Loading, Mode};
use crate::workload::{ServiceTimes, Workload};

/// All scenarios, about seven minutes. Those of one list run at the same time.
///
/// # Errors
/// Never: the fleets are fixed.
pub fn fault_scenarios() -> Result<Vec<Vec<Scenario>>, FleetError> {
    let mut together = vec![vec![slow()?]];
    for (how, mode) in failures() {
        together.push(vec![fails(how, mode, true)?, fails(how, mode, false)?]);
    }
    together.push(vec![
        joins("says nothing", Loading::Hang)?,
        joins("says 503", Loading::Unavailable)?,
        joins("says 200 and `loading`", Loading::Says)?,
    ]);
    together.push(vec![throttled()?]);
    let engine = Control {
        speed: Some(0.001),
        ..Control::default()
    };
    together.push(vec![
        hangs("and its health path says 503", mode(Mode::Stop))?,
        hangs("and its health path says 200", engine)?,
        restarts(true)?,
        restarts(false)?,
    ]);
    together.push(vec![full(503)?, full(429)?]);
    Ok(together)
}

const PAIR: [Contender; 2] = [Paceline, Guarded];
const ALL: [Contender; 3] = [Paceline, Guarded, Plain];
/// After how long clients give up.
const PATIENT: Duration = seconds(30);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn between(begin: u64, end: u64) -> Range<Duration> {
    seconds(begin)..seconds(end)
}

fn mode(mode: Mode) -> Control {
    Control {
        mode: Some(mode),
        ..Control::default()
    }
}

fn normal() -> Control {
    Control {
        normal: true,
        ..Control::default()
    }
}

/// So many servers of so many slots.
fn fleet(servers: usize, slots: usize, more: &str) -> Result<Fleet, FleetError> {
    Fleet::from_json(&format!(
        r#"{{ "servers": [{{ "name": "gpu", "count": {servers}, "kind": "slots", "slots": {slots}{more} }}] }}"#
    ))
}

/// Service times of this mean that vary by a few percent.
fn about(mean_seconds: f64) -> Workload {
    Workload::of_service(ServiceTimes::Normal {
        mean_seconds,
        deviation_seconds: mean_seconds * 0.03,
    })
}

/// Linkerd's experiment of 2016, at less than its thousand requests a second.
fn slow() -> Result<Scenario, FleetError> {
    let speed = |speed| Control {
        speed: Some(speed),
        ..Control::default()
    };
    Ok(Scenario {
        what: "one of 11 servers takes 2 s instead of 167 ms for 30 s".to_owned(),
        fleet: fleet(11, 1000, "")?,
        workload: about(0.167),
        rate: 300.0,
        span: seconds(40),
        patience: PATIENT,
        contenders: PAIR.to_vec(),
        setup: Setup::SHIPPED,
        events: vec![
            (seconds(5), Event::Tell(0, speed(0.0835))),
            (seconds(35), Event::Tell(0, speed(1.0))),
        ],
        check: Check::Within {
            during: between(5, 35),
            limit: seconds(1),
            share: 0.999,
        },
    })
}

fn failures() -> [(&'static str, Mode); 4] {
    let fail = |status| Mode::Fail {
        status,
        retry_after_seconds: None,
    };
    [
        ("answers 503", fail(503)),
        ("answers 404", fail(404)),
        ("answers 401", fail(401)),
        ("resets connections", Mode::Drop),
    ]
}

/// Its health path still says 200, unless it resets all connections.
fn fails(how: &str, how_it_fails: Mode, retries: bool) -> Result<Scenario, FleetError> {
    let with = if retries { "" } else { ", without retries" };
    Ok(Scenario {
        what: format!("one of 8 servers {how} at once{with}"),
        fleet: fleet(8, 64, "")?,
        workload: about(0.1),
        rate: 100.0,
        span: seconds(18),
        patience: PATIENT,
        contenders: ALL.to_vec(),
        setup: Setup {
            retries,
            ..Setup::SHIPPED
        },
        events: vec![(seconds(3), Event::Tell(0, mode(how_it_fails)))],
        check: Check::TenthOfErrors {
            during: between(3, 18),
        },
    })
}

/// A fourth server that loads for 20 s.
fn joins(says: &str, loading: Loading) -> Result<Scenario, FleetError> {
    let window = seconds(10);
    let loads = Control {
        reload_seconds: Some(20.0),
        loading: Some(loading),
        ..Control::default()
    };
    Ok(Scenario {
        what: format!("a server joins that {says} while it loads for 20 s"),
        fleet: fleet(4, 64, "")?,
        workload: about(0.2),
        rate: 100.0,
        span: seconds(42),
        patience: PATIENT,
        contenders: PAIR.to_vec(),
        setup: Setup {
            probes: true,
            slow_start: Some(window),
            ..Setup::SHIPPED
        },
        events: vec![
            (seconds(5), Event::Tell(3, loads)),
            (seconds(5), Event::Join),
        ],
        check: Check::Joins {
            at: seconds(5),
            loaded: seconds(25),
            patience: seconds(1),
            window,
        },
    })
}

/// 60 % load, 74 % of what is left.
fn throttled() -> Result<Scenario, FleetError> {
    let speed = |server, speed| {
        let control = Control {
            speed: Some(speed),
            ..Control::default()
        };
        Event::Tell(server, control)
    };
    Ok(Scenario {
        what: "two of 8 servers take four times as long for a minute".to_owned(),
        fleet: fleet(8, 4, "")?,
        workload: Workload::of_service(ServiceTimes::Lognormal {
            median_seconds: 0.15,
            cv: 0.5,
        }),
        rate: 114.0,
        span: seconds(75),
        patience: PATIENT,
        contenders: PAIR.to_vec(),
        setup: Setup::SHIPPED,
        events: vec![
            (seconds(10), speed(0, 0.25)),
            (seconds(10), speed(1, 0.25)),
            (seconds(70), speed(0, 1.0)),
            (seconds(70), speed(1, 1.0)),
        ],
        check: Check::Tail {
            during: between(10, 70),
            times: 1.6,
        },
    })
}

/// With probes each says that it is going 4 s before it does; without, it goes in the midst of its work.
fn restarts(probes: bool) -> Result<Scenario, FleetError> {
    let (notice, each) = if probes { (4, 9) } else { (0, 6) };
    let starts = Control {
        reload_seconds: Some(2.0),
        ..normal()
    };
    let goes = Control {
        ready: Some(false),
        ..Control::default()
    };
    let of_server = |server: usize| {
        let begin = 5 + each * server as u64;
        let notice_given = probes.then(|| (seconds(begin), Event::Tell(server, goes.clone())));
        let rest = [
            (
                seconds(begin + notice),
                Event::Tell(server, mode(Mode::Drop)),
            ),
            (
                seconds(begin + notice + 1),
                Event::Tell(server, starts.clone()),
            ),
        ];
        notice_given.into_iter().chain(rest)
    };
    let with = if probes { "with" } else { "without" };
    Ok(Scenario {
        what: format!("a rolling restart of 4 servers, {with} probes"),
        fleet: fleet(4, 64, "")?,
        workload: about(0.2),
        rate: 60.0,
        span: seconds(5 + 4 * each + 3),
        patience: PATIENT,
        contenders: PAIR.to_vec(),
        setup: Setup {
            probes,
            bare: !probes,
            ..Setup::SHIPPED
        },
        events: (0..4).flat_map(of_server).collect(),
        check: Check::NoErrors,
    })
}

fn hangs(says: &str, control: Control) -> Result<Scenario, FleetError> {
    Ok(Scenario {
        what: format!("one of 8 servers hangs {says}"),
        fleet: fleet(8, 16, "")?,
        workload: about(0.5),
        rate: 64.0,
        span: seconds(95),
        patience: PATIENT,
        contenders: ALL.to_vec(),
        setup: Setup::SHIPPED,
        events: vec![(seconds(5), Event::Tell(0, control))],
        check: Check::Reached {
            during: between(65, 95),
            below: 0.01,
        },
    })
}

/// Half as much again as the servers can serve.
fn full(status: u16) -> Result<Scenario, FleetError> {
    let more = format!(r#", "max_waiting": 4, "full_status": {status}"#);
    Ok(Scenario {
        what: format!("all of 4 servers are full and say {status}"),
        fleet: fleet(4, 4, &more)?,
        workload: about(0.2),
        rate: 120.0,
        span: seconds(25),
        patience: PATIENT,
        contenders: PAIR.to_vec(),
        setup: Setup::SHIPPED,
        events: Vec::new(),
        check: Check::Full {
            during: between(5, 25),
            capacity: 80.0,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_happens_in_order_and_while_requests_come() {
        let all = fault_scenarios().unwrap();
        assert_eq!(all.iter().flatten().count(), 19);
        for scenario in all.iter().flatten() {
            assert!(scenario.events.is_sorted_by_key(|it| it.0));
            assert!(scenario.events.iter().all(|it| it.0 < scenario.span));
            assert_eq!(scenario.contenders[0], Paceline, "{}", scenario.what);
        }
    }
}
