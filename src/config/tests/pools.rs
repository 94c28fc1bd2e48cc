//! Pools: what each consists of, and which of them can be reached.

use super::{parse, refused};
use crate::config::{Admission, Endpoint, Endpoints, MaxInFlight};

#[test]
fn the_shorthand_does_not_mix_with_pools() {
    let text = r#"{
        "upstreams": [{"cluster": "a"}],
        "policy": "random",
        "pools": [{"name": "a", "upstreams": [{"cluster": "a"}]}]
    }"#;
    assert_eq!(
        refused(text),
        "2 problems:\n  \
         upstreams: cannot stand beside pools; move it into a pool\n  \
         policy: cannot stand beside pools; move it into a pool"
    );
}

#[test]
fn pools_and_upstreams_stand_once() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": "a"}, "upstreams": [{"cluster": "x"}, {"cluster": "x"}]},
        {"name": "b", "match": {"host": "b"}, "upstreams": [{"cluster": "x"}]},
        {"name": "a", "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "2 problems:\n  \
         pools[0].upstreams[1].cluster: \"x\" is already upstream 0 of this pool; \
         name a cluster once, its weight gives its share\n  \
         pools[2].name: \"a\" is already the name of pools[0]; give every pool its own"
    );
}

#[test]
fn a_pool_may_be_the_endpoints_of_one_cluster() {
    let config = parse(
        r#"{"pools": [
            {"name": "a", "match": {"host": "a"}, "cluster": "gpus"},
            {"name": "b", "cluster": "gpus", "endpoints": [
                "10.0.0.1:8000", {"address": "[FD00::0:1]:8000", "weight": 3}
            ]}
        ], "endpoint_header": "X-Endpoint"}"#,
    )
    .unwrap();
    assert_eq!(config.endpoint_header, "x-endpoint");
    let endpoint = |address: &str, weight| Endpoint {
        address: address.to_owned(),
        weight,
        max_in_flight: MaxInFlight::Unlimited,
    };
    let listed = vec![endpoint("10.0.0.1:8000", 1), endpoint("[fd00::1]:8000", 3)];
    for (pool, fixed) in config.pools.iter().zip([None, Some(listed)]) {
        assert_eq!(pool.upstreams, []);
        let endpoints = Endpoints {
            cluster: "gpus".to_owned(),
            fixed,
            each: MaxInFlight::Unlimited,
        };
        assert_eq!(pool.endpoints, Some(endpoints));
    }
}

#[test]
fn upstreams_and_a_cluster_do_not_mix() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": "a"}, "cluster": "x", "upstreams": [{"cluster": "y"}]},
        {"name": "b", "match": {"host": "b"}, "endpoints": ["10.0.0.1:80"]},
        {"name": "c", "cluster": "x", "endpoints": ["gpu:80", "10.0.0.1:80", "10.0.0.1:80"]}
    ], "cluster": "x", "endpoint_header": "x-upstream-cluster"}"#;
    assert_eq!(
        refused(text),
        "6 problems:\n  \
         endpoint_header: is the route_header too; give each its own\n  \
         cluster: cannot stand beside pools; move it into a pool\n  \
         pools[0].upstreams: cannot stand beside cluster; \
         name several clusters here, or one and its endpoints there\n  \
         pools[1].endpoints: needs cluster beside it, the cluster whose endpoints these are\n  \
         pools[2].endpoints[0]: \"gpu:80\" is not allowed; \
         give an IP address and a port, such as \"10.0.0.1:8000\" or \"[fd00::1]:8000\"\n  \
         pools[2].endpoints[2]: \"10.0.0.1:80\" is already endpoint 1 of this pool; \
         name an address once, its weight gives its share"
    );
}

#[test]
fn a_pool_behind_a_catch_all_is_refused() {
    let text = r#"{"pools": [
        {"name": "all", "match": {}, "upstreams": [{"cluster": "x"}]},
        {"name": "chat", "match": {"host": "a"}, "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[1]: pool \"chat\" can never be reached: \
         pools[0], \"all\", matches every request; put the narrower match first"
    );
}

#[test]
fn a_pool_behind_a_wider_one_is_refused() {
    let text = r#"{"pools": [
        {"name": "v1", "match": {"path_prefix": "/v1"}, "upstreams": [{"cluster": "x"}]},
        {"name": "chat", "match": {"path_prefix": "/v1/chat"}, "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[1]: pool \"chat\" can never be reached: \
         pools[0], \"v1\", matches every request that this pool matches; \
         put the narrower match first"
    );
}

#[test]
fn what_is_reached_is_judged_only_when_all_matches_are_read() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": 1}, "upstreams": [{"cluster": "x"}]},
        {"name": "b", "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[0].match.host: 1 is not allowed; \
         give a host name or \"*.\" and a domain, without a port"
    );
}

#[test]
fn limits_hold_only_where_every_request_is_balanced() {
    let config = |mode: &str| {
        let json = format!(
            r#"{{"mode": {mode}, "max_in_flight": 9, "admission": {{"queue": {{"max_wait": "5s"}}}},
                "devices": [{{"name": "gpu", "memory": 100}}],
                "upstreams": [
                    {{"cluster": "a", "max_in_flight": 1}},
                    {{"cluster": "b", "device": "gpu", "memory": {{"base": 1}}}}
                ]}}"#
        );
        parse(&json).unwrap().pools.remove(0)
    };
    assert!(config(r#""balance""#).has_limits());
    for mode in [r#""observe""#, r#"{"balance_percent": 50}"#] {
        let pool = config(mode);
        assert!(!pool.has_limits(), "{mode}");
        assert_eq!(pool.admission, Admission::default());
    }
}
