use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::Shown;
use super::run::{Balancer, FOR_EVER, Ran, Stage, WaitError, steady};
use crate::bench::Goal;
use crate::report::seconds;
use crate::simulate::{Case, Ending, Figures, Offered, Scenario, run_one};

/// So that a request takes some 100 ms: a fleet of twenty serves 200 a second.
const TIME_SCALE: f64 = 300.0;
const REQUESTS: usize = 2_200;
const SEED: u64 = 1;
/// p99 over that of a central queue, on equal servers.
const TO_QUEUE: f64 = 1.15;
/// The p99 of `LEAST_REQUEST` over that with caps, on unequal servers.
const BETTER: f64 = 2.5;

struct Row {
    sized: bool,
    load: f64,
    workers: u32,
    least_request: Figures,
    capped: Figures,
    queue: Figures,
}

/// Equal servers with caps of one at 80 and 90 % load, against `LEAST_REQUEST` and against one central queue, which is simulated on the
/// same requests. Two minutes and a half.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_equal_slots() -> Result<Shown, WaitError> {
    let goal = |rows: &[Row]| {
        let to_queue = rows.iter().map(|row| row.capped.p99 / row.queue.p99);
        Goal::at_most(
            "p99 over that of a central queue, the worst row",
            to_queue.fold(0.0, f64::max),
            TO_QUEUE,
        )
    };
    measure_slots("held-slots-equal", goal).await
}

/// The same on unequal servers.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_unequal_slots() -> Result<Shown, WaitError> {
    let goal = |rows: &[Row]| {
        let better = rows
            .iter()
            .map(|row| row.least_request.p99 / row.capped.p99);
        Goal::at_least(
            "p99 of `LEAST_REQUEST` over that with caps, the worst row",
            better.fold(f64::INFINITY, f64::min),
            BETTER,
        )
    };
    measure_slots("held-slots-unequal", goal).await
}

async fn measure_slots(name: &str, goal: impl Fn(&[Row]) -> Goal) -> Result<Shown, WaitError> {
    let mut rows = Vec::new();
    let mut remarks = Vec::new();
    for (sized, loads) in [(false, [0.8, 0.9].as_slice()), (true, [0.9].as_slice())] {
        let mut scenario = Scenario::load(name)?;
        scenario.set_requests(REQUESTS)?;
        scenario.offered = Offered::Load(loads.to_vec());
        if sized {
            scenario.workload = Scenario::load("size-slots-equal")?.workload;
            scenario.workers = vec![2];
        }
        for case in scenario.cases()? {
            let (row, of_row) = measure(sized, &case).await?;
            rows.push(row);
            remarks.extend(of_row);
        }
    }
    Ok(Shown {
        text: table(&rows),
        goals: vec![goal(&rows)],
        remarks,
    })
}

async fn measure(sized: bool, case: &Case<'_>) -> Result<(Row, Vec<String>), WaitError> {
    let setup = case.setup(SEED)?;
    let stage = Stage {
        fleet: &case.scenario.fleet,
        callers: &[],
        workers: u32::try_from(case.workers).unwrap_or(1),
        time_scale: TIME_SCALE,
        patience: FOR_EVER,
    };
    let admission = json!({ "queue": { "max_requests": 10_000, "max_wait": "1h" } });
    let capped = Balancer::Paceline { admission, sized };
    let least_request = stage.run(&Balancer::LeastRequest, &setup.calls).await?;
    let capped = stage.run(&capped, &setup.calls).await?;
    let queue = "bound:central_queue".parse();
    let queue = queue.map_err(WaitError::Impossible)?;
    let (queue, _) = run_one(case, &queue, SEED)?;
    let of = |endings: &[Ending]| steady(&setup.calls, endings, |_| true);
    let row = Row {
        sized,
        load: case.rate().unwrap_or_default() / case.capacity,
        workers: stage.workers,
        least_request: of(&least_request.endings),
        capped: of(&capped.endings),
        queue: of(&queue.endings),
    };
    let remarks = |ran: Ran| ran.remarks;
    let remarks = remarks(least_request).into_iter().chain(remarks(capped));
    let remarks = remarks.map(|remark| format!("{case}: {remark}")).collect();
    Ok((row, remarks))
}

fn table(rows: &[Row]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "sizes",
        "load",
        "workers",
        "`LEAST_REQUEST`: mean",
        "p99",
        "caps of 1: mean",
        "p99",
        "central queue: mean",
        "p99",
        "p99 to the queue's",
        "`LEAST_REQUEST`'s p99 to caps'",
        "failed",
    ]);
    for row in rows {
        let of = |figures: &Figures| [seconds(figures.mean), seconds(figures.p99)];
        let mut cells = vec![
            if row.sized { "known" } else { "unknown" }.to_owned(),
            format!("{:.0} %", row.load * 100.0),
            row.workers.to_string(),
        ];
        cells.extend(
            [&row.least_request, &row.capped, &row.queue]
                .map(of)
                .concat(),
        );
        cells.push(format!("{:.2}", row.capped.p99 / row.queue.p99));
        cells.push(format!("{:.2}", row.least_request.p99 / row.capped.p99));
        cells.push(format!("{:.2} %", row.capped.failed * 100.0));
        table.push_record(cells);
    }
    table.build().with(Style::markdown()).to_string()
}
