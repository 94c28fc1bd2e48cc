//! `paceline envoy` in one file.

use std::path::Path;

use crate::support::{Envoy, Servers, agent, free_port, get, module, succeed};

/// An Envoy on what the command writes.
pub(crate) fn envoy(directory: &Path, arguments: &[&str]) -> Envoy {
    envoy_with_status("127.0.0.1:0", directory, arguments)
}

/// The same that tells its state there.
fn envoy_with_status(status: &str, directory: &Path, arguments: &[&str]) -> Envoy {
    let file = directory.join("envoy.yaml");
    let module = module();
    let any = "127.0.0.1:0";
    let mut all = vec!["envoy", "--listen", any, "--admin", any, "--status", status];
    all.extend([
        "--filter",
        module.to_str().unwrap(),
        "--out",
        file.to_str().unwrap(),
    ]);
    all.extend(arguments);
    succeed(&all);
    Envoy::start(&file)
}

/// Asks for a completion; gives the status, and the upstream that served it.
fn complete(url: &str, model: Option<&str>, header: Option<&str>) -> (u16, String) {
    let mut body = serde_json::json!({ "prompt": "Hello", "max_tokens": 1 });
    if let Some(model) = model {
        body["model"] = model.into();
    }
    let mut request = agent()
        .post(format!("{url}/v1/completions"))
        .header("content-type", "application/json");
    if let Some(header) = header {
        request = request.header("x-model", header);
    }
    let answer = request.send(body.to_string()).unwrap();
    let decision = answer.headers().get("x-paceline-decision");
    let decision = decision.map_or("", |it| it.to_str().unwrap());
    let upstream = decision.strip_prefix("upstream=").unwrap_or_default();
    let end = upstream.find(';').unwrap_or(upstream.len());
    (answer.status().as_u16(), upstream[..end].to_owned())
}

fn explained(directory: &Path) -> String {
    let file = directory.join("config.json");
    std::fs::write(&file, r#"{ "explain": true, "policy": "round_robin" }"#).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn models_in_bodies_get_servers_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let servers = Servers::start(&[("a", "llama"), ("b", "llama"), ("c", "meta/qwen 2")]);
    let envoy = envoy(
        directory.path(),
        &[
            "--model",
            &format!("llama={},{}", servers.named("a"), servers.named("b")),
            "--model",
            &format!("meta/qwen 2={}", servers.named("c")),
            "--config",
            &explained(directory.path()),
        ],
    );
    let url = envoy.url();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (status, upstream) = complete(&url, Some("llama"), None);
        assert_eq!(status, 200);
        seen.push(upstream);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b"]);
    let own = complete(&url, Some("meta/qwen 2"), None);
    assert_eq!(own, (200, "c".to_owned()));
    // No server has it.
    assert_eq!(complete(&url, Some("mistral"), None).0, 404);
    assert_eq!(complete(&url, None, None).0, 404);
}

#[test]
fn one_cluster_of_addresses_is_discovered() {
    let directory = tempfile::tempdir().unwrap();
    let servers = Servers::start(&[("a", "m")]);
    let port = servers.address("a").port();
    let place = format!("dns:localhost:{port}");
    let config = explained(directory.path());
    let envoy = envoy(
        directory.path(),
        &["--endpoints", &place, "--config", &config],
    );
    let url = envoy.url();
    crate::support::eventually("the address as an upstream", || {
        let (status, upstream) = complete(&url, Some("m"), None);
        assert_eq!(status, 200);
        (upstream == format!("127.0.0.1:{port}")).then_some(())
    });
}

#[test]
fn pools_of_a_configuration_get_fallback_routes() {
    let directory = tempfile::tempdir().unwrap();
    let servers = Servers::start(&[("a", "m"), ("b", "m")]);
    let file = directory.path().join("config.json");
    // No pool of either can take a request: Envoy's own routes do.
    let config = r#"{ "explain": true, "pools": [
        { "name": "chat", "match": { "path_prefix": "/v1/", "headers": { "x-model": { "prefix": "one" } } },
          "upstreams": [ { "cluster": "a", "weight": 0 } ] },
        { "name": "rest", "match": { "path_prefix": "/v1/", "host": "127.0.0.1" },
          "upstreams": [ { "cluster": "b", "weight": 0 } ] } ] }"#;
    std::fs::write(&file, config).unwrap();
    let given = format!("{},{}", servers.named("a"), servers.named("b"));
    let config = file.to_str().unwrap();
    let envoy = envoy(directory.path(), &["--server", &given, "--config", config]);
    let url = envoy.url();
    for (header, served) in [(Some("one 1"), "a"), (None, "b"), (Some("two"), "b")] {
        let before = servers.answered(served);
        assert_eq!(complete(&url, Some("m"), header), (200, String::new()));
        assert_eq!(servers.answered(served), before + 1, "{header:?}");
    }
    let answer = agent().get(format!("{url}/other")).call().unwrap();
    assert_eq!(answer.status().as_u16(), 404);
}

#[test]
fn other_paths_at_the_status_port_are_not_found_and_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let servers = Servers::start(&[("a", "m"), ("b", "m")]);
    let given = format!("{},{}", servers.named("a"), servers.named("b"));
    let status = format!("127.0.0.1:{}", free_port());
    let envoy = envoy_with_status(&status, directory.path(), &["--server", &given]);
    for path in ["", "favicon.ico", "v1/models", "paceline/"] {
        let (code, body) = get(&format!("http://{status}/{path}")).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &body["error"]["reason"]), (404, &"not_found".into()));
        assert_eq!(body["error"]["message"], "the status is at /paceline");
    }
    let answer = agent()
        .post(format!("http://{status}/v1/completions"))
        .send(r#"{ "model": "m" }"#);
    assert_eq!(answer.unwrap().status().as_u16(), 404);

    let (code, state) = get(&format!("http://{status}/paceline")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!((code, &state["version"]), (200, &1.into()));
    assert_eq!(state["workers"], serde_json::json!([]), "none has a lane");
    let (_, stats) = get(&format!("http://{}/stats?filter=paceline", envoy.admin)).unwrap();
    for counter in ["paceline_picks_total", "paceline_pass_through_total"] {
        let counted = stats.lines().filter(|line| line.contains(counter));
        let sums: u64 = counted
            .filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok())
            .sum();
        assert_eq!(sums, 0, "{stats}");
    }
    // Clients ask for what they like.
    let (code, _) = get(&format!("{}/v1/models", envoy.url())).unwrap();
    assert_eq!(code, 200);
}
