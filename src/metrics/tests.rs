//! Metrics on a host in memory.

use std::collections::BTreeMap;

use super::*;
use crate::config::Config;
use crate::decision::QUANTILES;
use crate::host::fake::{Call, Fake};
use crate::pool::{MemberIndex, UpstreamIndex};

const POOLS: &str = r#"{"pools": [
    {"name": "a", "match": {"path_prefix": "/a/"}, "upstreams": [{"cluster": "gpu-1"}, {"cluster": "gpu-2"}]},
    {"name": "b", "upstreams": [{"cluster": "gpu-1"}]}]}"#;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn metrics(json: &str, plugin: &str, host: &mut Fake) -> (Metrics, Topology) {
    let topology = Topology::new(&Config::parse(Some(json.as_bytes())).unwrap());
    let metrics = Metrics::new(&topology, plugin, host, at(1));
    (metrics, topology)
}

/// A pool of endpoints of one cluster, at these ports.
fn endpoints(ports: std::ops::Range<u32>) -> Topology {
    let config = Config::parse(Some(br#"{"cluster": "gpus"}"#)).unwrap();
    let address = |port| format!("10.0.0.1:{port}");
    Topology::with_endpoints(&config, |_| ports.clone().map(address).collect())
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[test]
fn what_is_counted_is_labelled_with_pool_and_upstream() {
    let mut host = Fake::new();
    let (mut metrics, topology) = metrics(POOLS, "p", &mut host);
    let member = |index| topology.member_handle(index).unwrap();
    for _ in 0..3 {
        metrics.picked(&mut host, member(MemberIndex(0)));
    }
    metrics.picked(&mut host, member(MemberIndex(2)));
    metrics.adopted(&mut host, member(MemberIndex(1)));
    metrics.ended(&mut host, member(MemberIndex(1)), Outcome::Rejected);
    metrics.latency(&mut host, member(MemberIndex(0)), 12);
    metrics.first_byte(&mut host, member(MemberIndex(0)), 4);
    let picks = [("pool=a;upstream=gpu-1", 3), ("pool=b;upstream=gpu-1", 1)];
    assert_eq!(host.values("paceline_picks_total;"), counts(picks));
    let on_second = "pool=a;upstream=gpu-2";
    let adoptions = host.values("paceline_adoptions_total;");
    assert_eq!(adoptions, counts([(on_second, 1)]));
    let outcomes = host.values("paceline_outcomes_total;");
    let rejected = format!("{on_second};outcome=rejected");
    assert_eq!(outcomes, counts([(&rejected, 1)]));
    let of_first = ";pool=a;upstream=gpu-1";
    let latency = format!("paceline_latency_milliseconds{of_first}");
    assert_eq!(host.samples(&latency), [12]);
    let first_byte = format!("paceline_first_byte_milliseconds{of_first}");
    assert_eq!(host.samples(&first_byte), [4]);
}

#[test]
fn reasons_and_outcomes_each_have_a_counter() {
    let mut host = Fake::new();
    let (mut metrics, topology) = metrics(POOLS, "p", &mut host);
    for reason in PassThrough::ALL {
        metrics.passed_through(&mut host, reason);
    }
    for reason in Unknown::ALL {
        metrics.size_unknown(&mut host, PoolIndex(1), reason);
        metrics.model_unknown(&mut host, reason);
    }
    for outcome in Outcome::ALL {
        metrics.ended(
            &mut host,
            topology.member_handle(MemberIndex(0)).unwrap(),
            outcome,
        );
    }
    let of = |prefix: &str| host.values(prefix).into_values().collect::<Vec<_>>();
    let all = [1; Unknown::ALL.len()];
    assert_eq!(of("paceline_size_unknown_total;pool=b;reason="), all);
    assert_eq!(of("paceline_model_unknown_total;reason="), all);
    let passed = of("paceline_pass_through_total;reason=");
    assert_eq!(passed, vec![1; PassThrough::ALL.len()]);
    let outcomes = of("paceline_outcomes_total;pool=a;upstream=gpu-1;outcome=");
    assert_eq!(outcomes, [1; Outcome::ALL.len()]);
    // Of a pool that there is not, nothing. A change that was never made has cost
    // all of its tries.
    metrics.size_unknown(&mut host, PoolIndex(9), Unknown::Missing);
    metrics.state_failed(&mut host, StateError::Malformed);
    let tries = u64::from(cell::ATTEMPTS);
    assert_eq!(host.value("paceline_transaction_retries_total"), tries);
    metrics.state_failed(&mut host, StateError::Contended);
    metrics.retried(&mut host, 3);
    assert_eq!(
        host.value("paceline_transaction_retries_total"),
        2 * tries + 3
    );
    assert_eq!(host.value("paceline_state_errors_total"), 2);
}

#[test]
fn gauges_name_their_plugin_in_a_label_without_a_semicolon() {
    let mut host = Fake::new();
    let json = r#"{"upstreams": [{"cluster": "gpu-1"}]}"#;
    let (mut metrics, topology) = metrics(json, "chat;east", &mut host);
    let upstream = topology.upstream_handle(UpstreamIndex(0)).unwrap();
    metrics.in_flight(&mut host, upstream, 7);
    metrics.basis(&mut host, PoolIndex(0), Basis::Work);
    let plugin = "plugin=chat_east";
    let in_flight = format!("paceline_in_flight;upstream=gpu-1;{plugin}");
    assert_eq!(host.value(&in_flight), 7);
    let weighs = format!("paceline_weighs;pool=default;{plugin}");
    assert_eq!(host.value(&weighs), 1);
    metrics.basis(&mut host, PoolIndex(0), Basis::Requests);
    assert_eq!(host.value(&weighs), 0);
}

#[test]
fn a_metric_is_defined_once_and_a_refused_one_is_tried_again() {
    let mut host = Fake::new();
    host.fail(Call::DefineMetric);
    let (mut metrics, topology) = metrics(POOLS, "p", &mut host);
    let member = topology.member_handle(MemberIndex(0)).unwrap();
    metrics.picked(&mut host, member);
    assert_eq!(host.defined().count(), 0);
    host.heal();
    for _ in 0..3 {
        metrics.picked(&mut host, member);
        metrics.ended(&mut host, member, Outcome::Success);
    }
    let mut names: Vec<&str> = host.defined().collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "none twice");
    let picks = counts([("pool=a;upstream=gpu-1", 3)]);
    assert_eq!(host.values("paceline_picks_total;"), picks);
    // A write that fails is lost, and nothing else.
    host.fail(Call::WriteMetric);
    metrics.picked(&mut host, member);
    host.heal();
    metrics.picked(&mut host, member);
    let picks = counts([("pool=a;upstream=gpu-1", 4)]);
    assert_eq!(host.values("paceline_picks_total;"), picks);
}

#[test]
fn quantiles_are_shown_in_their_unit_and_disappear_as_zero() {
    let mut host = Fake::new();
    let (mut metrics, topology) = metrics(POOLS, "p", &mut host);
    let member = topology.member_handle(MemberIndex(0)).unwrap();
    let mut measured = Measured::default();
    let names = |host: &Fake| host.values("paceline_latency_quantile_milliseconds;");
    metrics.measured(&mut host, member, &measured);
    let before = host.defined().count();
    assert_eq!(names(&host), counts([]));
    measured[0] = Some([0.5; QUANTILES.len()]);
    metrics.measured(&mut host, member, &measured);
    assert_eq!(host.defined().count(), before + QUANTILES.len());
    let shown: Vec<u64> = names(&host).into_values().collect();
    assert_eq!(shown, [500; QUANTILES.len()]);
    metrics.measured(&mut host, member, &Measured::default());
    assert_eq!(names(&host), counts([]));
}

#[test]
fn endpoints_beyond_the_number_are_counted_together() {
    let mut host = Fake::new();
    let most = MAX_ENDPOINTS;
    let mut metrics = Metrics::new(&endpoints(0..most), "p", &mut host, at(1));
    let topology = endpoints(0..most + 3);
    metrics.set_topology(&topology, &mut host, at(2));
    for index in 0..topology.members.len() {
        metrics.picked(
            &mut host,
            topology.member_handle(MemberIndex(index)).unwrap(),
        );
        metrics.in_flight(
            &mut host,
            topology.upstream_handle(UpstreamIndex(index)).unwrap(),
            1,
        );
    }
    let picks = host.values("paceline_picks_total;pool=default;upstream=");
    assert_eq!(picks.len(), most as usize + 1);
    assert_eq!(picks[OTHER], 3);
    // No level of one of several would be that of all.
    let gauges = host.values("paceline_in_flight;upstream=");
    assert_eq!(gauges.len(), most as usize);
}

#[test]
fn the_gauges_of_what_is_gone_show_nothing_and_count_again_when_it_is_back() {
    let mut host = Fake::new();
    let old = endpoints(1..3);
    let mut metrics = Metrics::new(&old, "p", &mut host, at(1));
    let gone = old.upstream_handle(UpstreamIndex(0)).unwrap();
    let member = old.member_handle(MemberIndex(0)).unwrap();
    metrics.in_flight(&mut host, gone, 5);
    let mut measured = Measured::default();
    measured[0] = Some([1.0; QUANTILES.len()]);
    metrics.measured(&mut host, member, &measured);
    metrics.set_topology(&endpoints(2..3), &mut host, at(2));
    assert_eq!(host.values("paceline_in_flight;"), counts([]));
    assert_eq!(host.values("paceline_latency_quantile"), counts([]));
    // A request that it still had is counted under its name.
    metrics.picked(&mut host, member);
    metrics.set_topology(&old, &mut host, at(3));
    metrics.picked(&mut host, member);
    metrics.in_flight(&mut host, gone, 2);
    let name = "10.0.0.1:1";
    let picks = host.values("paceline_picks_total;pool=default;upstream=");
    assert_eq!(picks, counts([(name, 2)]));
    let gauge = format!("paceline_in_flight;upstream={name};plugin=p");
    assert_eq!(host.value(&gauge), 2);
}
