//! Requests through a real Envoy that is configured as Istio would from the
//! manifests.

use std::net::SocketAddr;
use std::time::Duration;

use lab::gateway::filter_module;

use crate::documents::{Document, read_all};
use crate::envoy::{Envoy, validate};
use crate::istio::{Assembled, Pods, Role, assemble, cluster_name};
use crate::server::{Answer, Client, Server, load};

pub(crate) const OUTSIDE: &str = "llama.example.com";
pub(crate) const INSIDE: &str = "llama.models.svc.cluster.local";

/// The files of the default way, but for the plugin.
pub(crate) const DEFAULT: [&str; 3] =
    ["models.yaml", "destinationrule.yaml", "virtualservice.yaml"];

/// The pods of `models.yaml`. A server is named for its hardware.
pub(crate) struct Fleet {
    servers: Vec<(&'static str, Server)>,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let takes = |hardware| Duration::from_millis(if hardware == "h100" { 5 } else { 15 });
        let all = ["h100", "h100", "l4", "l4", "l4"];
        let servers = all.map(|hardware| (hardware, Server::start(hardware, takes(hardware))));
        Self {
            servers: servers.into(),
        }
    }

    pub(crate) fn pods(&self) -> Pods {
        let mut pods = Pods::new();
        for (hardware, server) in &self.servers {
            pods.entry(format!("llama-{hardware}"))
                .or_default()
                .push(server.address);
        }
        pods
    }

    fn stop(&self, hardware: &str) {
        for (name, server) in &self.servers {
            if *name == hardware {
                server.stop();
            }
        }
    }

    pub(crate) fn assemble(&self, role: Role, plugin: &[&str]) -> Assembled {
        let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
        assemble(role, &manifests(plugin), &self.pods(), &module)
    }
}

/// The manifests of the default way and these.
pub(crate) fn manifests(plugin: &[&str]) -> Vec<Document> {
    let mut files = DEFAULT.to_vec();
    if plugin.contains(&"virtualservice-cluster-header.yaml") {
        files.retain(|file| *file != "virtualservice.yaml");
    }
    files.extend(plugin);
    read_all(&files)
}

fn served(hardware: &str) -> Answer {
    Answer {
        status: 200,
        served_by: hardware.to_owned(),
    }
}

/// Every request was answered by the subset that Paceline counts it for, and
/// each subset had some: four clients at a time are too many for one.
fn expect_each_subset_serves_its_picks(envoy: &Envoy, host: &'static str, labels: [&str; 2]) {
    let answers = load(envoy.address, host, 4, 25, &[]);
    assert_eq!(answers.values().sum::<usize>(), 100);
    for (hardware, label) in ["h100", "l4"].into_iter().zip(labels) {
        let count = answers.get(&served(hardware)).copied().unwrap_or(0);
        assert!(count > 0, "{answers:?}");
        let label = format!(";upstream={label}");
        assert_eq!(
            envoy.stat(&["paceline_picks_total", &label]),
            count as u64,
            "{label}: {answers:?}"
        );
        envoy.expect_stat(
            &["paceline_outcomes_total", &label, "outcome=success"],
            |ended| ended == count as u64,
        );
    }
    envoy.expect_stat(&["paceline_in_flight"], |in_flight| in_flight == 0);
    assert_eq!(envoy.stat(&["paceline_pass_through_total"]), 0);
}

#[test]
fn a_gateway_routes_what_paceline_picks() {
    for plugin in ["wasmplugin-gateway.yaml", "trafficextension-gateway.yaml"] {
        let fleet = Fleet::start();
        let envoy = Envoy::start(&fleet.assemble(Role::Gateway, &[plugin]));
        expect_each_subset_serves_its_picks(&envoy, OUTSIDE, ["h100", "l4"]);
    }
}

#[test]
fn a_sidecar_routes_what_paceline_picks() {
    let fleet = Fleet::start();
    let envoy = Envoy::start(&fleet.assemble(Role::Sidecar, &["wasmplugin-sidecar.yaml"]));
    expect_each_subset_serves_its_picks(&envoy, INSIDE, ["h100", "l4"]);
}

