use std::collections::BTreeMap;

use super::clusters::{AGGREGATED, SERVERS};
use super::*;
use crate::gateway::topology::{ENDPOINTS_CLUSTER, ModelServers};

fn topology(balancing: Balancing) -> Topology {
    let address = |port| ([127, 0, 0, 1], port).into();
    Topology::new(
        [
            ("one", address(1)),
            ("two", address(2)),
            ("three", address(3)),
        ],
        balancing,
    )
}

fn filter() -> Balancing {
    Balancing::Filter {
        module: "/built/filter.wasm".into(),
        config: "{}".to_owned(),
    }
}

fn sockets() -> Sockets {
    Sockets {
        listener: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
    }
}

fn fill(topology: &Topology) -> Result<Rendered, GatewayError> {
    Bootstrap::shipped(topology)?.render(topology, sockets())
}

fn render(topology: &Topology) -> Value {
    let rendered = fill(topology).unwrap();
    serde_json::from_str(&rendered.to_json(Path::new("/run")).unwrap()).unwrap()
}

fn names(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).unwrap().as_array().unwrap();
    list.iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_model_has_a_route_and_servers_of_its_own() {
    for balancing in [filter(), Balancing::LeastRequestFullScan] {
        let model = |model: &str, upstreams: &[&str]| ModelServers {
            model: model.to_owned(),
            upstreams: upstreams.iter().map(|&name| name.to_owned()).collect(),
        };
        let by_header = balancing.is_by_header();
        let value = render(&Topology {
            models: vec![model("chat", &["one", "three"]), model("images", &["two"])],
            ..topology(balancing)
        });
        let routes = names(&value, ROUTES);
        let expected = ["picked", "images", "chat", "fallback"];
        assert_eq!(routes, expected[usize::from(!by_header)..]);
        let clusters = value.pointer(CLUSTERS).unwrap().as_array().unwrap();
        let named = |name: &str| clusters.iter().find(|it| it["name"] == name).unwrap();
        let servers = |name| named(name).pointer(SERVERS).unwrap().as_array().unwrap();
        assert_eq!((servers("chat").len(), servers("images").len()), (2, 1));
        let policy = |name| named(name).get("load_balancing_policy");
        assert_eq!(policy("chat"), policy("all-gpus"));
        if by_header {
            let ring = named("three").pointer(AGGREGATED).unwrap();
            assert_eq!(*ring, json!(["three-servers", "one-servers"]));
            let ring = named("two").pointer(AGGREGATED).unwrap();
            assert_eq!(*ring, json!(["two-servers"]));
        }
    }
}

#[test]
fn each_upstream_has_the_next_two_for_its_retries() {
    let value = render(&topology(filter()));
    let names = names(&value, CLUSTERS);
    let upstreams = ["one", "two", "three"].map(|name| [name.into(), format!("{name}-servers")]);
    assert_eq!(names[..6], upstreams.concat());
    assert_eq!(names[6..], ["all-gpus"]);
    let at = |cluster: usize, rest: &str| {
        let pointer = format!("{CLUSTERS}/{cluster}{rest}");
        value.pointer(&pointer).unwrap().clone()
    };
    let servers = |cluster| at(cluster, SERVERS).as_array().unwrap().len();
    let metadata = format!("{SERVERS}/0/metadata");
    assert_eq!(at(3, &metadata), super::clusters::named("two"));
    assert_eq!(
        at(2, AGGREGATED),
        json!(["two-servers", "three-servers", "one-servers"])
    );
    assert_eq!(
        [servers(1), servers(3), servers(5), servers(6)],
        [1, 1, 1, 3]
    );
}

#[test]
fn the_shipped_servers_name_the_upstreams_that_they_belong_to() {
    let shipped: Value = serde_saphyr::from_str(SHIPPED).unwrap();
    let clusters = shipped.pointer(CLUSTERS).unwrap().as_array().unwrap();
    // Each server belongs to one upstream, in its own cluster and in that of the fallback.
    let mut upstreams = BTreeMap::new();
    for cluster in clusters {
        let name = cluster["name"].as_str().unwrap();
        let servers = cluster.pointer(SERVERS).map(|it| it.as_array().unwrap());
        for server in servers.into_iter().flatten() {
            let address = server["endpoint"].to_string();
            let upstream = match name.strip_suffix("-servers") {
                Some(upstream) => *upstreams.entry(address).or_insert(upstream),
                None => upstreams[&address],
            };
            let named = super::clusters::named(upstream);
            assert_eq!(server.get("metadata"), Some(&named), "{name}");
        }
    }
    assert!(!upstreams.is_empty());
}

#[test]
fn the_filter_stays_where_the_file_has_it() {
    let value = render(&topology(filter()));
    assert_eq!(
        names(&value, HTTP_FILTERS),
        ["paceline", "envoy.filters.http.router"]
    );
    assert_eq!(names(&value, ROUTES), ["picked", "fallback"]);
    let module = value
        .pointer(&format!("{HTTP_FILTERS}/0{FILTER_MODULE}"))
        .unwrap();
    assert_eq!(module, "/built/filter.wasm");
}

