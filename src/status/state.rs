//! The state as JSON. `docs/status.md` is its reference; what it names is stable.

use super::writer::Writer;
use crate::decision::{Limited, Quantiles, Report, Room, Use};
use crate::host::Host;
use crate::outlier::Phase;
use crate::pool::{DeviceIndex, MemberIndex, Pool, PoolIndex, Topology, Upstream};
use crate::recent::Decided;
use crate::state::Measure;
use crate::time::Timestamp;
use crate::worker::Worker;

/// Changes where a reader of an earlier version would be misled; new keys are none.
const VERSION: f64 = 1.0;
/// The most decisions that are told.
const DECISIONS: usize = 32;

/// What this worker knows now.
pub(super) fn write(worker: &mut Worker, host: &mut impl Host) -> String {
    let now = worker.review(host);
    let topology = std::rc::Rc::clone(worker.balancer.topology());
    let uses: Vec<Use> = worker.balancer.uses().collect();
    let mut out = Writer::default();
    out.open("", '{');
    out.number("version", Some(VERSION));
    out.text("paceline", Some(env!("CARGO_PKG_VERSION")));
    out.number("time", Some(now.seconds_since(Timestamp::ZERO)));
    let workers: Vec<_> = worker.balancer.workers(now).collect();
    out.open("workers", '[');
    for (lane, heard_at, outstanding) in &workers {
        out.open("", '{');
        out.number("lane", Some(*lane as f64));
        out.number("heard", Some(now.seconds_since(*heard_at)));
        out.number("in_flight", Some(outstanding.requests() as f64));
        out.number("work", Some(outstanding.work()));
        out.close('}');
    }
    out.close(']');
    out.open("devices", '[');
    for (number, device) in topology.devices.iter().enumerate() {
        let used = used(&uses, Limited::Device(DeviceIndex(number)));
        out.open("", '{');
        out.text("name", Some(&device.name));
        out.number("memory", Some(device.memory as f64));
        out.number("used", used.map(|used| used.used as f64));
        out.close('}');
    }
    out.close(']');
    out.open("pools", '[');
    for (number, pool) in topology.pools.iter().enumerate() {
        out.open("", '{');
        let index = PoolIndex(number);
        write_pool(&mut out, worker, host, (index, pool), &uses, now);
        out.open("upstreams", '[');
        for member in pool.member_indexes() {
            if let Some(report) = worker.balancer.report(member, now) {
                out.open("", '{');
                write_member(&mut out, &topology, member, &report, &uses);
                out.close('}');
            }
        }
        out.close(']');
        out.close('}');
    }
    out.close(']');
    out.open("decisions", '[');
    let mut decisions: Vec<(usize, Decided)> = Vec::new();
    for (lane, ..) in workers {
        for decided in worker.recent.shown_by(host, lane, now) {
            // The latest first; a sort of the standard library weighs some KB.
            let before = |it: &&(usize, Decided)| it.1.at >= decided.at;
            let place = decisions.iter().take_while(before).count();
            decisions.insert(place, (lane, decided));
            decisions.truncate(DECISIONS);
        }
    }
    for (lane, Decided { at, pool, text }) in &decisions {
        out.open("", '{');
        out.number("age", Some(now.seconds_since(*at)));
        out.number("lane", Some(*lane as f64));
        out.text(
            "pool",
            Some(pool).filter(|it| !it.is_empty()).map(String::as_str),
        );
        out.text("decision", Some(text));
        out.close('}');
    }
    out.close(']');
    out.close('}');
    out.into_text()
}

fn used(uses: &[Use], limited: Limited) -> Option<Use> {
    uses.iter().find(|used| used.limited == limited).copied()
}

/// The entries of a pool without its upstreams.
fn write_pool(
    out: &mut Writer,
    worker: &mut Worker,
    host: &mut impl Host,
    (index, pool): (PoolIndex, &Pool),
    uses: &[Use],
    now: Timestamp,
) {
    let (policy, basis) = worker.balancer.policy_of(index).unwrap_or_default();
    out.text("name", Some(&pool.name));
    out.text("policy", Some(policy));
    out.text("basis", basis.map(|basis| basis.label()));
    out.truth("panic", Some(worker.balancer.panics(index)));
    let limit = used(uses, Limited::Pool(index));
    out.number("in_flight", limit.map(|it| it.used as f64));
    out.number("max_in_flight", limit.map(|it| it.limit as f64));
    let held = worker.waiting_in(index);
    out.number("held", Some(held.into()));
    let is_full = limit.is_some_and(|it| it.used >= it.limit);
    let reason = match worker.balancer.room(host, index, now) {
        _ if held == 0 => None,
        _ if is_full => Some("pool_full"),
        Ok(Room::None) => Some("upstreams_full"),
        Ok(Room::For(_)) => Some("size"),
        _ => Some("turn"),
    };
    out.text("held_for", reason);
}

/// The entries of an upstream.
fn write_member(
    out: &mut Writer,
    topology: &Topology,
    index: MemberIndex,
    report: &Report,
    uses: &[Use],
) {
    let Some(member) = topology.member(index) else {
        return;
    };
    out.text(
        "name",
        topology.upstream(member.upstream).map(Upstream::name),
    );
    out.number("weight", Some(member.weight));
    out.number("in_flight", Some(report.in_flight as f64));
    out.number("work", Some(report.work));
    let used = used(uses, Limited::Upstream(member.upstream));
    out.number("max_in_flight", used.map(|used| used.limit as f64));
    out.number("places_used", used.map(|used| used.used as f64));
    let device = member
        .memory
        .and_then(|(device, _)| topology.device(device));
    out.text("device", device.map(|device| device.name.as_str()));
    let (state, reason) = match report.phase {
        Phase::In => ("in", None),
        Phase::Ejected(reason) => ("ejected", Some(reason.label())),
        Phase::HalfOpen(reason) => ("half_open", Some(reason.label())),
    };
    out.text("state", Some(state));
    out.text("reason", reason);
    out.number("out_for", reason.map(|_| report.out_for));
    out.truth("ready", report.is_ready);
    out.number("warmth", Some(report.warmth));
    out.number("failure_rate", Some(report.failure_rate));
    out.number("full_rate", Some(report.full_rate));
    out.open("pace", '{');
    out.number("measured", report.pace.map(|pace| pace.seconds));
    out.number("low", report.pace.map(|pace| pace.low));
    out.number("high", report.pace.map(|pace| pace.high));
    out.number("used", report.expected_pace);
    out.close('}');
    for (key, measure) in [
        ("latency", Measure::Complete),
        ("first_byte", Measure::FirstByte),
        ("chunk_gap", Measure::ChunkGap),
    ] {
        write_quantiles(out, key, report.measured.get(measure.index()).copied());
    }
}

fn write_quantiles(out: &mut Writer, key: &str, quantiles: Option<Quantiles>) {
    out.open(key, '{');
    let quantiles = quantiles.flatten();
    for (place, key) in ["p50", "p90", "p99"].into_iter().enumerate() {
        out.number(key, quantiles.and_then(|all| all.get(place).copied()));
    }
    out.close('}');
}
