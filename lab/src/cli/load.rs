//! `lab load`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use lab::load::{Form, Measurement, Settings, Target, drive, ready};
use lab::report::{Comparison, RunReport, Series, latency_svg, notes, table};
use lab::workload::Request;

use super::progress;
use super::signals::end_signal;
use lab::workload::{WorkloadArgs, clamp_to_trace};

/// Send open-loop load and report latencies.
///
/// Each request is sent when it is due, whatever became of those before it, and its latency counts from then. Every error, refusal and
/// timeout is counted. Several targets get the same requests, one target after the other, and stand side by side in one table.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where requests go; a path other than / takes the place of the form's own
    ///
    /// It can be given several times. NAME is what a target is called in the table, without it the URL; the last one is what the others are
    /// measured by.
    #[arg(long = "url", value_name = "[NAME=]URL", required = true)]
    targets: Vec<NamedTarget>,

    /// Seconds that each target gets to answer GET /health with 200 before its first request
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,

    #[command(flatten)]
    workload: WorkloadArgs,

    /// Requests per second, in emulated time, on average; a trace has a rate of its own
    #[arg(long, value_name = "PER SECOND")]
    rate: Option<f64>,

    /// How many requests; without it 1000, or all of a trace
    #[arg(long, value_name = "COUNT")]
    requests: Option<usize>,

    /// Chooses sizes and arrivals; the same seed gives the same requests
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// What requests look like
    #[arg(long, value_enum, default_value_t = FormName::Infer)]
    form: FormName,

    /// The model that a chat asks for; without it paceline-lab, which the emulated servers have
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Seconds of emulated time in a second of real time, as the servers have it, 0.001 to 1000
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,

    /// Seconds of emulated time after which a request is given up, counted from when it was due
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    timeout: Duration,

    /// The part of the requests, 0 to 0.9, that comes first and is not measured
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    warm_up: f64,

    /// How many requests may be outstanding; more are counted as not sent
    #[arg(long, value_name = "COUNT", default_value_t = 4096)]
    max_outstanding: usize,

    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the latency distribution into this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The forms that requests can have.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FormName {
    /// POST /infer with a body of two bytes, its sizes in headers
    Infer,
    /// POST /v1/chat/completions with a body about as long as the prompt
    Chat,
    /// The same, the answer streamed
    ChatStream,
}

/// A target, and what to call it.
#[derive(Clone, Debug)]
struct NamedTarget {
    name: String,
    target: Target,
}

impl FromStr for NamedTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Before the scheme: a query may have a `=` too.
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => (text, text),
        };
        if name.is_empty() {
            return Err(format!("{text:?}: no name, allowed is NAME=URL or a URL"));
        }
        Ok(Self {
            name: name.to_owned(),
            target: url.parse()?,
        })
    }
}

/// The JSON form of a run on one target. Of several it is that of a [`Comparison`].
#[derive(Serialize)]
struct LoadReport<'a> {
    #[serde(flatten)]
    setting: &'a Setting,
    #[serde(flatten)]
    run: &'a RunReport,
}

/// What was asked for.
#[derive(Serialize)]
struct Setting {
    /// Where; of several targets they are in the order of the series.
    url: String,
    workload: String,
    rate: Option<f64>,
}

/// Sends the load, then tells what came of it.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let workload = args.workload.workload()?;
    let count = match args.requests {
        Some(asked) => clamp_to_trace(&workload, asked),
        None => workload.available().unwrap_or(1000),
    };
    let requests = workload.requests(count, args.rate, args.seed)?;
    let mut series = Vec::new();
    for NamedTarget { name, target } in &args.targets {
        let measurement = send(requests.clone(), args.settings(target)?, args.wait)?;
        let run = RunReport::new(args.seed, measurement);
        series.push(Series::new(name, vec![run]));
    }
    let urls: Vec<_> = args
        .targets
        .iter()
        .map(|named| named.target.to_string())
        .collect();
    let setting = Setting {
        url: urls.join(", "),
        workload: workload.to_string(),
        rate: args.rate,
    };
    let comparison = Comparison::new(setting, series);
    let series = &comparison.series;

    println!("{}", table(series));
    for run in series.iter().flat_map(|series| &series.runs) {
        println!("{}", run.schedule_delay.line);
    }
    for line in notes(series).iter().chain(&comparison.summary()) {
        println!("{line}");
    }
    if let Some(path) = &args.json {
        write(path, &format!("{}\n", json(&comparison)?))?;
    }
    if let Some(path) = &args.svg {
        write(path, &latency_svg(&comparison.setting.workload, series)?)?;
    }
    for series in series {
        ensure!(
            series.p99.is_some(),
            "{}: no request was answered with a 2xx status",
            series.name
        );
    }
    Ok(())
}

fn json(comparison: &Comparison<Setting>) -> serde_json::Result<String> {
    let [Series { runs, .. }] = &comparison.series[..] else {
        return serde_json::to_string_pretty(comparison);
    };
    let [run] = &runs[..] else {
        return serde_json::to_string_pretty(comparison);
    };
    serde_json::to_string_pretty(&LoadReport {
        setting: &comparison.setting,
        run,
    })
}

impl Args {
    fn form(&self) -> anyhow::Result<Form> {
        let model = self.model.clone();
        let stream = match self.form {
            FormName::Infer if model.is_some() => {
                bail!("--model: requests of the form infer name no model, chat and chat-stream do")
            }
            FormName::Infer => return Ok(Form::Infer),
            FormName::Chat => false,
            FormName::ChatStream => true,
        };
        let model = model.unwrap_or_else(|| "paceline-lab".to_owned());
        Ok(Form::Chat { model, stream })
    }

    fn settings(&self, target: &Target) -> anyhow::Result<Settings> {
        let settings = Settings {
            form: self.form()?,
            time_scale: self.time_scale,
            timeout: self.timeout,
            warm_up: self.warm_up,
            max_outstanding: self.max_outstanding,
            ..Settings::new(target.clone())
        };
        settings.check()?;
        Ok(settings)
    }
}

fn send(
    requests: Vec<Request>,
    settings: Settings,
    wait: Option<Duration>,
) -> anyhow::Result<Measurement> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let ended = end_signal()?;
        let load = async {
            if let Some(within) = wait {
                ready(&settings.target, within).await?;
            }
            let bar = progress::bar(requests.len());
            let shown = bar.clone();
            let measurement = drive(requests, settings, move |progress| {
                progress::show(&shown, 0, progress)
            })
            .await?;
            bar.finish_and_clear();
            Ok(measurement)
        };
        tokio::select! {
            measurement = load => measurement,
            () = ended => bail!("interrupted"),
        }
    })
}

/// Reads a time in seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "allowed are seconds, such as 0.5 or 600".to_owned())
}

/// Writes a file; the error names it.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