#[test]
fn envoys_own_balancing_is_the_fallback_route_alone() {
    let value = render(&topology(Balancing::LeastRequestFullScan));
    assert_eq!(names(&value, HTTP_FILTERS), ["envoy.filters.http.router"]);
    assert_eq!(names(&value, ROUTES), ["fallback"]);
    assert_eq!(names(&value, CLUSTERS), ["all-gpus"]);
    let fallback = value.pointer(&format!("{CLUSTERS}/0")).unwrap();
    assert_eq!(fallback.get("lb_policy"), None);
    assert!(
        fallback["load_balancing_policy"]
            .to_string()
            .contains("FULL_SCAN")
    );
}

#[test]
fn a_client_picks_on_the_clusters_and_routes_of_the_filter() {
    let (picked, filtered) = (
        render(&topology(Balancing::Client)),
        render(&topology(filter())),
    );
    assert_eq!(names(&picked, HTTP_FILTERS), ["envoy.filters.http.router"]);
    for place in [CLUSTERS, VIRTUAL_HOST] {
        assert_eq!(picked.pointer(place), filtered.pointer(place));
    }
}

#[test]
fn a_reloadable_listener_moves_to_its_own_file() {
    let mut topology = topology(filter());
    topology.reloadable = true;
    let rendered = fill(&topology).unwrap();
    let listeners: Value = serde_json::from_str(&rendered.listeners.clone().unwrap()).unwrap();
    assert_eq!(names(&listeners, "/resources"), ["ingress"]);
    let text = rendered.to_json(Path::new("/run")).unwrap();
    assert!(text.contains("/run/listeners.json"), "{text}");
    assert!(!text.contains("\"ingress\""), "{text}");
}

#[test]
fn endpoints_are_read_from_their_own_file() {
    let mut topology = topology(filter());
    topology.endpoints = true;
    let value = render(&topology);
    assert_eq!(names(&value, CLUSTERS), [ENDPOINTS_CLUSTER]);
    assert_eq!(
        value.pointer(ENDPOINTS_SOURCE).unwrap()["path"],
        "/run/endpoints.json"
    );
    let file = fill(&topology).unwrap().endpoints.unwrap();
    assert_eq!(file.matches("port_value").count(), 3, "{file}");
}

#[test]
fn limits_of_a_request_apply_to_both_routes() {
    let mut topology = topology(filter());
    topology.request_timeout = Some(Duration::from_millis(1500));
    let value = render(&topology);
    for route in value.pointer(ROUTES).unwrap().as_array().unwrap() {
        assert_eq!(route["route"]["timeout"], "1.500000000s");
    }
}

#[test]
fn whoever_balances_the_retries_are_the_shipped_ones() {
    let policy = |balancing, retries| {
        let mut topology = topology(balancing);
        topology.retries = retries;
        let host = render(&topology).pointer(VIRTUAL_HOST).unwrap().clone();
        host.get("retry_policy").cloned()
    };
    let shipped = policy(filter(), true).unwrap();
    assert_eq!(policy(Balancing::RoundRobin, true), Some(shipped));
    assert_eq!(policy(filter(), false), None);
}

#[test]
fn a_gateway_without_servers_is_refused() {
    let empty = Topology::new(Vec::<(String, _)>::new(), filter());
    let error = fill(&empty).unwrap_err();
    assert!(matches!(error, GatewayError::NoUpstreams));
}

#[test]
fn amendments_add_replace_and_remove() {
    let mut topology = topology(filter());
    let stat_prefix = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                       /stat_prefix";
    let first = json!({ "name": "first" });
    topology.amendments = vec![
        (format!("{HTTP_FILTERS}/0"), first.clone()),
        (format!("{HTTP_FILTERS}/-"), json!({ "name": "last" })),
        (format!("{HTTP_FILTERS}/1"), Value::Null),
        (stat_prefix.to_owned(), json!("other")),
        (format!("{VIRTUAL_HOST}/retry_policy"), Value::Null),
    ];
    let value = render(&topology);
    let filters = ["first", "envoy.filters.http.router", "last"];
    assert_eq!(names(&value, HTTP_FILTERS), filters);
    assert_eq!(value.pointer(stat_prefix), Some(&json!("other")));
    assert_eq!(value.pointer(&format!("{VIRTUAL_HOST}/retry_policy")), None);
    for nowhere in ["", "/none", "/none/at/all", "/admin/address/x/-"] {
        topology.amendments = vec![(nowhere.to_owned(), Value::Null)];
        assert!(fill(&topology).is_err(), "{nowhere}");
    }
    for outside in ["9", "x", ""] {
        topology.amendments = vec![(format!("{HTTP_FILTERS}/{outside}"), first.clone())];
        assert!(fill(&topology).is_err(), "{outside}");
    }
}

#[test]
fn clients_choose_neither_cluster_nor_endpoint() {
    for endpoints in [true, false] {
        let mut topology = topology(filter());
        topology.endpoints = endpoints;
        let value = render(&topology);
        let mutations = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                         /early_header_mutation_extensions/0/typed_config/mutations";
        let removed = json!([
            { "remove": "x-upstream-cluster" },
            { "remove": "x-gateway-destination-endpoint" },
        ]);
        assert_eq!(value.pointer(mutations), Some(&removed));
    }
}
