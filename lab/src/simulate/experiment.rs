//! All policies of a case, on the same calls, with several seeds.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::balancer::Counters;
use super::engine::{self, Run, Setup};
use super::faulty::sent_to_faulty;
use super::policy::Policy;
use super::scenario::{Case, ScenarioError};
use super::statistics::{Bootstrap, BySeed, Estimate, Figure, Figures, Sample, counted};

/// What a case showed.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// What sets it apart from the scenario's other cases.
    pub case: String,
    /// Requests per second; nothing in a closed loop.
    pub rate: Option<f64>,
    /// Requests per second that the fleet can do at most.
    pub capacity: f64,
    /// Gateway processes.
    pub gateways: usize,
    /// Workers in each.
    pub workers: usize,
    /// In the order of the scenario.
    pub policies: Vec<PolicyResult>,
}

/// What one policy did in a case.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyResult {
    /// The policy's name.
    pub policy: String,
    /// After the warm-up.
    pub steady: Part,
    /// From the first request on.
    pub whole: Part,
    /// Seed by seed, over the whole run, to full-scan least request; nothing where that took no part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds_to_least_request: Option<SeedRatios>,
    /// Run by run.
    pub runs: Vec<RunResult>,
}

/// What a policy did to the same requests as another, seed by seed: ratios of figures of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SeedRatios {
    /// Of the mean latencies.
    pub mean: BySeed,
    /// Of the 99 % quantiles.
    pub p99: BySeed,
}

impl SeedRatios {
    fn of(runs: &[RunResult], to: &[RunResult]) -> Self {
        let ratios = |figure: fn(&Figures) -> f64| {
            let pairs = runs.iter().zip(to);
            BySeed::of(pairs.map(|(it, to)| figure(&it.whole) / figure(&to.whole)))
        };
        Self {
            mean: ratios(|it| it.mean),
            p99: ratios(|it| it.p99),
        }
    }
}

/// A part of the runs: figures of all seeds together.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Mean latency, seconds.
    pub mean: Estimate,
    /// 99 % quantile of the latencies, seconds.
    pub p99: Estimate,
    /// The part of the requests that were not answered.
    pub failed: f64,
    /// The part of the requests that were answered within the scenario's goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_goal: Option<f64>,
    #[serde(skip)]
    means: Vec<f64>,
    #[serde(skip)]
    p99s: Vec<f64>,
}

/// What one policy did with one seed.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// The seed.
    pub seed: u64,
    /// After the warm-up.
    pub steady: Figures,
    /// From the first request on.
    pub whole: Figures,
    /// After the warm-up, by caller; nothing where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Figures>,
    /// The most requests that were outstanding at one server.
    pub peak_outstanding: usize,
    /// Of the requests that were sent while a server was not as it should be, the part that went to such a server; nothing where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_to_faulty: Option<f64>,
    /// Times that a sequence was preempted for want of KV memory.
    pub preemptions: u64,
    /// Times that a device ran out of memory, and all its servers crashed.
    pub crashes: u64,
    /// What the policy counted.
    pub counters: Counters,
    /// After the warm-up, in rising order.
    #[serde(skip)]
    latencies: Vec<f64>,
    #[serde(skip)]
    steady_sample: Sample,
    #[serde(skip)]
    whole_sample: Sample,
}

impl Part {
    fn of(bootstrap: &Bootstrap, samples: &[Sample], figures: &[Figures]) -> Self {
        let means = bootstrap.distribution(samples, Figure::Mean);
        let p99s = bootstrap.distribution(samples, Figure::P99);
        let good = figures.iter().filter_map(|it| it.within_goal);
        Self {
            mean: Estimate::of(&means),
            p99: Estimate::of(&p99s),
            failed: super::statistics::mean(figures.iter().map(|it| it.failed)),
            within_goal: Some(super::statistics::mean(good)).filter(|it| !it.is_nan()),
            means,
            p99s,
        }
    }

    /// This part's mean latency over another policy's, on the same calls.
    pub fn mean_ratio(&self, to: &Self) -> Estimate {
        Estimate::of_ratio(&self.means, &to.means)
    }

    /// This part's p99 over another policy's, on the same calls.
    pub fn p99_ratio(&self, to: &Self) -> Estimate {
        Estimate::of_ratio(&self.p99s, &to.p99s)
    }
}