#[test]
fn a_waypoint_routes_what_paceline_picks() {
    let fleet = Fleet::start();
    let envoy = Envoy::start(&fleet.assemble(Role::Waypoint, &["wasmplugin-waypoint.yaml"]));
    expect_each_subset_serves_its_picks(&envoy, INSIDE, ["h100", "l4"]);
}

const CLUSTER_HEADER: [&str; 2] = [
    "virtualservice-cluster-header.yaml",
    "envoyfilter-cluster-header.yaml",
];

#[test]
fn one_route_serves_all_upstreams_by_their_clusters() {
    let fleet = Fleet::start();
    let envoy = Envoy::start(&fleet.assemble(Role::Gateway, &CLUSTER_HEADER));
    let names = ["h100", "l4"].map(|subset| cluster_name(Role::Gateway, 8000, subset, INSIDE));
    expect_each_subset_serves_its_picks(&envoy, OUTSIDE, [&names[0], &names[1]]);
}

/// The same source of sizes in a WasmPlugin, which Istio gives no body to read.
#[test]
fn bodies_are_read_with_the_envoy_filter_only() {
    let fleet = Fleet::start();
    let sizes_unknown = |assembled: &Assembled| {
        let envoy = Envoy::start(assembled);
        let client = Client::new(envoy.address, OUTSIDE);
        for _ in 0..20 {
            assert_eq!(client.complete().status, 200);
        }
        assert_eq!(envoy.stat(&["paceline_picks_total"]), 20);
        envoy.stat(&["paceline_size_unknown_total"])
    };
    let with = fleet.assemble(Role::Gateway, &CLUSTER_HEADER);
    assert_eq!(sizes_unknown(&with), 0);
    let mut without = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    without.extensions[0]["typed_config"]["config"]["configuration"]["value"] =
        r#"{ "request_size": "openai", "upstreams": [ { "cluster": "h100" }, { "cluster": "l4" } ] }"#
            .into();
    assert!(sizes_unknown(&without) > 0, "they count as the pool's mean");
}

#[test]
fn what_belongs_to_no_pool_takes_the_fallback_route() {
    let fleet = Fleet::start();
    let envoy = Envoy::start(&fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]));
    // A host of the VirtualService that the plugin's pool does not match; the
    // header that the client sends is taken off.
    let answers = load(
        envoy.address,
        INSIDE,
        4,
        25,
        &[("x-upstream-cluster", "l4")],
    );
    assert_eq!(answers.values().sum::<usize>(), 100);
    assert_eq!(answers.keys().map(|answer| answer.status).max(), Some(200));
    assert_eq!(
        envoy.stat(&["paceline_pass_through_total", "reason=no_pool"]),
        100
    );
    assert_eq!(envoy.stat(&["paceline_picks_total"]), 0);
    // Envoy's balancing over five pods: that none of 100 goes to one of the two
    // faster ones has probability below (3/5)^100.
    assert!(answers.contains_key(&served("h100")), "{answers:?}");
}

#[test]
fn clients_cannot_pick_a_subset() {
    const FORGED: [&str; 4] = [
        "l4",
        "outbound|8000|l4|llama.models.svc.cluster.local",
        "nowhere",
        "",
    ];
    let fleet = Fleet::start();
    for plugin in [&["wasmplugin-gateway.yaml"][..], &CLUSTER_HEADER] {
        let envoy = Envoy::start(&fleet.assemble(Role::Gateway, plugin));
        let client = Client::new(envoy.address, OUTSIDE);
        let mut served_by_h100 = 0;
        for forged in FORGED.iter().cycle().take(40) {
            let answer = client.get(&[("x-upstream-cluster", forged)]);
            assert_eq!(answer.status, 200, "{forged:?}");
            served_by_h100 += u64::from(answer.served_by == "h100");
        }
        assert_eq!(envoy.stat(&["paceline_picks_total"]), 40);
        let picked = envoy.stat(&["paceline_picks_total", "h100"]);
        assert_eq!(picked, served_by_h100, "what was picked has served");
    }
}

