//! What happens, as lines of text.

use std::net::SocketAddr;

use super::snapshot::{Device, Health, PoolRates, Rates, Reason, UpstreamRates};
use super::told::Told;

const HEADINGS: [&str; 12] = [
    "upstream",
    "state",
    "in flight",
    "picks/s",
    "share",
    "ok/s",
    "failed/s",
    "retried/s",
    "adopted/s",
    "p50",
    "p90",
    "p99",
];

/// The line above the last decisions.
pub(super) const LAST_DECISIONS: &str = "last decisions";

/// The whole picture, with what the status page tells if it is asked.
pub(super) fn lines(rates: &Rates, told: Option<&Told>, admin: SocketAddr) -> Vec<String> {
    let mut lines = vec![format!(
        "Envoy {admin}: {} picks/s, {} in flight",
        number(rates.picks),
        rates.in_flight
    )];
    lines.extend(rates.devices.iter().map(device));
    let passed = rates.passed_through.iter();
    lines.extend(passed.map(|it| reason("passed through", it)));
    let mut headings = HEADINGS.map(str::to_owned).to_vec();
    headings.extend(told.map(|_| "pace (95 %)".to_owned()));
    let tables: Vec<_> = rates.pools.iter().map(|pool| rows(pool, told)).collect();
    // One width for all pools.
    let widths = headings.iter().enumerate().map(|(column, heading)| {
        let cells = tables.iter().flatten().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        cells.max().unwrap_or_default().max(heading.len())
    });
    let widths: Vec<usize> = widths.collect();
    for (pool, rows) in rates.pools.iter().zip(&tables) {
        lines.push(String::new());
        lines.push(heading(pool));
        lines.extend(pool.rejections.iter().map(|it| reason("rejected", it)));
        lines.push(line(&headings, &widths));
        lines.extend(rows.iter().map(|row| line(row, &widths)));
    }
    if let Some(told) = told {
        lines.extend([String::new(), LAST_DECISIONS.to_owned()]);
        lines.extend(told.decisions());
    }
    lines
}

fn reason(what: &str, reason: &Reason) -> String {
    let Reason { name, in_all, .. } = reason;
    format!(
        "{what} ({name}): {}/s, {in_all} in all",
        number(reason.per_second)
    )
}

fn device((name, device): &(String, Device)) -> String {
    let Device { used, memory } = *device;
    let percent = 100.0 * used as f64 / memory.max(1) as f64;
    format!("device {name}: {used} of {memory} bytes taken, {percent:.0} %")
}

/// What a pool does as a whole.
fn heading(pool: &PoolRates) -> String {
    let unit = if pool.weighs {
        "requests weighed by size"
    } else {
        "requests counted"
    };
    let mut text = format!("pool {}: {} picks/s, {unit}", pool.name, number(pool.picks));
    let capacity = pool.capacity;
    if let Some(cap) = capacity.cap {
        text += &format!(", {} of {cap} in flight", capacity.in_flight);
    }
    if capacity.held > 0 {
        text += &format!(", {} waiting for room", capacity.held);
    }
    if pool.panics > 0.0 {
        let rate = number(pool.panics);
        text += &format!(", {rate}/s among all because too many are ejected");
    }
    text
}

/// What keeps an upstream from its share; a dash where nothing is known to.
fn state(health: &Health) -> String {
    let mut states = Vec::new();
    match health.ready {
        Some(false) => states.push("not ready".to_owned()),
        Some(true) if health.ejected.is_empty() && !health.warming => {
            states.push("ready".to_owned());
        }
        _ => {}
    }
    if !health.ejected.is_empty() {
        let reasons: Vec<_> = health.ejected.iter().map(String::as_str).collect();
        states.push(format!("ejected: {}", reasons.join(", ")));
    }
    if health.warming {
        states.push("warming".to_owned());
    }
    match states.is_empty() {
        true => "-".to_owned(),
        false => states.join(", "),
    }
}

fn rows(pool: &PoolRates, told: Option<&Told>) -> Vec<Vec<String>> {
    let row = |it: &UpstreamRates| {
        let share = match pool.picks > 0.0 {
            true => format!("{:.0} %", 100.0 * it.picks / pool.picks),
            false => "-".to_owned(),
        };
        let in_flight = match it.cap {
            Some(cap) => format!("{} of {cap}", it.in_flight),
            None => it.in_flight.to_string(),
        };
        let [p50, p90, p99] = it.quantiles.map(time);
        let mut cells = vec![
            it.name.clone(),
            state(&it.health),
            in_flight,
            number(it.picks),
            share,
            number(it.successes),
            number(it.failures),
            number(it.retried),
            number(it.adoptions),
            p50,
            p90,
            p99,
        ];
        cells.extend(told.map(|told| told.pace(&pool.name, &it.name)));
        cells
    };
    pool.upstreams.iter().map(row).collect()
}

