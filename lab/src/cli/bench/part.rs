use std::num::NonZeroUsize;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;

use lab::bench::{
    Answer, Chooser, FaultScenario, Options, Row, Run, SIMULATED_FAULTS, SharedGpus, SharedGpusRow,
    Trial, Until, comparison_table, cores, fault_scenarios, faults_table, goals_table, judge,
    measure_equal_slots, measure_head_of_line, measure_memory, measure_overload, measure_start,
    measure_tenants, measure_unequal_slots, measure_wake_ups, measured_goals_table, memory_table,
    missed, overhead_goals, render, run_together, shared_gpus_table, short_trials, simulate_fault,
    simulated_faults_table, simulated_table, split_by_cores, start_table, trials, worker_goals,
    workers_table,
};
use lab::gateway::filter_module;
use lab::report::latency_svg;
use lab::simulate::{CaseResult, Scenario, run_case};

use super::super::compare::execute;
use super::super::load::write;
use super::super::overhead::{self, event_loop, standard_cases, worker_cases};
use super::{Args, Shown};

/// A part of the benchmark: it can be measured without the others.
pub(super) enum Part {
    /// Policies side by side on a real Envoy.
    Trial(Box<Trial>),
    /// The default policy in these scenarios of the simulator.
    Simulated(Vec<&'static str>),
    /// Servers that are slow, fail, hang or load, in the simulator.
    SimulatedFaults,
    /// What the filter costs in time.
    Overhead,
    /// The same by the number of Envoy's workers.
    Workers,
    /// What it adds to Envoy's start.
    Start,
    /// What it costs in memory.
    Memory,
    /// What it asks of its host.
    HostCalls,
    /// What users see of servers that fail.
    Faults,
    /// Models that share GPUs.
    Devices,
    /// What it brings that requests wait in the gateway.
    Waiting(Waiting),
}

/// The parts that `--only capacity` names together.
#[derive(Clone, Copy)]
pub(super) enum Waiting {
    EqualSlots,
    UnequalSlots,
    Overload,
    Tenants,
    HeadOfLine,
    WakeUps,
}

/// The filter's processor time over that of no filter, 8 upstreams, one worker: more than this in the short form is a regression, in the
/// best of its rounds. It runs on machines that have other things to do.
const SHORT_CPU_RATIO: f64 = 2.5;
/// Envoy's workers, by which costs are shown.
const WORKERS: [u32; 5] = [1, 2, 4, 8, 12];
/// Connections for each of them there.
const CONNECTIONS: u64 = 32;
/// Several parts.
const CAPACITY: &str = "capacity";
/// The policy that the figures are about.
const DEFAULT: &str = "paceline:shortest_expected_delay";
/// Runs of each policy where servers are at fault.
const FAULT_SEEDS: usize = 10;
/// Scenarios of the short form.
const SHORT_SCENARIOS: [&str; 2] = ["unequal8", "equal8"];

impl Part {
    /// All parts, in the order in which they are measured: about fifty minutes.
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        let mut parts = vec![
            Self::HostCalls,
            Self::Faults,
            Self::Overhead,
            Self::Workers,
            Self::Start,
            Self::Memory,
            Self::Devices,
            Self::Simulated(Scenario::compared_with_bounds().collect()),
            Self::SimulatedFaults,
        ];
        parts.extend(trials()?.into_iter().map(Box::new).map(Self::Trial));
        parts.extend(Waiting::ALL.map(Self::Waiting));
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
        let names = parts.iter().map(Self::name);
        PossibleValuesParser::new(names.chain([CAPACITY]).collect::<Vec<_>>())
    }

