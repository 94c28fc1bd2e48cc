use std::time::Duration;

use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::Shown;
use super::run::{Balancer, FOR_EVER, Stage, WaitError, steady};
use crate::bench::Goal;
use crate::model::Fleet;
use crate::report::seconds;
use crate::simulate::{Call, Scenario};

/// A request takes some 140 ms then.
const TIME_SCALE: f64 = 200.0;
const REQUESTS: usize = 4_500;
const SEED: u64 = 1;
/// How long a request waits at most, in emulated time.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The p99 of who sends little over that with its share alone.
const TO_ALONE: f64 = 1.2;
/// Who sends much and who sends little, by their places in the scenario's callers.
const MANY: usize = 0;
const FEW: usize = 1;

/// Two tenants, of which one sends ten times more than the other and more than the servers can do, and the other alone on half of the
/// servers. Two minutes.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_tenants() -> Result<Shown, WaitError> {
    let mut scenario = Scenario::load("held-two-tenants")?;
    scenario.set_requests(REQUESTS)?;
    let half = half_of(&scenario.fleet)?;
    let mut table = Builder::default();
    table.push_record([
        "workers", "tenant", "requests", "mean", "p50", "p99", "rejected",
    ]);
    let mut shown = Shown::default();
    for case in scenario.cases()? {
        let calls = case.setup(SEED)?.calls;
        let both = Stage {
            fleet: &scenario.fleet,
            callers: &scenario.callers,
            workers: u32::try_from(case.workers).unwrap_or(1),
            time_scale: TIME_SCALE,
            patience: FOR_EVER,
        };
        let admission = json!({
            "queue": { "max_requests": 100, "max_wait": both.real(MAX_WAIT) },
            "fairness": { "header": "x-tenant" },
        });
        let balancer = Balancer::paceline(admission);
        let together = both.run(&balancer, &calls).await?;
        let of = |caller| steady(&calls, &together.endings, |call| call.caller == caller);
        let (many, beside) = (of(MANY), of(FEW));

        let few = calls.iter().copied().filter(|it| it.caller == FEW);
        let few: Vec<Call> = few.collect();
        let share = Stage {
            fleet: &half,
            ..both
        };
        let alone = share.run(&balancer, &few).await?;
        let by_itself = steady(&few, &alone.endings, |_| true);

        for (name, figures) in [
            ("the one that sends ten times more", many),
            ("the other", beside),
            ("the other alone, half of the servers", by_itself),
        ] {
            table.push_record([
                case.workers.to_string(),
                name.to_owned(),
                figures.requests.to_string(),
                seconds(figures.mean),
                seconds(figures.p50),
                seconds(figures.p99),
                format!("{:.1} %", figures.failed * 100.0),
            ]);
        }
        shown.goals.push(Goal::at_most(
            format!(
                "workers: {}; p99 of the other over that alone",
                case.workers
            ),
            beside.p99 / by_itself.p99,
            TO_ALONE,
        ));
        shown.goals.push(Goal::at_most(
            format!(
                "workers: {}; percent of its requests rejected",
                case.workers
            ),
            beside.failed * 100.0,
            0.0,
        ));
        shown.remarks.extend(together.remarks);
        shown.remarks.extend(alone.remarks);
    }
    shown.text = table.build().with(Style::markdown()).to_string();
    Ok(shown)
}

/// So many servers of the fleet's first kind as are half of all.
fn half_of(fleet: &Fleet) -> Result<Fleet, WaitError> {
    let count = fleet.servers().len() / 2;
    let half = json!({ "servers": [{ "name": "slot", "count": count, "kind": "slots" }] });
    Fleet::from_json(&half.to_string()).map_err(|error| WaitError::Impossible(error.to_string()))
}