/// The first two cells to the left, the others to the right.
fn line(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, width))| match column {
        0 | 1 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Three figures or so.
fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        _ if rate >= 100.0 => format!("{rate:.0}"),
        _ => format!("{rate:.1}"),
    }
}

/// A time of so many milliseconds; a dash where there is none.
fn time(millis: u64) -> String {
    match millis {
        0 => "-".to_owned(),
        1..10_000 => format!("{millis} ms"),
        _ => format!("{:.1} s", millis as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use lab::gateway::Stats;

    use super::super::snapshot::Snapshot;
    use super::*;

    fn snapshot(samples: &[(&str, u64)], at: Instant) -> Snapshot {
        let entries: Vec<_> = samples
            .iter()
            .map(|(name, value)| {
                format!(r#"{{"name":"wasmcustom.paceline_{name}","value":{value}}}"#)
            })
            .collect();
        let text = format!(r#"{{"stats":[{}]}}"#, entries.join(","));
        Snapshot::of(&Stats::from_json(&text).unwrap(), at)
    }

    #[test]
    fn rates_and_gauges_are_shown_by_pool_and_upstream() {
        let begin = Instant::now();
        let before = snapshot(&[("picks_total;pool=p;upstream=a", 100)], begin);
        let now = [
            ("picks_total;pool=p;upstream=a", 130),
            ("picks_total;pool=p;upstream=long-name", 10),
            ("adoptions_total;pool=p;upstream=a", 1),
            ("outcomes_total;pool=p;upstream=a;outcome=success", 25),
            ("outcomes_total;pool=p;upstream=a;outcome=reset", 2),
            ("outcomes_total;pool=p;upstream=a;outcome=timeout", 1),
            ("outcomes_total;pool=p;upstream=a;outcome=retried", 4),
            ("in_flight;upstream=a;plugin=x", 3),
            ("in_flight;upstream=a;plugin=y", 4),
            (
                "latency_quantile_milliseconds;pool=p;upstream=a;quantile=0.5;plugin=x",
                250,
            ),
            (
                "latency_quantile_milliseconds;pool=p;upstream=a;quantile=0.99;plugin=x",
                12_340,
            ),
            ("weighs;pool=p;plugin=x", 1),
            ("pass_through_total;reason=no_pool", 2),
            ("pass_through_total;reason=drained", 0),
        ];
        let now = snapshot(&now, begin + Duration::from_secs(2));
        let lines = lines(
            &Rates::between(&before, &now),
            None,
            ([127, 0, 0, 1], 9901).into(),
        );
        let expected = [
            "Envoy 127.0.0.1:9901: 20.0 picks/s, 7 in flight",
            "passed through (no_pool): 1.0/s, 2 in all",
            "",
            "pool p: 20.0 picks/s, requests weighed by size",
            "upstream   state  in flight  picks/s  share  ok/s  failed/s  retried/s  adopted/s     p50  p90     p99",
            "a          -              7     15.0   75 %  12.5       1.5        2.0        0.5  250 ms    -  12.3 s",
            "long-name  -              0      5.0   25 %     0         0          0          0       -    -       -",
        ];
        assert_eq!(lines, expected);
    }

    /// What an Envoy with these gauges, and with counters from zero a second ago, shows.
    fn shown(samples: &[(&str, u64)]) -> Vec<String> {
        let begin = Instant::now();
        let before = snapshot(&[("picks_total;pool=p;upstream=a", 0)], begin);
        let now = snapshot(samples, begin + Duration::from_secs(1));
        lines(
            &Rates::between(&before, &now),
            None,
            ([127, 0, 0, 1], 9901).into(),
        )
    }

    #[test]
    fn what_the_status_page_tells_is_shown_beside() {
        let begin = Instant::now();
        let before = snapshot(&[], begin);
        let samples = [
            ("picks_total;pool=p;upstream=a", 0),
            ("picks_total;pool=p;upstream=b", 0),
        ];
        let now = snapshot(&samples, begin + Duration::from_secs(1));
        let told = serde_json::json!({
            "version": 1,
            "pools": [{ "name": "p", "upstreams": [
                { "name": "a", "pace": { "measured": 0.25, "low": 0.2, "high": 1.234, "used": 0.3 } },
                { "name": "b", "pace": { "measured": null, "low": null, "high": null, "used": 0.3 } },
            ] }],
            "decisions": [
                { "age": 0.25, "lane": 1, "pool": "p", "decision": "upstream=a; reason=policy" },
                { "age": 12, "lane": 0, "pool": null, "decision": "pass_through=no_pool" },
            ],
        });
        let told = serde_json::from_value(told).unwrap();
        let rates = Rates::between(&before, &now);
        let lines = lines(&rates, Some(&told), ([127, 0, 0, 1], 9901).into());
        let ends = ["  pace (95 %)", "  250 ms (200 ms to 1.23 s)", "  -"];
        for (line, end) in lines[3..6].iter().zip(ends) {
            assert!(line.ends_with(end), "{lines:#?}");
            assert_eq!(line.len(), lines[3].len(), "{lines:#?}");
        }
        let expected = [
            "",
            "last decisions",
            "0.2 s ago, worker 1, p: upstream=a; reason=policy",
            "12.0 s ago, worker 0, no pool: pass_through=no_pool",
        ];
        assert_eq!(lines[6..], expected);
    }

    #[test]
    fn what_keeps_an_upstream_from_its_share_is_named() {
        let lines = shown(&[
            ("ready;pool=p;upstream=a;plugin=x", 1),
            ("warming;pool=p;upstream=a;plugin=x", 0),
            ("ready;pool=p;upstream=b;plugin=x", 0),
            ("ready;pool=p;upstream=c;plugin=x", 1),
            ("ejected;pool=p;upstream=c;reason=latency;plugin=x", 1),
            ("ejected;pool=p;upstream=c;reason=refusals;plugin=x", 0),
            ("warming;pool=p;upstream=d;plugin=x", 1),
            ("picks_total;pool=p;upstream=e", 0),
        ]);
        let expected = [
            "a         ready             ",
            "b         not ready         ",
            "c         ejected: latency  ",
            "d         warming           ",
            "e         -                 ",
        ];
        let rows = lines.iter().skip_while(|it| !it.starts_with("upstream"));
        let rows: Vec<_> = rows.skip(1).collect();
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(expected) {
            assert!(row.starts_with(expected), "{row:?}");
        }
    }

    #[test]
    fn caps_waiting_and_rejections_are_shown() {
        let lines = shown(&[
            ("in_flight;upstream=a;plugin=x", 3),
            ("max_in_flight;upstream=a;plugin=x", 8),
            ("picks_total;pool=p;upstream=a", 2),
            ("pool_in_flight;pool=p;plugin=x", 3),
            ("pool_max_in_flight;pool=p;plugin=x", 4),
            ("held;pool=p;plugin=x", 5),
            ("panic_picks_total;pool=p", 1),
            ("rejections_total;pool=p;reason=queue_full;class=low", 6),
            ("rejections_total;pool=p;reason=queue_full;class=high", 1),
            ("rejections_total;pool=p;reason=deadline;class=low", 0),
            ("device_memory_bytes;device=gpu-0;plugin=x", 1000),
            ("device_memory_used_bytes;device=gpu-0;plugin=x", 250),
        ]);
        let expected = [
            "Envoy 127.0.0.1:9901: 2.0 picks/s, 3 in flight",
            "device gpu-0: 250 of 1000 bytes taken, 25 %",
            "",
            "pool p: 2.0 picks/s, requests counted, 3 of 4 in flight, 5 waiting for room, 1.0/s among all because too many are ejected",
            "rejected (queue_full): 7.0/s, 7 in all",
        ];
        assert_eq!(lines[..5], expected);
        assert!(
            lines[6].starts_with("a         -         3 of 8  "),
            "{}",
            lines[6]
        );
    }

    #[test]
    fn a_restarted_envoy_counts_anew() {
        let begin = Instant::now();
        let before = snapshot(&[("picks_total;pool=p;upstream=a", 1000)], begin);
        let now = snapshot(
            &[("picks_total;pool=p;upstream=a", 5)],
            begin + Duration::from_secs(1),
        );
        assert_eq!(number(Rates::between(&before, &now).picks), "5.0");
    }
}