/// Nor where the plugin is not, or not any more.
#[test]
fn clients_cannot_pick_a_subset_or_a_pod_without_the_plugin() {
    let fleet = Fleet::start();
    let l4 = cluster_name(Role::Gateway, 8000, "l4", INSIDE);
    let pods = fleet.pods();
    let pod = pods["llama-l4"][0].to_string();
    let ways: [(&[&str], &str, &str); 3] = [
        (
            &["envoyfilter-strip-header.yaml"],
            "x-upstream-cluster",
            "l4",
        ),
        (&CLUSTER_HEADER, "x-upstream-cluster", &l4),
        (
            &["envoyfilter-endpoints.yaml"],
            "x-gateway-destination-endpoint",
            &pod,
        ),
    ];
    for (files, header, forged) in ways {
        let mut assembled = fleet.assemble(Role::Gateway, files);
        assembled.extensions.clear();
        let filters = assembled.connection_manager["http_filters"].as_array_mut();
        filters
            .unwrap()
            .retain(|filter| filter["name"] != "paceline");
        let envoy = Envoy::start(&assembled);
        // Envoy's balancing over five pods: that none of 100 goes to one of the
        // two faster ones has probability below (3/5)^100.
        let answers = load(envoy.address, OUTSIDE, 4, 25, &[(header, forged)]);
        assert!(
            answers.contains_key(&served("h100")),
            "{files:?}: {answers:?}"
        );
    }
}

/// Istio's own retries stay within the subset; with the EnvoyFilter they do not.
#[test]
fn retries_go_elsewhere_with_the_envoy_filter_only() {
    let fleet = Fleet::start();
    let assembled = |plugin: &[&str]| fleet.assemble(Role::Gateway, plugin);
    let without = Envoy::start(&assembled(&["wasmplugin-gateway.yaml"]));
    let with = Envoy::start(&assembled(&[
        "wasmplugin-gateway.yaml",
        "envoyfilter-retries.yaml",
    ]));
    for envoy in [&without, &with] {
        expect_each_subset_serves_its_picks(envoy, OUTSIDE, ["h100", "l4"]);
    }
    fleet.stop("h100");
    let answers = load(without.address, OUTSIDE, 4, 25, &[]);
    assert!(
        answers.keys().any(|answer| answer.status == 503),
        "{answers:?}"
    );
    let answers = load(with.address, OUTSIDE, 4, 25, &[]);
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        [&served("l4")],
        "{answers:?}"
    );
    // What failed is known of the upstream that was picked.
    with.expect_stat(
        &["paceline_outcomes_total", "upstream=h100;outcome=retried"],
        |count| count > 0,
    );
}

/// The pods are found by themselves, each is counted for what it serves, and
/// those that die cost hardly an error, by Istio's own retries.
#[test]
fn pods_are_discovered_and_may_die() {
    let fleet = Fleet::start();
    let plugin = ["wasmplugin-endpoints.yaml", "envoyfilter-endpoints.yaml"];
    let envoy = Envoy::start(&fleet.assemble(Role::Gateway, &plugin));
    let pods: Vec<_> = fleet.pods().into_values().flatten().collect();
    // A pod that is found serves a request that was not its own, and is picked
    // only where it is no slower than the others.
    let served_by = |pod: &SocketAddr| {
        let upstream = format!("upstream={pod}");
        envoy.stat(&["paceline_adoptions_total", &upstream])
            + envoy.stat(&["paceline_picks_total", &upstream])
    };
    let all_are_found = || pods.iter().all(|pod| served_by(pod) > 0);
    let mut answered = 0;
    // A share of the requests goes to a pod of Envoy's choosing, so how many it
    // takes to find all five is chance: 20 rounds miss one with odds below 1e-6.
    for _ in 0..20 {
        let answers = load(envoy.address, OUTSIDE, 4, 25, &[]);
        assert!(
            answers.keys().all(|answer| answer.status == 200),
            "{answers:?}"
        );
        answered += answers.values().sum::<usize>();
        if all_are_found() {
            break;
        }
    }
    assert!(
        all_are_found(),
        "of {answered} requests: {:?}",
        pods.iter().map(served_by).collect::<Vec<_>>()
    );
    envoy.expect_stat(&["paceline_in_flight"], |in_flight| in_flight == 0);

    fleet.stop("h100");
    // A request on a connection whose end Envoy has not seen yet would be lost: Istio
    // does not retry after a reset.
    let gone = &fleet.pods()["llama-h100"];
    envoy.expect_no_connections(gone);
    let answers = load(envoy.address, OUTSIDE, 4, 25, &[]);
    // After five draws Istio's retries take a pod that has failed again, and pods with
    // nothing in flight are drawn first: seldom a request finds the dead ones three times.
    let served = answers.get(&served("l4")).copied().unwrap_or(0);
    assert!(served >= 95, "{answers:?}");
    assert!(
        answers.keys().all(|it| it.served_by != "h100"),
        "{answers:?}"
    );
}

