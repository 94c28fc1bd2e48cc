//! What the runs of a scenario showed, beside what was asked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tabled::builder::Builder;
use tabled::settings::Style;

use super::contender::Contender;
use super::run::Run;
use super::scenario::{Check, Scenario};
use crate::bench::goals;
use crate::load::{Ending, Record};
use crate::report::seconds;

/// A figure of all contenders, and the goal of Paceline's.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What happens.
    pub what: String,
    /// Which figure.
    pub figure: String,
    /// What Paceline's is to be; empty where there is no goal.
    pub goal: String,
    /// The figures.
    pub shown: BTreeMap<Contender, String>,
    /// Whether Paceline's is so; `None` where there is no goal.
    pub is_met: Option<bool>,
}

/// What a run shows as a number, and how the number is shown.
type Figure<'a> = (&'a dyn Fn(&Run) -> f64, &'a dyn Fn(f64) -> String);

/// The figures of a scenario.
#[must_use]
pub fn judge(scenario: &Scenario, runs: &[Run]) -> Vec<Row> {
    let figures = Figures { scenario, runs };
    match &scenario.check {
        Check::Within {
            during,
            limit,
            share,
        } => {
            let within = |run: &Run| {
                let in_time = |it: &Record| it.is_success() && it.took <= *limit;
                share_of(run, during, &in_time)
            };
            let goal = format!("at least {}", percent(*share));
            let figure = format!("answered within {}", seconds(limit.as_secs_f64()));
            vec![figures.row(&figure, goal, (&within, &percent), |own, _| own >= *share)]
        }
        Check::TenthOfErrors { during } => {
            let goal = "a tenth of plain's at most".to_owned();
            let failed = |run: &Run| count(run, during, &|it| !it.is_success());
            let is_met = |own, of: &BTreeMap<Contender, f64>| {
                of.get(&Contender::Plain).is_some_and(|it| own <= it / 10.0)
            };
            let total = runs
                .first()
                .map_or(0.0, |run| count(run, during, &|_| true));
            let figure = format!("failed, of {total:.0}");
            vec![figures.row(&figure, goal, (&failed, &whole), is_met)]
        }
        Check::NoErrors => {
            let all = Duration::ZERO..Duration::MAX;
            let failed = |run: &Run| count(run, &all, &|it| !it.is_success());
            vec![figures.row("failed", "none".to_owned(), (&failed, &whole), is_zero)]
        }
        Check::Joins {
            at,
            loaded,
            patience,
            window,
        } => figures.of_newcomer(*at, *loaded, *patience, *window),
        Check::Tail { during, times } => {
            let p99 = |run: &Run| p99(run, during);
            let is_met = |own: f64, of: &BTreeMap<Contender, f64>| {
                of.get(&Contender::Guarded)
                    .is_some_and(|it| own * times <= *it)
            };
            let goal = format!("{times} times better");
            vec![figures.row("p99", goal, (&p99, &seconds), is_met)]
        }
        Check::Reached { during, below } => {
            let reached = |run: &Run| share_of(run, during, &|it| it.ending == Ending::TimedOut);
            let goal = format!("less than {}", percent(*below));
            let figure = "requests that reach it after a minute";
            vec![figures.row(figure, goal, (&reached, &percent), |own, _| own < *below)]
        }
        Check::Full { during, capacity } => {
            let ejections = |run: &Run| run.ejections as f64;
            let goodput = |run: &Run| {
                let records = run.records.iter();
                let good = records.filter(|it| it.is_success() && during.contains(&it.ended()));
                good.count() as f64 / (during.end - during.start).as_secs_f64() / capacity
            };
            let goal = format!("at least {}", percent(FULL));
            vec![
                figures.row(
                    "ejections",
                    "none".to_owned(),
                    (&ejections, &whole),
                    is_zero,
                ),
                figures.row(
                    "successes, of what the servers can serve",
                    goal,
                    (&goodput, &percent),
                    |own, _| own >= FULL,
                ),
            ]
        }
    }
}

/// The part of what servers can serve that counts as all of it.
const FULL: f64 = 0.98;
/// The part of an equal share that counts as all of it.
const NEARLY: f64 = 0.9;
/// By which shares are counted.
const BIN: Duration = Duration::from_secs(2);

struct Figures<'a> {
    scenario: &'a Scenario,
    runs: &'a [Run],
}

