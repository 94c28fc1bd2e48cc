use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

use super::{Figures, Row};

/// The rows as a table for people (Markdown, so that it can go into a page as it is).
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "upstreams",
        "workers",
        "body",
        "filter",
        "CPU per request",
        "ratio to none",
        "(range)",
        "added latency, median",
        "memory",
    ]);
    for row in rows {
        let variants = [
            ("none", &row.no_filter),
            ("empty", &row.empty_filter),
            ("paceline", &row.filter),
        ];
        for (name, figures) in variants {
            table.push_record(record(row, name, figures));
        }
    }
    table.build().with(Style::markdown()).to_string()
}

fn record(row: &Row, name: &str, figures: &Figures) -> [String; 9] {
    let (least, greatest) = figures.cpu_ratio_range;
    [
        row.case.upstreams.to_string(),
        row.case.workers.to_string(),
        format!("{} B", row.case.body_bytes),
        name.to_owned(),
        format!("{:.1} us", figures.cpu_us),
        format!("{:.2}", figures.cpu_ratio),
        format!("{least:.2}-{greatest:.2}"),
        format!("{:+.0} us", figures.added_latency_us),
        format!("{:.0} MiB", figures.memory_mib),
    ]
}

/// The rows for programs.
#[must_use]
pub fn to_json(rows: &[Row]) -> Value {
    json!({ "overhead": rows })
}