/// Runs every policy with every seed, `threads` of them at a time. Threads change nothing but the time that it takes.
///
/// # Errors
/// The workload cannot be made, or a server is told what it cannot be.
pub fn run_case(
    case: &Case<'_>,
    policies: &[Policy],
    seeds: usize,
    threads: NonZeroUsize,
) -> Result<CaseResult, ScenarioError> {
    for policy in policies {
        let checked = policy.check(case.scenario.fleet.servers());
        checked.map_err(ScenarioError::Inside)?;
    }
    let jobs: Vec<(&Policy, u64)> = policies
        .iter()
        .flat_map(|policy| (1..=seeds as u64).map(move |seed| (policy, seed)))
        .collect();
    let mut done = in_parallel(&jobs, threads, |(policy, seed)| {
        run_one(case, policy, *seed).map(|(_, result)| result)
    })?
    .into_iter();
    let bootstrap = Bootstrap::new(seeds);
    let mut of_policy = |policy: &Policy| {
        let runs = done.by_ref().take(seeds).collect();
        PolicyResult::new(policy, &bootstrap, runs)
    };
    let mut result = CaseResult {
        case: case.to_string(),
        rate: case.rate(),
        capacity: case.capacity,
        gateways: case.gateways,
        workers: case.workers,
        policies: policies.iter().map(&mut of_policy).collect(),
    };
    if let Some(other) = result.least_request() {
        let of = |it: &PolicyResult| SeedRatios::of(&it.runs, &other.runs);
        let ratios: Vec<SeedRatios> = result.policies.iter().map(of).collect();
        for (policy, ratios) in result.policies.iter_mut().zip(ratios) {
            policy.seeds_to_least_request = Some(ratios);
        }
    }
    Ok(result)
}

/// One run of one policy.
///
/// # Errors
/// As [`run_case`].
pub fn run_one(
    case: &Case<'_>,
    policy: &Policy,
    seed: u64,
) -> Result<(Run, RunResult), ScenarioError> {
    let scenario = case.scenario;
    let setup = case.setup(seed)?;
    let mut balancer = policy.balancer(&setup, &scenario.config);
    let run = engine::run(&setup, balancer.as_mut())?;
    let goal = scenario.goal.map(|goal| goal.as_secs_f64());
    let sample = |skip| {
        let endings = counted(&run, skip).iter();
        let latencies: Vec<Option<f64>> = endings.map(|it| it.latency()).collect();
        Sample::new(&latencies)
    };
    let steady = counted(&run, scenario.warm_up).iter();
    let mut latencies: Vec<f64> = steady.filter_map(|it| it.latency()).collect();
    latencies.sort_by(f64::total_cmp);
    let result = RunResult {
        seed,
        latencies,
        steady: Figures::of(&run, scenario.warm_up, goal),
        whole: Figures::of(&run, 0.0, goal),
        callers: by_caller(&run, &setup, scenario.warm_up, goal),
        peak_outstanding: run.peak_outstanding.iter().copied().max().unwrap_or(0),
        sent_to_faulty: sent_to_faulty(&setup.incidents, counted(&run, 0.0)),
        preemptions: run.preemptions,
        crashes: run.crashes,
        counters: run.counters,
        steady_sample: sample(scenario.warm_up),
        whole_sample: sample(0.0),
    };
    Ok((run, result))
}

/// The figures of each caller, where there are several.
fn by_caller(run: &Run, setup: &Setup, skip: f64, goal: Option<f64>) -> Vec<Figures> {
    if setup.callers.len() < 2 {
        return Vec::new();
    }
    let endings = counted(run, skip);
    let first = setup.calls.len() - endings.len();
    let of = |caller| {
        let calls = setup.calls.iter().skip(first).zip(endings);
        let own = calls.filter(move |(call, _)| call.caller == caller);
        Figures::of_endings(own.map(|(_, ending)| ending), goal)
    };
    (0..setup.callers.len()).map(of).collect()
}

impl PolicyResult {
    fn new(policy: &Policy, bootstrap: &Bootstrap, runs: Vec<RunResult>) -> Self {
        let part = |sample: fn(&RunResult) -> &Sample, figures: fn(&RunResult) -> Figures| {
            let samples: Vec<Sample> = runs.iter().map(|run| sample(run).clone()).collect();
            let figures: Vec<Figures> = runs.iter().map(figures).collect();
            Part::of(bootstrap, &samples, &figures)
        };
        Self {
            policy: policy.to_string(),
            steady: part(|run| &run.steady_sample, |run| run.steady),
            whole: part(|run| &run.whole_sample, |run| run.whole),
            seeds_to_least_request: None,
            runs,
        }
    }
}

impl PolicyResult {
    /// The mean of [`RunResult::sent_to_faulty`].
    pub fn sent_to_faulty(&self) -> Option<f64> {
        let parts = self.runs.iter().map(|run| run.sent_to_faulty);
        let parts = parts.collect::<Option<Vec<f64>>>()?;
        Some(super::statistics::mean(parts.into_iter()))
    }

    /// The latencies of all runs after the warm-up, in rising order.
    pub fn latencies(&self) -> Vec<f64> {
        let runs = self.runs.iter().map(|run| run.latencies.as_slice());
        let mut all: Vec<f64> = runs.flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// Does all jobs on so many threads; the results are in the order of the jobs, and an error is the first job's that has one.
fn in_parallel<J: Sync, T: Send, E: Send>(
    jobs: &[J],
    threads: NonZeroUsize,
    work: impl Fn(&J) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(jobs.len()) {
            scope.spawn(|| {
                while let Some((place, job)) = take(&next, jobs) {
                    let result = work(job);
                    if let Ok(mut done) = done.lock() {
                        done.push((place, result));
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, J>(next: &AtomicUsize, jobs: &'a [J]) -> Option<(usize, &'a J)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(place).map(|job| (place, job))
}
