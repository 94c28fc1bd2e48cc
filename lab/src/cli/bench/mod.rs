//! `lab bench`.

mod part;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use lab::bench::describe_machine;
use lab::gateway::filter_module;

use part::Part;

use super::overhead::seconds;
use super::page::Page;

/// Measure the figures that the documentation states, and check the bounds that they must keep.
///
/// Policies side by side on a real Envoy and in the simulator, and what the filter costs. Ratios are taken within a run, and the median of
/// several is what counts. With --page each part is written into that page as soon as it is measured. A part that cannot be measured is
/// tried once more, then the others go on, and the end tells.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Two minutes' worth, with wide bounds: finds what is broken, not what is a little worse
    #[arg(long, conflicts_with_all = ["page", "only"])]
    short: bool,

    /// These parts alone
    #[arg(long, value_name = "PART,...", value_delimiter = ',', value_parser = Part::names())]
    only: Vec<String>,

    /// The page to write the figures into
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,

    /// The module of a filter that does nothing, as `make bench` builds it
    #[arg(long, value_name = "FILE")]
    empty_filter: PathBuf,

    /// The table of host calls that the test `cost` in tests/plugin writes
    #[arg(long, value_name = "FILE")]
    host_calls: Option<PathBuf>,

    /// Rounds of what the filter costs, and starts of Envoy: 5, and 3 of the part `workers`, unless told otherwise
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Seconds of each variant in a round of the part `workers`
    #[arg(long, default_value = "1.5", value_parser = seconds)]
    seconds: Duration,

    /// Where figures and pictures are written; made if need be
    #[arg(long, value_name = "DIR", default_value = "out/bench")]
    out: PathBuf,
}

/// What a part showed.
struct Shown {
    /// What goes where in the page.
    sections: Vec<(&'static str, String)>,
    /// Which bounds it breaks, and which of its runs are void.
    broken: Vec<String>,
}

/// The filter's file may have so many bytes.
const FILE_SIZE: u64 = 480_000;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("--out: cannot make {}", args.out.display()))?;
    let mut parts = if args.short {
        Part::short()
    } else {
        Part::all()
    }?;
    parts
        .retain(|part| args.only.is_empty() || args.only.iter().any(|name| part.is_meant_by(name)));
    let page = Page::open(args.page.as_deref(), parts.iter().flat_map(Part::sections))?;
    let mut broken: Vec<String> = check_file_size()?.into_iter().collect();
    let start = Instant::now();
    for (number, part) in parts.iter().enumerate() {
        let name = part.name();
        eprintln!(
            "part {} of {}, after {:.1} min: {name}",
            number + 1,
            parts.len(),
            start.elapsed().as_secs_f64() / 60.0
        );
        let shown = part.measure(args).or_else(|error| {
            eprintln!("{name}: {error:#}; once more");
            part.measure(args)
        });
        match shown {
            Ok(shown) => {
                for (section, text) in &shown.sections {
                    println!("{section}:\n\n{text}\n");
                    page.set(section, &format!("{text}\n\n{}", stamp(name)))?;
                }
                broken.extend(shown.broken);
            }
            Err(error) => broken.push(format!("{name}: not measured: {error:#}")),
        }
    }
    eprintln!("{:.1} min", start.elapsed().as_secs_f64() / 60.0);
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

/// When and where a part was measured, and how to do it again.
fn stamp(part: &str) -> String {
    format!("*{}: `make bench ONLY={part}`*", describe_machine())
}

fn check_file_size() -> anyhow::Result<Option<String>> {
    let module = filter_module()?;
    let bytes = std::fs::metadata(&module)?.len();
    println!("{}: {bytes} bytes", module.display());
    Ok((bytes > FILE_SIZE)
        .then(|| format!("the filter has {bytes} bytes, at most {FILE_SIZE} are allowed")))
}
