use std::num::NonZeroUsize;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use tokio::task::LocalSet;

use lab::bench::{
    Options, Row, Trial, comparison_table, goals_table, measure_memory, memory_table, missed,
    render, short_trials, simulated_table, trials,
};
use lab::gateway::filter_module;
use lab::report::latency_svg;
use lab::simulate::{CaseResult, Scenario, run_case};

use super::super::compare::execute;
use super::super::load::write;
use super::super::overhead::{self, standard_cases};
use super::{Args, Shown};

/// A part of the benchmark: it can be measured without the others.
pub(super) enum Part {
    /// Policies side by side on a real Envoy.
    Trial(Box<Trial>),
    /// The default policy in these scenarios of the simulator.
    Simulated(Vec<&'static str>),
    /// What the filter costs in time.
    Overhead,
    /// What it costs in memory.
    Memory,
    /// What it asks of its host.
    HostCalls,
}

/// The filter's processor time over that of no filter, 8 upstreams, one worker: the goal.
const CPU_RATIO: f64 = 1.25;
/// More than this in the short form is a regression, in the best of its rounds: it runs on machines that have other things to do.
const SHORT_CPU_RATIO: f64 = 2.0;
/// The processor time at 256 upstreams over that at 8: the goal.
const CPU_RATIO_OF_MANY: f64 = 1.3;
/// The policy that the figures are about.
const DEFAULT: &str = "paceline:shortest_expected_delay";
/// Scenarios of the short form.
const SHORT_SCENARIOS: [&str; 2] = ["unequal8", "equal8"];

impl Part {
    /// All parts, in the order in which they are measured: about half an hour.
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        let mut parts = vec![
            Self::HostCalls,
            Self::Overhead,
            Self::Memory,
            Self::Simulated(Scenario::shipped().collect()),
        ];
        parts.extend(trials()?.into_iter().map(Box::new).map(Self::Trial));
        Ok(parts)
    }

    /// The short form.
    pub(super) fn short() -> anyhow::Result<Vec<Self>> {
        let mut parts = vec![Self::Simulated(SHORT_SCENARIOS.to_vec()), Self::Overhead];
        parts.extend(short_trials()?.into_iter().map(Box::new).map(Self::Trial));
        Ok(parts)
    }

    /// What `--only` takes.
    pub(super) fn names() -> PossibleValuesParser {
        let parts = Self::all().unwrap_or_default();
        PossibleValuesParser::new(parts.iter().map(Self::name).collect::<Vec<_>>())
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Trial(trial) => trial.name,
            Self::Simulated(_) => "simulated",
            Self::Overhead => "overhead",
            Self::Memory => "memory",
            Self::HostCalls => "host-calls",
        }
    }

    /// The places in the page that it fills.
    pub(super) fn sections(&self) -> Vec<&'static str> {
        match self {
            Self::Trial(trial) => vec![trial.name],
            Self::Simulated(_) => vec!["goals", "simulated"],
            Self::Overhead => vec!["overhead"],
            Self::Memory => vec!["memory"],
            Self::HostCalls => vec!["host-calls"],
        }
    }

    pub(super) fn measure(&self, args: &Args) -> anyhow::Result<Shown> {
        match self {
            Self::Trial(trial) => compare(trial, args),
            Self::Simulated(scenarios) => simulate(scenarios, args.short),
            Self::Overhead => measure_overhead(args),
            Self::Memory => memory(args),
            Self::HostCalls => host_calls(args),
        }
    }
}

fn compare(trial: &Trial, args: &Args) -> anyhow::Result<Shown> {
    let comparison = execute(trial.plan.clone().prepare()?)?;
    let title = format!("Latency: {}, {}", trial.name, comparison.setting.workload);
    write(
        &args.out.join(format!("{}.svg", trial.name)),
        &latency_svg(&title, &comparison.series)?,
    )?;
    write(
        &args.out.join(format!("{}.json", trial.name)),
        &format!("{}\n", serde_json::to_string_pretty(&comparison)?),
    )?;
    let bounds = trial.bounds.iter();
    let broken = bounds.flat_map(|bound| bound.broken_by(&comparison));
    let void = comparison.void_runs();
    Ok(Shown {
        broken: void
            .into_iter()
            .chain(broken)
            .map(|broken| format!("{}: {broken}", trial.name))
            .collect(),
        sections: vec![(trial.name, comparison_table(&comparison))],
    })
}

