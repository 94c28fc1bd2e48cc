//! The state of a gateway in Istio, at a port of its own.

use std::fs;
use std::net::TcpListener;

use lab::gateway::filter_module;
use serde_json::{Value, json};

use crate::documents::directory;
use crate::envoy::Envoy;
use crate::istio::{Role, assemble};
use crate::server::{Client, load};
use crate::traffic::{Fleet, OUTSIDE, manifests};

/// What the comment of `status.yaml` says to add to the plugin's configuration.
fn told() -> Value {
    let text = fs::read_to_string(directory().join("status.yaml")).unwrap();
    let comment = text.lines().map_while(|line| line.strip_prefix('#'));
    let from_key = comment.skip_while(|line| line.trim() != "pluginConfig:");
    let config = from_key.skip(1).collect::<Vec<_>>().join("\n");
    serde_saphyr::from_str(&config).unwrap()
}

/// A free port, because the filter must know its number: below those that the system gives
/// to whoever asks for any, so that nothing else of these tests takes it.
fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 8_000) as u16;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..30_000).find(is_free).unwrap()
}

fn get(url: &str) -> (u16, Value) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build();
    let mut answer = ureq::Agent::from(config).get(url).call().unwrap();
    let body = answer.body_mut().read_to_string().unwrap();
    (
        answer.status().as_u16(),
        serde_json::from_str(&body).unwrap(),
    )
}

#[test]
fn the_gateway_tells_its_state_at_a_port_of_its_own() {
    let fleet = Fleet::start();
    let mut documents = manifests(&["wasmplugin-gateway.yaml", "status.yaml"]);
    let said = told();
    let port = free_port();
    for document in &mut documents {
        let kind = document.kind().to_owned();
        let spec = &mut document.value["spec"];
        if kind == "Gateway" {
            let number = &mut spec["servers"][0]["port"]["number"];
            assert_eq!(*number, said["status"]["port"], "one port in both");
            *number = port.into();
        }
        if kind == "WasmPlugin" {
            let status = &mut spec["pluginConfig"]["status"];
            *status = said["status"].clone();
            status["port"] = port.into();
        }
    }
    let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
    let assembled = assemble(Role::Gateway, &documents, &fleet.pods(), &module);
    let envoy = Envoy::start(&assembled);
    let answers = load(envoy.address, OUTSIDE, 4, 25, &[]);
    assert!(answers.keys().all(|it| it.status == 200), "{answers:?}");

    let path = said["status"]["path"].as_str().unwrap();
    let (status, state) = get(&format!("http://127.0.0.1:{port}{path}"));
    assert_eq!((status, &state["version"]), (200, &json!(1)));
    let pool = &state["pools"][0];
    assert_eq!(pool["name"], "llama");
    let upstreams = pool["upstreams"].as_array().unwrap();
    assert_eq!(upstreams.len(), 2);
    for (upstream, name) in upstreams.iter().zip(["h100", "l4"]) {
        assert_eq!(upstream["name"], name);
        assert!(upstream["pace"]["measured"].as_f64() > Some(0.0), "{state}");
    }
    assert_eq!(state["workers"].as_array().unwrap().len(), 1);

    // What else comes there costs and counts nothing; clients cannot reach the state.
    let (status, answer) = get(&format!("http://127.0.0.1:{port}/v1/models"));
    assert_eq!(status, 404);
    assert!(
        answer["error"]["message"].as_str().unwrap().contains(path),
        "{answer}"
    );
    let client = Client::new(envoy.address, OUTSIDE);
    assert_eq!(client.at(path).status, 200);
    assert!(!client.at(path).served_by.is_empty(), "a pod has answered");
    assert_eq!(envoy.stat(&["paceline_picks_total"]), 102);
    assert_eq!(envoy.stat(&["paceline_pass_through_total"]), 0);
}