/// Istio hands the file of the ConfigMap to Envoy as `--config-yaml`, which
/// Envoy merges into its bootstrap.
#[test]
fn metrics_have_labels_with_the_bootstrap_override() {
    let fleet = Fleet::start();
    let map = read_all(&["stats-tags.yaml"]).remove(0).value;
    let more = map["data"]["custom_bootstrap.json"].as_str().unwrap();
    let assembled = fleet.assemble(Role::Gateway, &["wasmplugin-gateway.yaml"]);
    let envoy = Envoy::start_with(&assembled, &["--config-yaml", more]);
    expect_each_subset_serves_its_picks(&envoy, OUTSIDE, ["h100", "l4"]);
    let scraped = envoy.prometheus();
    let series: [(&str, &[&str]); 4] = [
        (
            "paceline_picks_total",
            &["pool=\"llama\"", "upstream=\"h100\""],
        ),
        (
            "paceline_outcomes_total",
            &["pool=\"llama\"", "upstream=\"l4\"", "outcome=\"success\""],
        ),
        ("paceline_pass_through_total", &["reason=\"no_pool\""]),
        (
            "paceline_latency_milliseconds_count",
            &["pool=\"llama\"", "upstream=\"h100\""],
        ),
    ];
    for (name, labels) in series {
        let is_it = |line: &str| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with('{') && labels.iter().all(|label| rest.contains(label))
        };
        assert!(scraped.lines().any(is_it), "{name} {labels:?}");
    }
}

#[test]
fn envoy_accepts_every_combination() {
    let fleet = Fleet::start();
    let gateway = "wasmplugin-gateway.yaml";
    let combinations: [(Role, &[&str]); 8] = [
        (
            Role::Gateway,
            &["wasmplugin-endpoints.yaml", "envoyfilter-endpoints.yaml"],
        ),
        (Role::Gateway, &[gateway]),
        (Role::Gateway, &["trafficextension-gateway.yaml"]),
        (Role::Gateway, &[gateway, "envoyfilter-retries.yaml"]),
        (
            Role::Gateway,
            &[
                gateway,
                "envoyfilter-retries.yaml",
                "envoyfilter-strip-header.yaml",
            ],
        ),
        (Role::Gateway, &CLUSTER_HEADER),
        (Role::Sidecar, &["wasmplugin-sidecar.yaml"]),
        (Role::Waypoint, &["wasmplugin-waypoint.yaml"]),
    ];
    for (role, plugin) in combinations {
        validate(&fleet.assemble(role, plugin)).unwrap_or_else(|log| panic!("{plugin:?}: {log}"));
    }
    // It would say so: a field that Envoy does not know, and a key that
    // Paceline does not.
    let mut wrong = fleet.assemble(Role::Gateway, &CLUSTER_HEADER);
    wrong.extensions[0]["typed_config"]["config"]["vm_identity"] = "paceline".into();
    assert!(validate(&wrong).unwrap_err().contains("vm_identity"));
    let mut wrong = fleet.assemble(Role::Gateway, &[gateway]);
    wrong.extensions[0]["typed_config"]["config"]["configuration"]["value"] =
        "{\"pool\":[]}".into();
    assert!(validate(&wrong).unwrap_err().contains("pool: unknown key"));
}
