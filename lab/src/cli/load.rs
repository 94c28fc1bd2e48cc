//! `lab load`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use lab::load::{Form, Measurement, Settings, Target, drive};
use lab::report::{RunReport, Series, latency_svg, notes, table};
use lab::workload::Request;

use super::progress;
use super::signals::end_signal;
use super::workload::{WorkloadArgs, clamp_to_trace};

/// Send open-loop load and report latencies.
///
/// Each request is sent when it is due, whatever became of those before it, and its latency counts from then. Every error, refusal and
/// timeout is counted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where requests go; a path other than / takes the place of the form's own
    #[arg(long, value_name = "URL")]
    url: Target,

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
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    timeout: f64,

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

/// The JSON form of a run.
#[derive(Serialize)]
struct LoadReport<'a> {
    url: &'a str,
    workload: &'a str,
    rate: Option<f64>,
    #[serde(flatten)]
    run: &'a RunReport,
}

/// Sends the load, then tells what came of it.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let workload = args.workload.workload()?;
    let count = match args.requests {
        Some(asked) => clamp_to_trace(&workload, asked),
        None => workload.available().unwrap_or(1000),
    };
    let requests = workload.requests(count, args.rate, args.seed)?;
    let measurement = send(requests, args.settings()?)?;

    let run = RunReport::new(args.seed, measurement);
    let (url, workload) = (args.url.to_string(), workload.to_string());
    if let Some(path) = &args.json {
        let report = LoadReport {
            url: &url,
            workload: &workload,
            rate: args.rate,
            run: &run,
        };
        write(
            path,
            &format!("{}\n", serde_json::to_string_pretty(&report)?),
        )?;
    }
    let lateness = run.schedule_delay.line.clone();
    let series = [Series::new("load", vec![run])];
    println!("{}\n{lateness}", table(&series));
    for note in notes(&series) {
        println!("{note}");
    }
    if let Some(path) = &args.svg {
        write(path, &latency_svg(&workload, &series)?)?;
    }
    ensure!(
        series.iter().any(|series| series.p99.is_some()),
        "no request was answered with a 2xx status"
    );
    Ok(())
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

    fn settings(&self) -> anyhow::Result<Settings> {
        let timeout = Duration::try_from_secs_f64(self.timeout).with_context(|| {
            format!(
                "--timeout: {} is not allowed, more than 0 and at most 86400 is",
                self.timeout
            )
        })?;
        let settings = Settings {
            target: self.url.clone(),
            form: self.form()?,
            time_scale: self.time_scale,
            timeout,
            warm_up: self.warm_up,
            max_outstanding: self.max_outstanding,
        };
        settings.check()?;
        Ok(settings)
    }
}

fn send(requests: Vec<Request>, settings: Settings) -> anyhow::Result<Measurement> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let ended = end_signal()?;
        let bar = progress::bar(requests.len());
        let shown = bar.clone();
        let load = drive(requests, settings, move |progress| {
            progress::show(&shown, 0, progress)
        });
        tokio::select! {
            measurement = load => {
                bar.finish_and_clear();
                Ok(measurement?)
            }
            () = ended => bail!("interrupted"),
        }
    })
}

/// Writes a file; the error names it.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
