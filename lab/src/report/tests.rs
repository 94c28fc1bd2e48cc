use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::*;
use crate::load::{Measurement, Tally};

/// A run in which request `n` of `count` took `n * step`, `slow` percent of them served by `b`, with one error and one reject.
fn run(seed: u64, count: u64, step: Duration) -> RunReport {
    let mut latency = Histogram::new_with_bounds(1, 86_400_000_000, 3).unwrap();
    for n in 1..=count {
        latency
            .record(u64::try_from(step.as_micros()).unwrap() * n)
            .unwrap();
    }
    let empty = Histogram::new_with_bounds(1, 86_400_000_000, 3).unwrap();
    RunReport::new(
        seed,
        Measurement {
            tally: Tally {
                statuses: BTreeMap::from([(200, count), (500, 1), (503, 1)]),
                ..Tally::default()
            },
            warm_up: Tally::default(),
            first_byte: latency.clone(),
            latency,
            upstreams: BTreeMap::from([("a".to_owned(), count - 10), ("b".to_owned(), 12)]),
            schedule_delay: empty,
            time_scale: 4.0,
            elapsed: Duration::from_secs(10),
            connections: 3,
            first_failure: None,
            records: Vec::new(),
        },
    )
}

const MILLISECONDS: Duration = Duration::from_millis(10);

#[test]
fn figures_of_a_run_are_those_of_its_latencies() {
    let latency = run(1, 1000, MILLISECONDS).latency.unwrap();
    let near = |measured: f64, expected: f64| {
        assert!((measured / expected - 1.0).abs() < 2e-3, "{latency:?}")
    };
    near(latency.mean, 5.005);
    near(latency.p50, 5.0);
    near(latency.p90, 9.0);
    near(latency.p95, 9.5);
    near(latency.p99, 9.9);
    near(latency.p999, 9.99);
    near(latency.max, 10.0);
    let distribution = run(1, 1000, MILLISECONDS).distribution;
    assert!(distribution.is_sorted_by(|a, b| a.quantile <= b.quantile && a.seconds <= b.seconds));
    assert!(
        distribution
            .iter()
            .any(|point| point.quantile == 0.5 && (point.seconds - 5.0).abs() < 0.01)
    );
}

#[test]
fn the_median_of_an_even_number_is_between_the_middle_two() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(
        Spread::of([3.0]),
        Some(Spread {
            median: 3.0,
            min: 3.0,
            max: 3.0
        })
    );
    assert_eq!(
        Spread::of([4.0, 1.0, 2.0]),
        Some(Spread {
            median: 2.0,
            min: 1.0,
            max: 4.0
        })
    );
    assert_eq!(
        Spread::of([4.0, 1.0, 3.0, 2.0]),
        Some(Spread {
            median: 2.5,
            min: 1.0,
            max: 4.0
        })
    );
}

fn two_series() -> Vec<Series> {
    let slow = [30, 20, 40]
        .iter()
        .zip(1..)
        .map(|(&step, seed)| run(seed, 100, Duration::from_millis(step)));
    let fast = [10, 10, 10]
        .iter()
        .zip(1..)
        .map(|(&step, seed)| run(seed, 100, Duration::from_millis(step)));
    vec![
        Series::new("envoy:random", slow.collect()),
        Series::new("paceline:default", fast.collect()),
    ]
}

#[test]
fn ratios_are_of_runs_on_the_same_arrivals() {
    let comparison = Comparison::new((), two_series());
    let [of_slow, of_fast] = &comparison.ratios[..] else {
        panic!("{:?}", comparison.ratios)
    };
    assert_eq!(
        (&of_slow.of[..], &of_slow.to[..]),
        ("envoy:random", "paceline:default")
    );
    let near = |measured: f64, expected: f64| {
        assert!((measured / expected - 1.0).abs() < 2e-3, "{measured}")
    };
    near(of_slow.p99.median, 3.0);
    near(of_slow.p99.min, 2.0);
    near(of_slow.p99.max, 4.0);
    near(of_fast.p99.median, 1.0 / 3.0);
    // A run whose seed the other has not says nothing of a ratio.
    let [slow, _] = &two_series()[..] else {
        panic!()
    };
    let other = Series::new("other", vec![run(9, 100, MILLISECONDS)]);
    assert_eq!(slow.p99_ratio(&other), None);
}

#[test]
fn the_summary_says_how_the_last_policy_does() {
    assert_eq!(
        Comparison::new((), two_series()).summary(),
        ["paceline:default against envoy:random: \
          p99 3.00 times better (2.00 to 4.00), \
          mean 3.00 times better (2.00 to 4.00)"]
    );
    let single =
        |name: &str, step| Series::new(name, vec![run(1, 100, Duration::from_millis(step))]);
    let against = |step| {
        Comparison::new((), vec![single("a", step), single("b", 10)])
            .summary()
            .remove(0)
    };
    assert_eq!(against(10), "b against a: p99 even, mean even");
    let mixed = [8, 20]
        .iter()
        .zip(1..)
        .map(|(&step, seed)| run(seed, 100, Duration::from_millis(step)));
    let other = Series::new("a", mixed.collect());
    let own = [10, 10]
        .iter()
        .zip(1..)
        .map(|(&step, seed)| run(seed, 100, Duration::from_millis(step)));
    let summary = Comparison::new((), vec![other, Series::new("b", own.collect())])
        .summary()
        .remove(0);
    assert!(
        summary.contains("p99 1.40 times better (1.25 times worse to 2.00 times better)"),
        "{summary}"
    );
    assert_eq!(
        against(5),
        "b against a: p99 2.00 times worse, mean 2.00 times worse"
    );
}

