use std::time::Duration;

use paceline::outcome::Outcome;
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::Shown;
use super::run::{Balancer, Stage, WaitError};
use crate::bench::Goal;
use crate::model::Time;
use crate::report::seconds;
use crate::simulate::{Call, Case, Ending, Length, Offered, Scenario};

/// A request takes some 140 ms then, and its deadline is 600 ms.
const TIME_SCALE: f64 = 200.0;
const SEED: u64 = 1;
/// A minute of real time, and a quarter of one.
const OVERLOAD: Duration = Duration::from_secs(60 * TIME_SCALE as u64);
const AFTERWARDS: Duration = Duration::from_secs(15 * TIME_SCALE as u64);
const NORMAL_LOAD: f64 = 0.7;
/// Clients wait so many times longer than answers are of use to them.
const PATIENCE: u32 = 10;
/// Requests by whose median wait it is judged whether things are normal again.
const WINDOW: usize = 20;
/// A median wait of no more than this is normal, in emulated seconds: half of a mean request.
const NORMAL_WAIT: f64 = 14.0;
/// What is answered in time, of what the servers can do.
const GOODPUT: f64 = 0.95;
/// Requests that alone take more than this part of the time until the deadline are not expected to be in time.
const EXPECTED: f64 = 0.75;
/// What is answered in time, of the important requests that are expected to be.
const IMPORTANT: f64 = 1.0;
/// Seconds of real time until it is normal again.
const RECOVERY: f64 = 5.0;
/// Who is important, by its place in the scenario's callers.
const HIGH: usize = 0;

/// The calls of the overload, and then of a normal load.
struct Phases {
    calls: Vec<Call>,
    /// How many of them are the overload's.
    overload: usize,
    /// Requests a second that the servers can do.
    capacity: f64,
    /// How long an answer is of use, in seconds.
    deadline: f64,
}

/// What a policy made of them.
struct Row {
    name: &'static str,
    /// Answers in time a second, over what the servers can do.
    goodput: f64,
    /// The part of the important requests that was answered in time, of those that are expected to be.
    high: f64,
    /// The same of the others.
    normal: f64,
    /// The part of all requests that was answered with an error, or not at all.
    failed: f64,
    /// Seconds of emulated time from the last request of the overload until it was normal again.
    recovery: Option<f64>,
}

/// Half as much again as the servers can do for a minute, with a deadline, and then a normal load. Three minutes.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_overload() -> Result<Shown, WaitError> {
    let mut scenario = Scenario::load("held-overload")?;
    scenario.workers = vec![2];
    scenario.length = Length::Seconds(OVERLOAD);
    let deadline = scenario.goal.unwrap_or_default();
    let phases = phases(&scenario, deadline)?;
    let stage = Stage {
        fleet: &scenario.fleet,
        callers: &scenario.callers,
        workers: 2,
        time_scale: TIME_SCALE,
        patience: deadline * PATIENCE,
    };
    let admission = json!({
        "priority": { "header": "x-priority", "classes": ["high", "normal"], "default": "normal" },
        "deadline": { "header": "x-request-timeout-ms" },
    });
    let mut rows = Vec::new();
    let mut remarks = Vec::new();
    for (name, balancer) in [
        ("`LEAST_REQUEST`", Balancer::LeastRequest),
        ("caps of 1, deadlines", Balancer::paceline(admission)),
    ] {
        let ran = stage.run(&balancer, &phases.calls).await?;
        rows.push(phases.judge(name, &ran.endings));
        remarks.extend(ran.remarks);
    }
    Ok(Shown {
        text: table(&rows),
        goals: rows.last().map(goals).unwrap_or_default(),
        remarks,
    })
}

fn phases(scenario: &Scenario, deadline: Duration) -> Result<Phases, WaitError> {
    let one = |scenario: &Scenario, seed| -> Result<_, WaitError> {
        let cases = scenario.cases()?;
        let none = || WaitError::Impossible("a scenario without a case".to_owned());
        let case: &Case<'_> = cases.first().ok_or_else(none)?;
        Ok((case.setup(seed)?.calls, case.capacity))
    };
    let (mut calls, capacity) = one(scenario, SEED)?;
    let overload = calls.len();
    let mut normal = scenario.clone();
    normal.offered = Offered::Load(vec![NORMAL_LOAD]);
    normal.length = Length::Seconds(AFTERWARDS);
    let (after, _) = one(&normal, SEED + 1)?;
    let end = calls.last().map_or(Time::ZERO, |call| call.arrival);
    calls.extend(after.into_iter().map(|call| Call {
        arrival: end + call.arrival.since(Time::ZERO),
        ..call
    }));
    Ok(Phases {
        calls,
        overload,
        capacity,
        deadline: deadline.as_secs_f64(),
    })
}

