//! The shipped `envoy/dynamic.yaml`: servers that are added and removed while
//! requests come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Connection;
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::written::{Written, shipped};
use crate::support::{SOON, eventually, soon};

const FILTER_CONFIG: &str = "/resources/0/filter_chains/0/filters/0/typed_config/http_filters/0\
                             /typed_config/config/configuration/value";
const LDS_DONE: &str = "listener_manager.listener_create_success";
const CDS_DONE: &str = "cluster_manager.cds.update_success";
/// Envoy's workers, each of which takes over a listener for itself.
const WORKERS: u64 = 2;

/// `lds.yaml` for these upstreams.
fn listeners(names: &[&str]) -> String {
    let mut listeners: Value = serde_saphyr::from_str(&shipped("lds.yaml", &[])).unwrap();
    let upstreams: Vec<_> = names
        .iter()
        .map(|name| json!({ "cluster": name }))
        .collect();
    *listeners.pointer_mut(FILTER_CONFIG).unwrap() =
        json!(json!({ "upstreams": upstreams }).to_string());
    // Its ports are named as the shipped text names them.
    *listeners
        .pointer_mut("/resources/0/address/socket_address")
        .unwrap() = json!({ "address": "127.0.0.1", "port_value": 0 });
    listeners.to_string()
}

/// `cds.yaml` with `gpu-c`, too.
fn three_clusters(servers: &[SocketAddr]) -> String {
    let text = shipped("cds.yaml", &servers[..2]);
    let mut clusters: Value = serde_saphyr::from_str(&text).unwrap();
    let all = clusters["resources"].as_array_mut().unwrap();
    let named = |name: &str| all.iter().find(|it| it["name"] == name).unwrap().clone();
    let (mut aggregate, mut single) = (named("gpu-a"), named("gpu-a-servers"));
    aggregate["name"] = json!("gpu-c");
    aggregate["cluster_type"]["typed_config"]["clusters"] =
        json!(["gpu-c-servers", "gpu-a-servers"]);
    single["name"] = json!("gpu-c-servers");
    single["load_assignment"]["cluster_name"] = json!("gpu-c-servers");
    *single
        .pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value")
        .unwrap() = json!(servers[2].port());
    // Otherwise its answers would count as gpu-a's.
    *single
        .pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/metadata/filter_metadata/paceline/upstream")
        .unwrap() = json!("gpu-c");
    all.extend([aggregate, single]);
    clusters.to_string()
}

/// Clients that send one request after the other, each on a connection of its
/// own, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: SocketAddr) -> Self {
        let (stop, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..8)
            .map(|_| {
                let (stop, lost) = (Arc::clone(&stop), Arc::clone(&lost));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = Connection::open(gateway).await.get().await;
                        lost.fetch_add(usize::from(answer.status != 200), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self {
            stop,
            lost,
            clients,
        }
    }

    /// How many requests were not answered with 200.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            soon("a client's end", client).await.unwrap();
        }
        self.lost.load(Ordering::Relaxed)
    }
}

struct Gateway {
    envoy: Written,
    servers: Vec<Upstream>,
    addresses: Vec<SocketAddr>,
}

impl Gateway {
    async fn start() -> Self {
        let mut servers = Vec::new();
        for name in ["a", "b", "c"] {
            servers.push(Upstream::start(name, Behaviour::after(Duration::from_millis(10))).await);
        }
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let envoy = Written::start(&[
            ("dynamic.yaml", shipped("dynamic.yaml", &[])),
            ("lds.yaml", shipped("lds.yaml", &[])),
            ("cds.yaml", shipped("cds.yaml", &addresses[..2])),
        ])
        .await;
        Self {
            envoy,
            servers,
            addresses,
        }
    }

    async fn set_listeners(&self, names: &[&str]) {
        let text = listeners(names);
        self.envoy
            .replace("lds.yaml", &text, LDS_DONE, WORKERS)
            .await;
    }

    async fn set_clusters(&self, text: &str) {
        self.envoy.replace("cds.yaml", text, CDS_DONE, 1).await;
    }

    async fn expect_requests_at_c(&self) {
        let before = self.servers[2].count();
        eventually("requests at the new server", SOON, async || {
            let now = self.servers[2].count();
            (now > before + 5).then_some(()).ok_or(format!("{now}"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_comes_and_goes_without_a_lost_request() {
    let gateway = Gateway::start().await;
    let load = Load::start(gateway.envoy.listener().await);

    gateway
        .set_clusters(&three_clusters(&gateway.addresses))
        .await;
    gateway.set_listeners(&["gpu-a", "gpu-b", "gpu-c"]).await;
    gateway.expect_requests_at_c().await;

    gateway.set_listeners(&["gpu-a", "gpu-b"]).await;
    gateway
        .set_clusters(&shipped("cds.yaml", &gateway.addresses[..2]))
        .await;
    let lost = load.end().await;
    assert_eq!(lost, 0, "{}", gateway.envoy.log());
}

#[tokio::test]
async fn an_envoy_that_starts_with_a_mistake_is_ready_without_the_listener() {
    let mistake = shipped("lds.yaml", &[]).replace("\"cluster\": \"gpu-b\"", "\"cluster\": 7");
    let envoy = Written::start(&[
        ("dynamic.yaml", shipped("dynamic.yaml", &[])),
        ("lds.yaml", mistake),
        ("cds.yaml", shipped("cds.yaml", &[])),
    ])
    .await;
    let said = "paceline: the configuration is refused: upstreams[1].cluster: 7 is not allowed";
    assert!(envoy.log().contains(said), "{}", envoy.log());
    let stats = envoy.stats().await;
    assert_eq!(stats.total("listener_manager.lds.update_rejected"), 1);
    assert_eq!(stats.total("listener_manager.total_listeners_active"), 0);
    // Mended, it serves.
    let mended = listeners(&["gpu-a", "gpu-b"]);
    envoy.replace("lds.yaml", &mended, LDS_DONE, WORKERS).await;
    envoy.listener().await;
}

#[tokio::test]
async fn a_listener_before_its_clusters_costs_few_requests_and_mends_itself() {
    let gateway = Gateway::start().await;
    let load = Load::start(gateway.envoy.listener().await);

    gateway.set_listeners(&["gpu-a", "gpu-b", "gpu-c"]).await;
    eventually("a pick of the missing cluster", SOON, async || {
        let labels = [("upstream", "gpu-c"), ("outcome", "unavailable")];
        let stats = gateway.envoy.stats().await;
        let seen = stats.sum("paceline_outcomes_total", &labels);
        (seen > 0).then_some(()).ok_or(format!("{seen}"))
    })
    .await;
    gateway
        .set_clusters(&three_clusters(&gateway.addresses))
        .await;
    // It is left alone for 10 s.
    gateway.expect_requests_at_c().await;
    let lost = load.end().await;
    // One pick of each worker that does not know yet, and perhaps once more
    // each where the clusters come later than that on a busy machine.
    assert!((1..=4).contains(&lost), "{lost} lost");
}
