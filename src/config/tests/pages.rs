//! What the pages say about the configuration, held to what it is.

use super::super::{KEYS, pool};
use super::{parse, refused};
use crate::estimate::Sketch;

const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// Every page with tables.
const PAGES: [(&str, &str); 12] = [
    ("README.md", include_str!("../../../README.md")),
    ("metrics.md", include_str!("../../../docs/metrics.md")),
    ("configuration.md", CONFIGURATION),
    ("operations.md", include_str!("../../../docs/operations.md")),
    ("questions.md", include_str!("../../../docs/questions.md")),
    (
        "compatibility.md",
        include_str!("../../../docs/compatibility.md"),
    ),
    (
        "architecture.md",
        include_str!("../../../docs/architecture.md"),
    ),
    ("production.md", include_str!("../../../docs/production.md")),
    ("benchmarks.md", include_str!("../../../docs/benchmarks.md")),
    ("sizes.md", include_str!("../../../docs/sizes.md")),
    ("envoy/README.md", include_str!("../../../envoy/README.md")),
    ("istio/README.md", include_str!("../../../istio/README.md")),
];

/// The text below a heading, up to the next of its level.
fn section(heading: &str) -> &'static str {
    let (_, rest) = CONFIGURATION
        .split_once(&format!("\n### {heading}\n"))
        .unwrap();
    rest.split("\n### ").next().unwrap()
}

#[test]
fn every_key_has_a_row() {
    let is_in = |section: &str, key: &str| {
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let mut names = rows.filter_map(|row| row.split('|').nth(1));
        names.any(|names| names.contains(&format!("`{key}`")))
    };
    let (top, pools) = (section("Top level"), section("Pools"));
    for key in KEYS.into_iter().chain(pool::CHOICE_KEYS) {
        assert!(is_in(top, key), "{key} at the top level");
    }
    for key in ["name", "match"].into_iter().chain(pool::CHOICE_KEYS) {
        assert!(is_in(pools, key), "{key} of pools");
    }
}

#[test]
fn every_section_of_the_reference_is_in_the_contents() {
    let (contents, _) = CONFIGURATION.split_once("\n## Examples").unwrap();
    for heading in CONFIGURATION
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
    {
        let anchor = heading.to_lowercase().replace(',', "").replace(' ', "-");
        assert!(contents.contains(&format!("(#{anchor})")), "{heading}");
    }
}

/// A row behind an empty line is no row of a table any more.
#[test]
fn no_table_is_broken() {
    for (page, text) in PAGES {
        let lines: Vec<&str> = text.lines().collect();
        for place in lines.windows(3) {
            let begins = place[0].is_empty() && place[1].starts_with('|');
            assert!(
                !begins || place[2].starts_with("|-") || place[2].starts_with("|--"),
                "{page}: {}",
                place[1]
            );
        }
    }
}

#[test]
fn the_error_of_quantiles_holds_where_the_page_says() {
    let stated = format!(
        "within {} % of the true one from {} µs to {} minutes",
        100.0 * Sketch::RELATIVE_ERROR,
        Sketch::SHORTEST.as_micros(),
        Sketch::LONGEST.as_secs() / 60,
    );
    assert!(section("Latency").contains(&stated), "{stated}");
}

/// Every block of `docs/configuration.md` in ```` ```json ```` is a valid
/// configuration; fragments and refused ones are fenced as `jsonc`.
#[test]
fn documented_configurations_are_valid() {
    let examples: Vec<_> = CONFIGURATION
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        if let Err(said) = parse(example) {
            panic!("{said}\nin\n{example}");
        }
    }
}

/// Every refusal that the page quotes is what the configuration above it gets.
#[test]
fn documented_errors_are_the_real_ones() {
    let mut shown = 0;
    for rest in CONFIGURATION.split("```jsonc refused\n").skip(1) {
        let mut fences = rest.split("```");
        let config = fences.next().unwrap();
        let message = fences.nth(1).unwrap().strip_prefix("text\n").unwrap();
        assert_eq!(refused(config), message.trim_end());
        shown += 1;
    }
    assert!(shown >= 2, "{shown} errors");
}