    /// Whether `--only` means this part: by its name, or by that of several.
    pub(super) fn is_meant_by(&self, only: &str) -> bool {
        only == self.name() || (only == CAPACITY && matches!(self, Self::Waiting(_)))
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Trial(trial) => trial.name,
            Self::Simulated(_) => "simulated",
            Self::SimulatedFaults => "simulated-faults",
            Self::Overhead => "overhead",
            Self::Workers => "workers",
            Self::Start => "start",
            Self::Memory => "memory",
            Self::HostCalls => "host-calls",
            Self::Devices => "devices",
            Self::Waiting(waiting) => waiting.name(),
            Self::Faults => "faults",
        }
    }

    /// The places in the page that it fills.
    pub(super) fn sections(&self) -> Vec<&'static str> {
        match self {
            Self::Trial(trial) => vec![trial.name],
            Self::Simulated(_) => vec!["goals", "simulated"],
            Self::SimulatedFaults => vec!["simulated-faults"],
            Self::Overhead => vec!["overhead"],
            Self::Workers => vec!["workers"],
            Self::Start => vec!["start"],
            Self::Memory => vec!["memory"],
            Self::HostCalls => vec!["host-calls"],
            Self::Devices => vec!["devices"],
            Self::Waiting(waiting) => vec![waiting.name()],
            Self::Faults => vec!["faults"],
        }
    }

    pub(super) fn measure(&self, args: &Args) -> anyhow::Result<Shown> {
        match self {
            Self::Trial(trial) => compare(trial, args),
            Self::Simulated(scenarios) => simulate(scenarios, args.short),
            Self::SimulatedFaults => simulate_faults(),
            Self::Overhead => measure_overhead(args),
            Self::Workers => by_workers(args),
            Self::Start => start(args),
            Self::Memory => memory(args),
            Self::HostCalls => host_calls(args),
            Self::Devices => devices(),
            Self::Waiting(waiting) => waiting.measure(),
            Self::Faults => faults(),
        }
    }
}

impl Waiting {
    const ALL: [Self; 6] = [
        Self::EqualSlots,
        Self::UnequalSlots,
        Self::Overload,
        Self::Tenants,
        Self::HeadOfLine,
        Self::WakeUps,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::EqualSlots => "capacity-equal",
            Self::UnequalSlots => "capacity-unequal",
            Self::Overload => "capacity-overload",
            Self::Tenants => "capacity-tenants",
            Self::HeadOfLine => "capacity-head-of-line",
            Self::WakeUps => "capacity-wake-ups",
        }
    }

    fn measure(self) -> anyhow::Result<Shown> {
        let measured = event_loop()?.block_on(async {
            match self {
                Self::EqualSlots => measure_equal_slots().await,
                Self::UnequalSlots => measure_unequal_slots().await,
                Self::Overload => measure_overload().await,
                Self::Tenants => measure_tenants().await,
                Self::HeadOfLine => measure_head_of_line().await,
                Self::WakeUps => measure_wake_ups().await,
            }
        })?;
        let goals = measured_goals_table(&measured.goals);
        // The page says which goals are missed; only what is void is an error.
        Ok(Shown {
            broken: measured.remarks,
            sections: vec![(self.name(), format!("{}\n\n{goals}", measured.text))],
        })
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

fn simulate_faults() -> anyhow::Result<Shown> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut results = Vec::new();
    for name in SIMULATED_FAULTS {
        eprintln!("simulating {name}");
        let cases = simulate_fault(name, Some(FAULT_SEEDS), threads).context(name)?;
        results.extend(cases.into_iter().map(|case| (name, case)));
    }
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("simulated-faults", simulated_faults_table(&results))],
    })
}

fn options(args: &Args) -> anyhow::Result<Options> {
    Ok(Options {
        filter: filter_module()?,
        empty_filter: args.empty_filter.clone(),
        rounds: args.rounds.unwrap_or(5) as usize,
        until: Until::Requests(if args.short { 3_000 } else { 4_000 }),
        connections: 8,
    })
}

fn measure_overhead(args: &Args) -> anyhow::Result<Shown> {
    let mut cases = standard_cases();
    if args.short {
        cases.retain(|case| {
            case.upstreams == 8
                && case.workers == 1
                && case.body_bytes <= 1_000
                && case.answer == Answer::Whole
        });
    }
    let rows = overhead::measure_all(&cases, &options(args)?)?;
    let goals = measured_goals_table(&overhead_goals(&rows));
    Ok(Shown {
        // The long form reports what is; the goals stand in the page.
        broken: rows
            .iter()
            .filter(|_| args.short)
            .filter_map(regression)
            .collect(),
        sections: vec![("overhead", format!("{}\n\n{goals}", render(&rows)))],
    })
}

