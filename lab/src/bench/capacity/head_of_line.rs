use std::time::Duration;

use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::Shown;
use super::run::{Balancer, FOR_EVER, Stage, WaitError, steady};
use crate::report::seconds;
use crate::simulate::{Scenario, run_one};

/// A short request takes 20 ms then, a long one a second.
const TIME_SCALE: f64 = 50.0;
const REQUESTS: usize = 3_000;
const SEED: u64 = 1;
const SHORT: Duration = Duration::from_secs(1);

/// One request in twenty takes fifty times longer: what becomes of the short ones. Less than a minute.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_head_of_line() -> Result<Shown, WaitError> {
    let mut scenario = Scenario::load("held-head-of-line")?;
    scenario.set_requests(REQUESTS)?;
    scenario.workers = vec![2];
    let cases = scenario.cases()?;
    let none = || WaitError::Impossible("a scenario without a case".to_owned());
    let case = cases.first().ok_or_else(none)?;
    let calls = case.setup(SEED)?.calls;
    let stage = Stage {
        fleet: &scenario.fleet,
        callers: &[],
        workers: 2,
        time_scale: TIME_SCALE,
        patience: FOR_EVER,
    };
    let admission = json!({ "queue": { "max_requests": 10_000, "max_wait": "1h" } });
    let least_request = stage.run(&Balancer::LeastRequest, &calls).await?;
    let capped = stage.run(&Balancer::paceline(admission), &calls).await?;
    let queue = "bound:central_queue".parse();
    let queue = queue.map_err(WaitError::Impossible)?;
    let (queue, _) = run_one(case, &queue, SEED)?;

    let mut table = Builder::default();
    table.push_record(["policy", "short: mean", "p50", "p99", "all: p99", "failed"]);
    let rows = [
        ("`LEAST_REQUEST`", &least_request.endings),
        ("caps of 1", &capped.endings),
        ("central queue, simulated", &queue.endings),
    ];
    for (name, endings) in rows {
        let short = steady(&calls, endings, |call| call.service <= Some(SHORT));
        let all = steady(&calls, endings, |_| true);
        table.push_record([
            name.to_owned(),
            seconds(short.mean),
            seconds(short.p50),
            seconds(short.p99),
            seconds(all.p99),
            format!("{:.2} %", all.failed * 100.0),
        ]);
    }
    let remarks = least_request.remarks.into_iter().chain(capped.remarks);
    Ok(Shown {
        text: table.build().with(Style::markdown()).to_string(),
        goals: Vec::new(),
        remarks: remarks.collect(),
    })
}
