//! `lab bench`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use lab::bench::{
    Options, Row, Trial, describe_machine, render, replace_part, short_trials, trials,
};
use lab::gateway::filter_module;
use lab::report::latency_svg;

use super::compare::execute;
use super::load::write;
use super::overhead::{self, standard_cases};

/// Measure the figures that the documentation states, and check the bounds that they must keep.
///
/// Policies side by side on a real Envoy, and what the filter costs. Ratios are taken within a run, and the median of several is what
/// counts. With --page the measured parts of that page are written anew.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A minute's worth, with wide bounds: finds what is broken, not what is a little worse
    #[arg(long, conflicts_with = "page")]
    short: bool,

    /// The page to write the figures into
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,

    /// The module of a filter that does nothing, as `make bench` builds it
    #[arg(long, value_name = "FILE")]
    empty_filter: PathBuf,

    /// Where figures and pictures are written; made if need be
    #[arg(long, value_name = "DIR", default_value = "out/bench")]
    out: PathBuf,
}

/// The filter's processor time over that of no filter, 8 upstreams, one worker: more than this in the short form is a regression. The goal is 1.35
/// on an idle machine; the short form runs on machines that are not.
const SHORT_CPU_RATIO: f64 = 2.0;
const CPU_RATIO: f64 = 1.35;
/// The filter's file may have so many bytes.
const FILE_SIZE: u64 = 350_000;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("--out: cannot make {}", args.out.display()))?;
    let mut page = Page::open(args.page.as_deref())?;
    let mut broken = Vec::new();

    page.set("machine", &describe_machine())?;
    broken.extend(check_file_size()?);
    let trials = if args.short { short_trials() } else { trials() };
    for trial in trials? {
        let (shown, failures) = compare(&trial, &args.out)?;
        page.set(trial.name, &shown)?;
        broken.extend(failures);
    }
    let rows = measure_overhead(args)?;
    broken.extend(check_overhead(
        &rows,
        if args.short {
            SHORT_CPU_RATIO
        } else {
            CPU_RATIO
        },
    ));
    page.set("overhead", &render(&rows))?;
    page.save()?;
    if broken.is_empty() {
        println!("all bounds hold");
        return Ok(());
    }
    bail!(
        "{} bounds are broken:\n  {}",
        broken.len(),
        broken.join("\n  ")
    )
}

fn check_file_size() -> anyhow::Result<Option<String>> {
    let module = filter_module()?;
    let bytes = std::fs::metadata(&module)?.len();
    println!("{}: {bytes} bytes", module.display());
    Ok((bytes > FILE_SIZE)
        .then(|| format!("the filter has {bytes} bytes, at most {FILE_SIZE} are allowed")))
}

fn measure_overhead(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut cases = standard_cases();
    if args.short {
        cases.retain(|case| case.upstreams == 8 && case.workers == 1 && case.body_bytes <= 1_000);
    }
    let options = Options {
        filter: filter_module()?,
        empty_filter: args.empty_filter.clone(),
        rounds: 5,
        requests: if args.short { 3_000 } else { 10_000 },
    };
    let rows = overhead::measure_all(&cases, &options)?;
    println!("{}", render(&rows));
    Ok(rows)
}

fn check_overhead(rows: &[Row], at_most: f64) -> Option<String> {
    let row = rows
        .iter()
        .find(|row| row.case.upstreams == 8 && row.case.workers == 1)?;
    let ratio = row.filter.cpu_ratio;
    (ratio > at_most).then(|| {
        format!("processor time at 8 upstreams over that of no filter: {ratio:.2}, must be at most {at_most:.2}")
    })
}

/// Runs a trial; what to show of it, and which of its bounds it breaks.
fn compare(trial: &Trial, out: &Path) -> anyhow::Result<(String, Vec<String>)> {
    let comparison = execute(trial.plan.clone().prepare()?)?;
    let mut shown = format!("```text\n{}\n", lab::report::table(&comparison.series));
    for line in lab::report::notes(&comparison.series)
        .iter()
        .chain(&comparison.summary())
    {
        writeln!(shown, "{line}")?;
    }
    shown.push_str("```\n");
    println!("{}:\n{shown}", trial.name);
    let title = format!(
        "Latency: {} fleet, {}",
        trial.name, comparison.setting.workload
    );
    write(
        &out.join(format!("{}.svg", trial.name)),
        &latency_svg(&title, &comparison.series)?,
    )?;
    write(
        &out.join(format!("{}.json", trial.name)),
        &format!("{}\n", serde_json::to_string_pretty(&comparison)?),
    )?;
    let broken = trial
        .bounds
        .iter()
        .flat_map(|bound| bound.broken_by(&comparison));
    Ok((shown, broken.collect()))
}

/// The page that figures go into, if one was asked for. It is written once, at the end: a run that fails leaves it as it was.
struct Page<'a> {
    path: Option<&'a Path>,
    text: String,
}

impl<'a> Page<'a> {
    fn open(path: Option<&'a Path>) -> anyhow::Result<Self> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("--page: cannot read {}", path.display()))?,
            None => String::new(),
        };
        Ok(Self { path, text })
    }

    fn set(&mut self, part: &str, content: &str) -> anyhow::Result<()> {
        if let Some(path) = self.path {
            self.text = replace_part(&self.text, part, content)
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn save(&self) -> anyhow::Result<()> {
        match self.path {
            Some(path) => write(path, &self.text),
            None => Ok(()),
        }
    }
}