impl Figures<'_> {
    fn row(
        &self,
        figure: &str,
        goal: String,
        (of, show): Figure<'_>,
        is_met: impl Fn(f64, &BTreeMap<Contender, f64>) -> bool,
    ) -> Row {
        let figures: BTreeMap<_, _> = self
            .runs
            .iter()
            .map(|run| (run.contender, of(run)))
            .collect();
        let own = figures.get(&Contender::Paceline);
        Row {
            what: self.scenario.what.clone(),
            figure: figure.to_owned(),
            is_met: own
                .filter(|_| !goal.is_empty())
                .map(|own| is_met(*own, &figures)),
            goal,
            shown: figures
                .into_iter()
                .map(|(who, figure)| (who, show(figure)))
                .collect(),
        }
    }

    fn of_newcomer(
        &self,
        at: Duration,
        loaded: Duration,
        patience: Duration,
        window: Duration,
    ) -> Vec<Row> {
        let servers = self.scenario.fleet.servers();
        let name = servers.last().map_or("", |it| it.name.as_str());
        let by_it =
            |it: &Record| it.is_success() && it.served_by.as_ref().is_some_and(|by| by == name);
        let hurt = |run: &Run| {
            let hurt = |it: &Record| !it.is_success() || it.took > patience;
            count(run, &(at..Duration::MAX), &hurt)
        };
        let first = |run: &Run| {
            let first = run
                .records
                .iter()
                .filter(|it| by_it(it))
                .map(Record::ended)
                .min();
            first.unwrap_or(Duration::MAX)
        };
        let waits = |run: &Run| first(run).saturating_sub(loaded).as_secs_f64();
        let enough = NEARLY / servers.len() as f64;
        let grows = |run: &Run| {
            let first = first(run);
            let ends = (1..).map(|bin| first.saturating_add(BIN * bin));
            let mut ends = ends.take_while(|end| *end <= self.scenario.span);
            let end =
                ends.find(|end| share_of(run, &(*end - BIN..*end), &|it| by_it(it)) >= enough);
            end.map_or(f64::INFINITY, |end| (end - first).as_secs_f64())
        };
        let longest = window.as_secs_f64();
        vec![
            self.row(
                "failed, or took more than 1 s",
                "none".to_owned(),
                (&hurt, &whole),
                is_zero,
            ),
            self.row(
                "from loaded to its first answer",
                String::new(),
                (&waits, &seconds),
                |_, _| true,
            ),
            self.row(
                "from then to nine tenths of its share",
                format!("at most {}", seconds(longest)),
                (&grows, &seconds_or_never),
                |own, _| own <= longest,
            ),
        ]
    }
}

fn is_zero(own: f64, _: &BTreeMap<Contender, f64>) -> bool {
    own == 0.0
}

/// How many of the requests due in that time are so.
fn count(run: &Run, during: &Range<Duration>, is_so: &dyn Fn(&Record) -> bool) -> f64 {
    let due = run.records.iter().filter(|it| during.contains(&it.due));
    due.filter(|it| is_so(it)).count() as f64
}

fn share_of(run: &Run, during: &Range<Duration>, is_so: &dyn Fn(&Record) -> bool) -> f64 {
    count(run, during, is_so) / count(run, during, &|_| true)
}

