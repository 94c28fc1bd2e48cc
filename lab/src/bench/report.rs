use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

use super::{Answer, Case, Figures, Row};

/// What a request costs, as a table for people (Markdown, so that it can go into a page as it is).
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "upstreams",
        "workers",
        "body",
        "answer",
        "filter",
        "CPU per request",
        "ratio to none",
        "(range)",
        "added latency, median",
        "memory",
    ]);
    for row in rows {
        for (name, figures) in row.variants() {
            table.push_record(record(&row.case, name, figures));
        }
    }
    table.build().with(Style::markdown()).to_string()
}

fn record(case: &Case, name: &str, figures: &Figures) -> [String; 10] {
    let [cpu, ratio, range] = processor(figures);
    [
        case.upstreams.to_string(),
        case.workers.to_string(),
        match case.reads_body {
            true => format!("{} B, read", case.body_bytes),
            false => format!("{} B", case.body_bytes),
        },
        match case.answer {
            Answer::Whole => "whole".to_owned(),
            Answer::Chunks(chunks) => format!("{chunks} chunks"),
        },
        name.to_owned(),
        cpu,
        ratio,
        range,
        format!("{:+.0} us", figures.added_latency_us),
        format!("{:.0} MiB", figures.memory_mib),
    ]
}

/// How the filter scales with Envoy's workers, as a table. Below it stand the numbers of workers that were left out on a machine of so
/// many cores.
#[must_use]
pub fn workers_table(rows: &[Row], left_out: &[u32], cores: usize) -> String {
    let mut table = Builder::default();
    table.push_record([
        "upstreams",
        "workers",
        "filter",
        "CPU per request",
        "ratio to none",
        "(range)",
        "requests/s",
        "requests",
        "retries",
        "pass-throughs",
    ]);
    for row in rows {
        for (name, figures) in row.variants() {
            let [cpu, ratio, range] = processor(figures);
            // Only the filter counts them.
            let counted = |count: u64| match name {
                "none" | "control" | "empty" => String::new(),
                _ => count.to_string(),
            };
            table.push_record([
                row.case.upstreams.to_string(),
                row.case.workers.to_string(),
                name.to_owned(),
                cpu,
                ratio,
                range,
                format!("{:.0}", figures.per_second),
                figures.requests.to_string(),
                counted(figures.counted.retries),
                counted(figures.counted.pass_throughs),
            ]);
        }
    }
    let table = table.build().with(Style::markdown()).to_string();
    match left_out {
        [] => table,
        _ => format!("{table}\n\n{}", without(left_out, cores)),
    }
}

/// Which numbers of workers were not measured, and why.
fn without(left_out: &[u32], cores: usize) -> String {
    let numbers: Vec<String> = left_out.iter().map(u32::to_string).collect();
    let cores = match cores {
        1 => "1 core".to_owned(),
        _ => format!("{cores} cores"),
    };
    format!(
        "Not measured: {} workers. This machine has {cores}.",
        numbers.join(", ")
    )
}

/// Processor time, over that of no filter, and the range of that.
fn processor(figures: &Figures) -> [String; 3] {
    let (least, greatest) = figures.cpu_ratio_range;
    [
        format!("{:.1} us", figures.cpu_us),
        format!("{:.2}", figures.cpu_ratio),
        format!("{least:.2}-{greatest:.2}"),
    ]
}

/// The rows for programs.
#[must_use]
pub fn to_json(rows: &[Row]) -> Value {
    json!({ "overhead": rows })
}

#[cfg(test)]
mod tests {
    use super::super::Counted;
    use super::*;

    fn row(workers: u32, answer: Answer) -> Row {
        let figures = |ratio: f64| Figures {
            cpu_us: 40.0 * ratio,
            cpu_ratio: ratio,
            cpu_ratio_range: (ratio - 0.1, ratio + 0.1),
            per_second: 25_000.4,
            requests: 75_001,
            counted: Counted {
                retries: 17,
                pass_throughs: 3,
            },
            ..Figures::default()
        };
        Row {
            case: Case {
                upstreams: 8,
                workers,
                body_bytes: 1_000,
                reads_body: false,
                answer,
            },
            none: figures(1.0),
            control: figures(1.05),
            empty: figures(1.15),
            filter: figures(1.25),
            capped: figures(1.3),
            logged: figures(1.25),
            caps_ratio: 1.04,
        }
    }

    /// The cells of each line, without the header.
    fn cells(table: &str) -> Vec<Vec<String>> {
        let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
        let cells = |line: &str| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        };
        lines.map(cells).collect()
    }

    #[test]
    fn every_variant_has_a_line() {
        let rows = [row(1, Answer::Whole), row(1, Answer::Chunks(100))];
        let cells = cells(&render(&rows));
        let column = |number: usize| {
            let column = cells.iter().map(|line| line[number].as_str());
            column.collect::<Vec<_>>()
        };
        let variants = [
            "none",
            "control",
            "empty",
            "paceline",
            "paceline, caps",
            "paceline, access log",
        ];
        assert_eq!(column(4), [variants, variants].concat());
        assert_eq!(column(3)[5..7], ["whole", "100 chunks"]);
        assert_eq!(column(6)[..4], ["1.00", "1.05", "1.15", "1.25"]);
    }

    #[test]
    fn what_the_filter_counts_stands_beside_the_filter_alone() {
        let table = workers_table(&[row(12, Answer::Whole)], &[], 16);
        let cells = cells(&table);
        assert_eq!(
            cells[3],
            [
                "8",
                "12",
                "paceline",
                "50.0 us",
                "1.25",
                "1.15-1.35",
                "25000",
                "75001",
                "17",
                "3"
            ]
        );
        assert_eq!(cells[0][8..], ["", ""]);
        assert!(!table.contains("Not measured"), "{table}");
    }

    #[test]
    fn workers_that_were_left_out_are_named() {
        let table = workers_table(&[row(1, Answer::Whole)], &[4, 8, 12], 2);
        let said = "\n\nNot measured: 4, 8, 12 workers. This machine has 2 cores.";
        assert!(table.ends_with(said), "{table}");
    }
}
