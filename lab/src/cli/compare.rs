//! `lab compare`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::ProgressBar;

use lab::compare::{Observer, Plan, Policy, Prepared, Setting, Step};
use lab::model::Fleet;
use lab::report::{Comparison, latency_svg, notes, table};

use super::load::{seconds, write};
use super::progress;
use super::signals::end_signal;
use lab::workload::{WorkloadArgs, clamp_to_trace};

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
    #[arg(long, value_name = "COUNT", default_value_t = 6500)]
    requests: usize,

    /// How many runs of each policy, each on requests of its own
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,

    /// The seed of the first runs; the next ones have the next seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    first_seed: u64,

    /// Seconds of emulated time in a second of real time, 0.001 to 1000
    ///
    /// Without it, so many that the requests of a run arrive within half a minute, at most 4 for batching servers: with more, timers and the
    /// processor become part of the result.
    #[arg(long, value_name = "FACTOR")]
    time_scale: Option<f64>,

    /// The part of the requests, 0 to 0.9, that comes first and is not measured
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    warm_up: f64,

    /// Seconds of emulated time after which a request is given up; without it 600, and 3600 for diffusion
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,

    /// Envoy's worker threads
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    workers: u32,

    /// Where compare.json and compare.svg are written; made if need be
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

/// Compares, then tells.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let prepared = args.plan()?.prepare()?;
    // Before the runs: their minutes should not be lost for want of a directory.
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("--out: cannot make {}", args.out.display()))?;
    eprintln!(
        "{} runs, in each of them requests arrive for {:.0} s",
        prepared.runs(),
        prepared.arrivals().as_secs_f64()
    );
    let comparison = execute(prepared)?;
    print(&comparison);
    save(&comparison, &args.out)
}

impl Args {
    fn plan(&self) -> anyhow::Result<Plan> {
        let workload = self.workload.workload()?;
        let seeds = 0..u64::from(self.seeds);
        // Single requests of a published 567 s, on servers that may be slower than the published ones.
        let longest = if workload.has_service_times() {
            3600
        } else {
            600
        };
        Ok(Plan {
            fleet: Fleet::load(&self.fleet).context("--fleet")?,
            requests: clamp_to_trace(&workload, self.requests),
            workload,
            policies: self.policies.clone(),
            load: self.load,
            seeds: seeds.map(|n| self.first_seed.wrapping_add(n)).collect(),
            time_scale: self.time_scale,
            warm_up: self.warm_up,
            timeout: self.timeout.unwrap_or(Duration::from_secs(longest)),
            workers: self.workers,
            size_header: None,
        })
    }
}

/// Runs what was prepared, with a progress bar.
pub(super) fn execute(prepared: Prepared) -> anyhow::Result<Comparison<Setting>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let ended = end_signal()?;
        let bar = progress::bar(prepared.setting().requests * prepared.runs());
        let observer = observer(&bar, &prepared);
        let comparison = tokio::select! {
            comparison = prepared.run(&observer) => comparison?,
            // The run is dropped, and the Envoy of the moment with it.
            () = ended => bail!("interrupted"),
        };
        bar.finish_and_clear();
        Ok(comparison)
    })
}

fn observer(bar: &ProgressBar, prepared: &Prepared) -> Observer {
    let (bar, requests, runs) = (bar.clone(), prepared.setting().requests, prepared.runs());
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
         emulated {time_scale:.3} times as fast as in life; times are those of life",
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