/// What is wrong in the short form.
fn regression(row: &Row) -> Option<String> {
    let (least, _) = row.filter.cpu_ratio_range;
    (least > SHORT_CPU_RATIO).then(|| {
        format!(
            "processor time at 8 upstreams over that of no filter: {least:.2}, must be at most {SHORT_CPU_RATIO:.2}"
        )
    })
}

fn by_workers(args: &Args) -> anyhow::Result<Shown> {
    let cores = cores();
    let (workers, left_out) = split_by_cores(&WORKERS, cores);
    let options = Options {
        rounds: args.rounds.unwrap_or(3) as usize,
        until: Until::Elapsed(args.seconds),
        connections: CONNECTIONS,
        ..options(args)?
    };
    let rows = overhead::measure_all(&worker_cases(&workers), &options)?;
    let table = workers_table(&rows, &left_out, cores);
    let goals = measured_goals_table(&worker_goals(&rows));
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("workers", format!("{table}\n\n{goals}"))],
    })
}

fn start(args: &Args) -> anyhow::Result<Shown> {
    let options = options(args)?;
    let rows = event_loop()?.block_on(measure_start(&options, options.rounds))?;
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("start", start_table(&rows))],
    })
}

fn memory(args: &Args) -> anyhow::Result<Shown> {
    let rows = event_loop()?.block_on(measure_memory(&options(args)?))?;
    Ok(Shown {
        broken: Vec::new(),
        sections: vec![("memory", memory_table(&rows))],
    })
}

fn devices() -> anyhow::Result<Shown> {
    let setting = SharedGpus::FIVE_MINUTES;
    let event_loop = event_loop()?;
    let mut rows: Vec<SharedGpusRow> = Vec::new();
    for chooser in Chooser::ALL {
        eprintln!("models that share GPUs: {chooser:?}");
        rows.push(event_loop.block_on(setting.run(chooser))?);
    }
    Ok(Shown {
        broken: broken_by_devices(&rows),
        sections: vec![("devices", shared_gpus_table(&setting, &rows))],
    })
}

/// Envoy's policies crash GPUs several times; the filter does not, and serves no less.
fn broken_by_devices(rows: &[SharedGpusRow]) -> Vec<String> {
    let (own, others): (Vec<_>, Vec<_>) = rows
        .iter()
        .partition(|row| row.chooser == Chooser::Paceline);
    let crashes = own.iter().filter(|row| row.crashes > 0);
    let crashes = crashes.map(|row| format!("devices: {} crashes", row.crashes));
    let harmless = others.iter().filter(|row| row.crashes < 3);
    let harmless = harmless.map(|row| format!("devices: {:?} crashes too little", row.chooser));
    let best = others.iter().map(|row| row.good()).max().unwrap_or(0);
    let worse = own.iter().filter(|row| row.good() < best);
    let worse = worse.map(|row| format!("devices: {} good answers, {best} without", row.good()));
    crashes.chain(harmless).chain(worse).collect()
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

fn faults() -> anyhow::Result<Shown> {
    let runtime = event_loop()?;
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for scenarios in fault_scenarios()? {
        let run = || runtime.block_on(run_together(&scenarios));
        let mut runs = run()?;
        // As in comparisons: what the generator spoils is run once more, and then taken as it is.
        let is_spoilt = |(scenario, runs): (&FaultScenario, &Vec<Run>)| {
            runs.iter().any(|run| run.is_spoilt(scenario))
        };
        if scenarios.iter().zip(&runs).any(is_spoilt) {
            runs = run()?;
        }
        for (scenario, runs) in scenarios.iter().zip(&runs) {
            let judged = judge(scenario, runs);
            eprintln!("{}", faults_table(&judged));
            rows.extend(judged);
            let void = runs.iter().filter(|run| run.is_spoilt(scenario));
            broken.extend(void.map(|run| {
                format!(
                    "faults: {}, {}: {}",
                    scenario.what,
                    run.contender.name(),
                    run.lateness
                )
            }));
        }
    }
    Ok(Shown {
        broken,
        sections: vec![("faults", faults_table(&rows))],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_places_in_the_page() {
        let page = include_str!("../../../../docs/benchmarks.md");
        for part in Part::all().unwrap() {
            for section in part.sections() {
                lab::bench::replace_part(page, section, "").unwrap();
            }
        }
    }
}
