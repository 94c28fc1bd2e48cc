use super::clusters::{AGGREGATED, SERVERS};
use super::*;
use crate::gateway::topology::ENDPOINTS_CLUSTER;

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