impl Phases {
    fn judge(&self, name: &'static str, endings: &[Ending]) -> Row {
        // A deadline after the start all is as it stays.
        let begin = Time::from_secs_f64(self.deadline);
        let all = || self.calls.iter().zip(endings);
        let overload = || {
            all()
                .take(self.overload)
                .filter(|(call, _)| call.arrival > begin)
        };
        let in_time = |ending: &Ending| ending.latency().is_some_and(|it| it <= self.deadline);
        let span = overload()
            .next_back()
            .map_or(0.0, |(call, _)| call.arrival.since(begin).as_secs_f64());
        let good = overload().filter(|(_, ending)| in_time(ending)).count();
        let part = |is_meant: &dyn Fn(&Call) -> bool| {
            let meant = || overload().filter(|(call, _)| is_meant(call));
            let good = meant().filter(|(_, ending)| in_time(ending)).count();
            good as f64 / meant().count().max(1) as f64
        };
        let most = self.deadline * EXPECTED;
        let can = |call: &Call| call.service.is_some_and(|it| it.as_secs_f64() <= most);
        let failed = overload().filter(|(_, ending)| ending.outcome != Outcome::Success);
        Row {
            name,
            goodput: good as f64 / span / self.capacity,
            high: part(&|call| call.caller == HIGH && can(call)),
            normal: part(&|call| call.caller != HIGH && can(call)),
            failed: failed.count() as f64 / overload().count().max(1) as f64,
            recovery: self.recovery(endings),
        }
    }

    /// Windows of requests after the overload: the first whose median wait is normal.
    fn recovery(&self, endings: &[Ending]) -> Option<f64> {
        let after: Vec<_> = self.calls.iter().zip(endings).skip(self.overload).collect();
        let end = after.first()?.0.arrival;
        let first = after
            .windows(WINDOW)
            .find(|window| median_wait(window) <= NORMAL_WAIT)?;
        let (call, _) = first.first()?;
        Some(call.arrival.since(end).as_secs_f64())
    }
}

/// What is beyond the time that the servers, which are equal, take for the request. One that was not answered waited for ever.
fn median_wait(requests: &[(&Call, &Ending)]) -> f64 {
    let wait = |(call, ending): &(&Call, &Ending)| {
        let service = call.service.unwrap_or_default().as_secs_f64();
        ending.latency().map_or(f64::INFINITY, |it| it - service)
    };
    let mut waits: Vec<f64> = requests.iter().map(wait).collect();
    waits.sort_by(f64::total_cmp);
    waits.get(waits.len() / 2).copied().unwrap_or(f64::INFINITY)
}

fn table(rows: &[Row]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "policy",
        "answered in time, of the capacity",
        "important requests in time",
        "others in time",
        "failed",
        "normal again after (emulated)",
        "in real time",
    ]);
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    for row in rows {
        let recovery = |scale: f64| {
            row.recovery
                .map_or("never".to_owned(), |it| seconds(it / scale))
        };
        table.push_record([
            row.name.to_owned(),
            percent(row.goodput),
            percent(row.high),
            percent(row.normal),
            percent(row.failed),
            recovery(1.0),
            recovery(TIME_SCALE),
        ]);
    }
    table.build().with(Style::markdown()).to_string()
}

fn goals(row: &Row) -> Vec<Goal> {
    vec![
        Goal::at_least(
            "answered in time, of what the servers can do",
            row.goodput,
            GOODPUT,
        ),
        Goal::at_least(
            "important requests answered in time, of those that alone take three quarters of it or less",
            row.high,
            IMPORTANT,
        ),
        Goal::at_most(
            "seconds of real time until it is normal again",
            row.recovery.map_or(f64::INFINITY, |it| it / TIME_SCALE),
            RECOVERY,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of overload and a minute after it, a request a second; each works for a second.
    fn phases() -> Phases {
        let mut scenario = Scenario::load("held-overload").unwrap();
        scenario.offered = Offered::Rate(vec![1.0]);
        scenario.length = Length::Requests(120);
        let cases = scenario.cases().unwrap();
        let mut calls = cases[0].setup(1).unwrap().calls;
        for call in &mut calls {
            call.arrival = Time::from_secs_f64(call.id as f64);
            call.service = Some(Duration::from_secs(1));
            call.caller = call.id % 2;
        }
        Phases {
            calls,
            overload: 60,
            capacity: 2.0,
            deadline: 10.0,
        }
    }

    fn endings(phases: &Phases, latency: impl Fn(usize) -> Option<f64>) -> Vec<Ending> {
        let ending = |call: &Call| Ending {
            sent: call.arrival,
            first_byte: None,
            end: latency(call.id).map(|it| call.arrival + Duration::from_secs_f64(it)),
            server: None,
            outcome: match latency(call.id) {
                Some(_) => Outcome::Success,
                None => Outcome::Rejected,
            },
        };
        phases.calls.iter().map(ending).collect()
    }

    #[test]
    fn what_is_in_time_counts_by_class() {
        let phases = phases();
        // The important ones are the even ones; the others are refused or late until ten seconds after the overload.
        let row = phases.judge(
            "",
            &endings(&phases, |id| match (id % 2, id) {
                (0, _) | (_, 70..) => Some(2.0),
                (_, ..30) => Some(11.0),
                _ => None,
            }),
        );
        assert!((row.goodput - 0.25).abs() < 0.02, "{}", row.goodput);
        assert_eq!((row.high, row.normal), (1.0, 0.0));
        assert!((row.failed - 0.3).abs() < 0.05, "{}", row.failed);
        // Half of a window's requests do not wait, from its start on.
        assert_eq!(row.recovery, Some(0.0));
    }

    #[test]
    fn it_is_normal_when_the_median_wait_is() {
        let phases = phases();
        let waits = |until: usize| {
            let late = move |id: usize| Some(if id < until { 100.0 } else { 1.5 });
            phases.judge("", &endings(&phases, late)).recovery
        };
        assert_eq!(waits(60), Some(0.0));
        // Eleven of the window's requests no longer wait.
        assert_eq!(waits(85), Some(16.0));
    }
}