#[test]
fn the_table_has_a_column_a_policy() {
    let expected = "\
┌──────────────────┬────────────────────┬──────────┐
│                  │              envoy │ paceline │
│                  │             random │  default │
├──────────────────┼────────────────────┼──────────┤
│ mean             │             1.52 s │   505 ms │
│                  │ (1.01 s to 2.02 s) │          │
│ p50              │             1.50 s │   500 ms │
│                  │ (1.00 s to 2.00 s) │          │
│ p95              │             2.85 s │   950 ms │
│                  │ (1.90 s to 3.80 s) │          │
│ p99              │             2.97 s │   990 ms │
│                  │ (1.98 s to 3.96 s) │          │
│ p99 of default   │               0.33 │     1.00 │
│ as a ratio to it │     (0.25 to 0.50) │          │
│ requests         │                306 │      306 │
│ errors           │                  3 │        3 │
│ rejects          │                  3 │        3 │
│ to a             │                270 │      270 │
│ to b             │                 36 │       36 │
└──────────────────┴────────────────────┴──────────┘
";
    assert_eq!(
        table(&two_series()),
        expected.trim_end(),
        "\n{}",
        table(&two_series())
    );
}

#[test]
fn notes_tell_of_each_run_with_failures_and_of_void_ones() {
    let mut late = run(2, 100, MILLISECONDS);
    late.schedule_delay.valid = false;
    late.schedule_delay.line = "too late".to_owned();
    late.warm_up.timeouts = 1;
    late.remarks.push("odd".to_owned());
    late.first_failure = Some("no connection".to_owned());
    let mut good = run(1, 100, MILLISECONDS);
    good.requests = Tally::default();
    let series = [Series::new("own", vec![good, late])];
    assert_eq!(
        notes(&series),
        [
            "own, seed 2: 1 x 500, 1 x 503 (no connection)",
            "own, seed 2, warm-up: 1 x timed out",
            "own, seed 2: too late",
            "own, seed 2: odd",
        ]
    );
}

#[test]
fn a_policy_without_an_answer_has_no_figures() {
    let mut empty = run(1, 100, MILLISECONDS);
    empty.latency = None;
    let series = [
        Series::new("dead", vec![empty]),
        Series::new("alive", vec![run(1, 100, MILLISECONDS)]),
    ];
    assert_eq!(series[0].p99, None);
    assert_eq!(series[1].p99_ratio(&series[0]), None);
    assert!(table(&series).contains("none"));
}

#[test]
fn times_have_the_unit_that_suits_them() {
    let shown = [0.000_012_3, 0.001, 0.0456, 0.999, 1.0, 12.34, 567.8].map(table::seconds);
    assert_eq!(
        shown,
        [
            "12.3 us", "1.00 ms", "45.6 ms", "999 ms", "1.00 s", "12.3 s", "568 s"
        ]
    );
}

#[test]
fn json_has_the_figures_the_ratios_and_the_runs() {
    let json = serde_json::to_value(Comparison::new("setting", two_series())).unwrap();
    assert_eq!(json["setting"], "setting");
    assert_eq!(json["series"][1]["name"], "paceline:default");
    assert!(json["series"][1]["p99"]["median"].is_f64());
    assert_eq!(json["series"][0]["runs"][1]["seed"], 2);
    assert_eq!(
        json["series"][0]["runs"][1]["requests"]["statuses"]["503"],
        1
    );
    assert_eq!(json["series"][0]["runs"][0]["upstreams"]["b"], 12);
    assert!(json["ratios"][0]["p99"]["max"].is_f64());
}

#[test]
fn the_picture_has_a_line_a_policy_and_labelled_axes() {
    let svg = latency_svg("Latency & load", &two_series()).unwrap();
    // A line for each policy, and one for each in the legend.
    for colour in ["#0072B2", "#D55E00"] {
        assert_eq!(
            svg.matches(&format!("stroke=\"{colour}\"")).count(),
            2,
            "{colour}"
        );
    }
    for label in [
        "Latency &amp; load",
        "envoy:random",
        "paceline:default",
        "p50",
        "p99",
        "2.00 s",
        "percentile",
        "latency",
    ] {
        assert!(svg.contains(label), "{label}");
    }
    let mut empty = run(1, 100, MILLISECONDS);
    empty.latencies.clear();
    let error = latency_svg("", &[Series::new("dead", vec![empty])]).unwrap_err();
    assert!(matches!(error, PlotError::Empty));
}
