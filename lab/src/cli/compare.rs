//! `lab compare`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;

use lab::compare::{Observer, Plan, Policy, Setting, Step};
use lab::model::Fleet;
use lab::report::{Comparison, latency_svg, notes, table};

use super::load::write;
use super::progress;
use super::signals::end_signal;
use super::workload::{WorkloadArgs, clamp_to_trace};

/// Compare policies side by side: the same requests, a real Envoy, emulated servers.
///
/// Each policy in turn gets fresh servers and a fresh Envoy, and the same requests at the same times. One table at the end; the figures and
/// the latency distributions go to files.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Envoy's policies are envoy:round_robin, envoy:least_request (of two random servers), envoy:least_request_full_scan and
    /// envoy:random; Paceline's are paceline:NAME. The last one is what the others are measured by
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_values = Policy::DEFAULTS)]
    policies: Vec<Policy>,

    /// The servers: a preset (unequal8, equal8, slots8, slots8-equal) or a JSON file, see `lab serve --help`
    #[arg(long, value_name = "PRESET|FILE", default_value = "unequal8")]
    fleet: String,

    #[command(flatten)]
    workload: WorkloadArgs,

    /// The part of what the fleet can serve that is asked for, 0.01 to 2
    ///
    /// What it can serve is found out at virtual time: the throughput of each server while requests wait for it, summed.
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    load: f64,

    /// How many requests in a run; a trace with more rows gives a stretch of them that the seed chooses
    #[arg(long, value_name = "COUNT", default_value_t = 7000)]
    requests: usize,

    /// How many runs of each policy, each on requests of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,

    /// The seed of the first runs; the next ones have the next seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    first_seed: u64,

    /// Seconds of emulated time in a second of real time
    ///
    /// With more of them, timers and the processor become part of the result: a server's step should stay well above a millisecond.
    #[arg(long, value_name = "FACTOR", default_value_t = 4.0)]
    time_scale: f64,

    /// The part of the requests, 0 to 0.9, that comes first and is not measured
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    warm_up: f64,

    /// Seconds of emulated time after which a request is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    timeout: f64,

    /// Envoy's worker threads
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    workers: u32,

    /// Where compare.json and compare.svg are written; made if need be
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

/// Compares, then tells.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = args.plan()?;
    // Before the runs: their minutes should not be lost for want of a directory.
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("--out: cannot make {}", args.out.display()))?;
    let comparison = execute(&plan)?;
    print(&comparison);
    save(&comparison, &args.out)
}

impl Args {
    fn plan(&self) -> anyhow::Result<Plan> {
        let workload = self.workload.workload()?;
        let seeds = 0..u64::from(self.seeds);
        Ok(Plan {
            fleet: Fleet::load(&self.fleet).context("--fleet")?,
            requests: clamp_to_trace(&workload, self.requests),
            workload,
            policies: self.policies.clone(),
            load: self.load,
            seeds: seeds.map(|n| self.first_seed.wrapping_add(n)).collect(),
            time_scale: self.time_scale,
            warm_up: self.warm_up,
            timeout: Duration::try_from_secs_f64(self.timeout)
                .with_context(|| format!("--timeout: {} is not allowed", self.timeout))?,
            workers: self.workers,
        })
    }
}

fn execute(plan: &Plan) -> anyhow::Result<Comparison<Setting>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let ended = end_signal()?;
        let bar = progress::bar(plan.requests * plan.runs());
        let observer = observer(&bar, plan);
        let comparison = tokio::select! {
            comparison = plan.run(&observer) => comparison?,
            // The run is dropped, and the Envoy of the moment with it.
            () = ended => bail!("interrupted"),
        };
        bar.finish_and_clear();
        Ok(comparison)
    })
}

fn observer(bar: &ProgressBar, plan: &Plan) -> Observer {
    let (bar, requests, runs) = (bar.clone(), plan.requests, plan.runs());
    Arc::new(
        move |Step {
                  policy,
                  seed,
                  run,
                  progress,
              }| {
            let Some(progress) = progress else {
                let line = format!("run {} of {runs}: {policy}, seed {seed}", run + 1);
                if bar.is_hidden() {
                    eprintln!("{line}");
                }
                bar.set_message(line);
                return;
            };
            progress::show(&bar, run * requests, progress);
        },
    )
}

fn print(comparison: &Comparison<Setting>) {
    let Setting {
        servers,
        workload,
        rate,
        load,
        requests,
        time_scale,
        ..
    } = &comparison.setting;
    println!(
        "{workload}: {requests} requests at {rate:.1} a second, {:.0} % of what {} servers can serve\n\
         emulated {time_scale} times faster than life, times in emulated seconds",
        load * 100.0,
        servers.len(),
    );
    println!("{}", table(&comparison.series));
    for note in notes(&comparison.series) {
        println!("{note}");
    }
    for line in comparison.summary() {
        println!("{line}");
    }
}

fn save(comparison: &Comparison<Setting>, out: &Path) -> anyhow::Result<()> {
    let (json, svg) = (out.join("compare.json"), out.join("compare.svg"));
    write(
        &json,
        &format!("{}\n", serde_json::to_string_pretty(comparison)?),
    )?;
    let title = format!(
        "Latency: {}, {:.0} % load",
        comparison.setting.workload,
        comparison.setting.load * 100.0
    );
    write(&svg, &latency_svg(&title, &comparison.series)?)?;
    println!("figures: {}\npicture: {}", json.display(), svg.display());
    Ok(())
}