/// Of the requests due in that time, failed ones as slow as any.
fn p99(run: &Run, during: &Range<Duration>) -> f64 {
    let due = run.records.iter().filter(|it| during.contains(&it.due));
    let took = |it: &Record| match it.is_success() {
        true => it.took.as_secs_f64(),
        false => f64::INFINITY,
    };
    let mut took: Vec<f64> = due.map(took).collect();
    took.sort_by(f64::total_cmp);
    let index = (took.len() as f64 * 0.99).ceil() as usize;
    took.get(index.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn seconds_or_never(time: f64) -> String {
    match time.is_finite() {
        true => seconds(time),
        false => "never".to_owned(),
    }
}

fn whole(count: f64) -> String {
    format!("{count:.0}")
}

/// The rows as a Markdown table.
#[must_use]
pub fn faults_table(rows: &[Row]) -> String {
    let contenders = [Contender::Paceline, Contender::Guarded, Contender::Plain];
    let mut table = Builder::default();
    let heads = ["what happens", "figure"].map(str::to_owned).into_iter();
    let names = contenders.iter().map(|it| it.name().to_owned());
    let goals = ["goal of Paceline", ""].map(str::to_owned);
    table.push_record(heads.chain(names).chain(goals));
    let mut last = "";
    for row in rows {
        let what = if row.what == last { "" } else { &row.what };
        last = &row.what;
        let shown = contenders
            .iter()
            .map(|it| row.shown.get(it).cloned().unwrap_or_default());
        let met = row.is_met.map_or("", goals::verdict);
        let begin = [what.to_owned(), row.figure.clone()].into_iter();
        table.push_record(begin.chain(shown).chain([row.goal.clone(), met.to_owned()]));
    }
    table.build().with(Style::markdown()).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::fault_scenarios;
    use super::*;
    use crate::load::Lateness;

    fn record(due_ms: u64, took_ms: u64, ending: Ending, by: &'static str) -> Record {
        Record {
            index: 0,
            due: Duration::from_millis(due_ms),
            took: Duration::from_millis(took_ms),
            ending,
            served_by: Some(hyper::header::HeaderValue::from_static(by)),
        }
    }

    fn run(contender: Contender, records: Vec<Record>) -> Run {
        Run {
            contender,
            records,
            ejections: 0,
            lateness: Lateness {
                median: Duration::ZERO,
                p99: Duration::ZERO,
                unsent: 0,
                fell_behind: false,
            },
        }
    }

    fn scenario(is_it: impl Fn(&Check) -> bool) -> Scenario {
        let all = fault_scenarios().unwrap().into_iter().flatten();
        let mut found = all.filter(|it| is_it(&it.check));
        found.next().unwrap()
    }

    /// Requests a tenth of a second apart, each with what `ending` says.
    fn failing(contender: Contender, ending: impl Fn(u64) -> Ending) -> Run {
        let records = (0..180).map(|number| record(number * 100, 100, ending(number), "gpu-2"));
        run(contender, records.collect())
    }

    #[test]
    fn a_tenth_of_the_errors_is_allowed_and_no_more() {
        let scenario = scenario(|it| matches!(it, Check::TenthOfErrors { .. }));
        let until = |end: u64| {
            move |number| match number {
                // Before it fails, nothing counts.
                0..30 => Ending::Answered(500),
                30.. if number < 30 + end => Ending::Answered(404),
                _ => Ending::Answered(200),
            }
        };
        for (own, is_met) in [(0, true), (10, true), (11, false)] {
            let runs = [
                failing(Contender::Paceline, until(own)),
                failing(Contender::Guarded, until(50)),
                failing(Contender::Plain, until(100)),
            ];
            let rows = judge(&scenario, &runs);
            assert_eq!(rows[0].is_met, Some(is_met), "{rows:?}");
            assert_eq!(rows[0].figure, "failed, of 150");
            assert_eq!(rows[0].shown[&Contender::Plain], "100");
        }
        let table = faults_table(&judge(&scenario, &[failing(Contender::Paceline, until(1))]));
        assert!(
            table.contains("**missed**"),
            "nobody to compare with: {table}"
        );
    }

    #[test]
    fn a_newcomer_is_judged_by_who_waits_for_it_and_by_its_share() {
        let scenario = scenario(|it| matches!(it, Check::Joins { .. }));
        // From 27 s on every eighth request is its own, from 31 s on every fourth.
        let by = |ms: u64| match (ms, ms / 100) {
            (27_000..31_000, number) if number % 8 == 0 => "gpu-4",
            (31_000.., number) if number % 4 == 0 => "gpu-4",
            _ => "gpu-1",
        };
        let records = (0..420)
            .map(|number| record(number * 100, 100, Ending::Answered(200), by(number * 100)));
        let mut records: Vec<_> = records.collect();
        let rows = judge(&scenario, &[run(Contender::Paceline, records.clone())]);
        let figures: Vec<_> = rows
            .iter()
            .map(|row| row.shown[&Contender::Paceline].clone())
            .collect();
        assert_eq!(figures, ["0", "2.30 s", "6.00 s"]);
        assert!(rows.iter().all(|row| row.is_met != Some(false)), "{rows:?}");
        records[100] = record(10_000, 15_000, Ending::Answered(200), "gpu-4");
        let rows = judge(&scenario, &[run(Contender::Paceline, records)]);
        assert_eq!(rows[0].is_met, Some(false), "one waited");
    }

    #[test]
    fn failures_are_the_slowest_of_all() {
        let ending = |number| match number {
            100 | 101 => Ending::TimedOut,
            _ => Ending::Answered(200),
        };
        let run = failing(Contender::Paceline, ending);
        let all = Duration::ZERO..Duration::MAX;
        assert_eq!(p99(&run, &all), f64::INFINITY);
        assert_eq!(p99(&run, &(Duration::ZERO..Duration::from_secs(10))), 0.1);
        assert_eq!(count(&run, &all, &|it| !it.is_success()), 2.0);
    }
}
