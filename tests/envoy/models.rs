//! The shipped `envoy/models.yaml`: every request reaches a server of its model,
//! whatever becomes of the filter.

use std::path::Path;

use serde_json::Value;

use crate::support::client::{Connection, request};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::written::{Written, shipped};

const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                       /http_filters";
const SOCKETS: [&str; 2] = [
    "/static_resources/listeners/0/address/socket_address",
    "/admin/address/socket_address",
];

/// The servers in the order of their ports in the file.
const SERVERS: [&str; 4] = ["llama-a", "llama-b", "qwen-a", "qwen-b"];

async fn servers() -> Vec<Upstream> {
    let mut servers = Vec::new();
    for name in SERVERS {
        servers.push(Upstream::start(name, Behaviour::OK).await);
    }
    servers
}

/// Envoy on the file, with its HTTP filters as `change` leaves them.
async fn start(servers: &[Upstream], change: impl FnOnce(&mut Vec<Value>)) -> Written {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let text = shipped("models.yaml", &addresses);
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    for socket in SOCKETS {
        let any = serde_json::json!({ "address": "127.0.0.1", "port_value": 0 });
        *config.pointer_mut(socket).unwrap() = any;
    }
    change(config.pointer_mut(FILTERS).unwrap().as_array_mut().unwrap());
    Written::start(&[("envoy.yaml", config.to_string())]).await
}

async fn expect_each_model_at_its_servers(envoy: &Written) {
    let mut connection = Connection::open(envoy.listener().await).await;
    for round in 0..20 {
        for (model, other) in [("llama", "qwen-a"), ("qwen", "llama-a")] {
            // A client that would rather choose a server of the other model.
            let headers = [("x-model", model), ("x-upstream-cluster", other)];
            let headers = &headers[..1 + round % 2];
            let answer = connection.request(request("GET", "/v1", headers)).await;
            assert_eq!(answer.status, 200);
            let by = answer.served_by();
            assert!(by.starts_with(model), "{model} was served by {by}");
        }
    }
    let unknown = [("x-model", "mistral"), ("x-upstream-cluster", "qwen-a")];
    for headers in [&unknown[..], &[]] {
        let answer = connection.request(request("GET", "/v1", headers)).await;
        assert_eq!((answer.status.as_u16(), answer.served_by()), (404, ""));
    }
}

#[tokio::test]
async fn models_stay_apart_with_the_filter() {
    let servers = servers().await;
    let envoy = start(&servers, |_| {}).await;
    expect_each_model_at_its_servers(&envoy).await;
    let picks = envoy.stats().await.total("paceline_picks_total");
    assert_eq!(picks, 40);
}

#[tokio::test]
async fn models_stay_apart_without_the_filter() {
    let servers = servers().await;
    let remove = |filters: &mut Vec<Value>| drop(filters.remove(0));
    let envoy = start(&servers, remove).await;
    expect_each_model_at_its_servers(&envoy).await;
}

#[tokio::test]
async fn a_dead_server_is_stood_in_for_by_one_of_its_model() {
    let mut servers = servers().await;
    let envoy = start(&servers, |_| {}).await;
    // A connection to it is refused from now on.
    drop(servers.remove(2));
    let mut connection = Connection::open(envoy.listener().await).await;
    for _ in 0..10 {
        let asked = request("GET", "/v1", &[("x-model", "qwen")]);
        let answer = connection.request(asked).await;
        assert_eq!(
            (answer.status.as_u16(), answer.served_by()),
            (200, "qwen-b")
        );
    }
}

/// The page's filters for clients that name the model in the body.
#[tokio::test]
async fn models_in_bodies_are_told_apart_with_and_without_the_filter() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/README.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page
        .split("```yaml\n")
        .find(|block| block.contains("json_to_metadata"))
        .and_then(|block| block.split("```").next())
        .unwrap();
    let filters: Vec<Value> = serde_saphyr::from_str(block).unwrap();
    let servers = servers().await;
    for keep in [true, false] {
        let envoy = start(&servers, |all| {
            if !keep {
                all.remove(0);
            }
            all.splice(0..0, filters.clone());
        })
        .await;
        let mut connection = Connection::open(envoy.listener().await).await;
        for model in ["llama", "qwen"].repeat(5) {
            let body = format!(r#"{{"model": "{model}", "prompt": "a"}}"#);
            let headers = [("content-type", "application/json"), ("x-model", "mistral")];
            let answer = connection.upload(&headers, body.as_bytes(), true).await;
            assert_eq!(answer.status, 200, "{}", envoy.log());
            assert!(answer.served_by().starts_with(model), "{model}");
        }
    }
}