fn simulate(scenarios: &[&'static str], short: bool) -> anyhow::Result<Shown> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut results = Vec::new();
    for name in scenarios {
        eprintln!("simulating {name}");
        let mut scenario = Scenario::load(name).context((*name).to_owned())?;
        if short {
            scenario.seeds = 2;
        }
        for case in scenario.cases()? {
            let result = run_case(&case, &scenario.policies, scenario.seeds, threads)?;
            results.push((*name, result));
        }
    }
    let cases: Vec<(&str, &CaseResult)> =
        results.iter().map(|(name, case)| (*name, case)).collect();
    let missed = missed(DEFAULT, &cases);
    // The short form finds regressions in cases that are known to be good; the long one reports what is.
    let broken = missed.iter().filter(|_| short).map(ToString::to_string);
    Ok(Shown {
        broken: broken.collect(),
        sections: vec![
            ("goals", goals_table(DEFAULT, &cases, &missed)),
            ("simulated", simulated_table(DEFAULT, &cases)),
        ],
    })
}

fn options(args: &Args) -> anyhow::Result<Options> {
    Ok(Options {
        filter: filter_module()?,
        empty_filter: args.empty_filter.clone(),
        rounds: 5,
        requests: if args.short { 3_000 } else { 4_000 },
    })
}

fn measure_overhead(args: &Args) -> anyhow::Result<Shown> {
    let mut cases = standard_cases();
    if args.short {
        cases.retain(|case| case.upstreams == 8 && case.workers == 1 && case.body_bytes <= 1_000);
    }
    let rows = overhead::measure_all(&cases, &options(args)?)?;
    Ok(Shown {
        broken: check_overhead(&rows, args.short),
        sections: vec![("overhead", render(&rows))],
    })
}

fn check_overhead(rows: &[Row], short: bool) -> Vec<String> {
    let of = |upstreams| {
        let is_it = |row: &&Row| {
            row.case.upstreams == upstreams && row.case.workers == 1 && row.case.body_bytes <= 1_000
        };
        rows.iter().find(is_it).map(|row| &row.filter)
    };
    let ratio = |few: &lab::bench::Figures| {
        if short {
            (few.cpu_ratio_range.0, SHORT_CPU_RATIO)
        } else {
            (few.cpu_ratio, CPU_RATIO)
        }
    };
    let over_none = of(8).map(ratio);
    let many = of(8).zip(of(256));
    let over_few = many.map(|(few, many)| (many.cpu_us / few.cpu_us, CPU_RATIO_OF_MANY));
    let checks = [
        ("at 8 upstreams over that of no filter", over_none),
        ("at 256 upstreams over that at 8", over_few),
    ];
    let broken = checks.into_iter().filter_map(|(what, check)| {
        let (ratio, at_most) = check?;
        (ratio > at_most)
            .then(|| format!("processor time {what}: {ratio:.2}, must be at most {at_most:.2}"))
    });
    broken.collect()
}

fn memory(args: &Args) -> anyhow::Result<Shown> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let rows = LocalSet::new().block_on(&runtime, measure_memory(&options(args)?))?;
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("memory", memory_table(&rows))],
    })
}

fn host_calls(args: &Args) -> anyhow::Result<Shown> {
    let path = args
        .host_calls
        .as_ref()
        .context("--host-calls: nothing is not allowed: the table that the test `cost` in tests/plugin writes")?;
    let table = std::fs::read_to_string(path)
        .with_context(|| format!("--host-calls: cannot read {}", path.display()))?;
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("host-calls", table)],
    })
}
