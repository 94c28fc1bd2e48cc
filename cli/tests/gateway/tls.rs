//! `https://` servers.

use std::path::Path;

use serde_json::json;

use crate::support::{Envoy, Servers, agent};
use crate::written::envoy;

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/certificate");
    path.join(name).to_str().unwrap().to_owned()
}

/// A server with TLS that answers with the host that it was asked for: an Envoy, too.
fn server(directory: &Path) -> Envoy {
    let listener = json!({
        "name": "tls",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": { "tls_certificates": [{
                        "certificate_chain": { "filename": fixture("certificate.pem") },
                        "private_key": { "filename": fixture("key.pem") },
                    }] },
                },
            },
            "filters": [{
                "name": "http",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "tls",
                    "http_filters": [{
                        "name": "router",
                        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                    }],
                    "route_config": { "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "response_headers_to_add": [{ "header": { "key": "x-asked", "value": "%REQ(:authority)%" } }],
                        "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }],
                    }] },
                },
            }],
        }],
    });
    let admin =
        json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } });
    let bootstrap = json!({ "admin": admin, "static_resources": { "listeners": [listener] } });
    let file = directory.join("server.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    Envoy::start(&file)
}

/// Status, the picked upstream, and the host that a server with TLS was asked for.
fn ask(url: &str, path: &str) -> (u16, String, String) {
    let answer = agent().get(format!("{url}{path}")).call().unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value.map_or(String::new(), |it| it.to_str().unwrap().to_owned())
    };
    let decision = header("x-paceline-decision");
    let upstream = decision.strip_prefix("upstream=").unwrap_or_default();
    let upstream = upstream.split(';').next().unwrap_or_default().to_owned();
    (answer.status().as_u16(), upstream, header("x-asked"))
}

/// A gateway for the server with TLS and one without, that trusts `ca_file`.
fn gateway(directory: &Path, tls: &str, plain: &str, ca_file: &str) -> Envoy {
    let config = directory.join("config.json");
    let text = r#"{ "explain": true, "policy": "round_robin" }"#;
    std::fs::write(&config, text).unwrap();
    let servers = format!("tls={tls},{plain}");
    envoy(
        directory,
        &[
            "--server",
            &servers,
            "--ca-file",
            ca_file,
            "--config",
            config.to_str().unwrap(),
        ],
    )
}

#[test]
fn servers_with_tls_are_verified_and_asked_by_their_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let tls = format!("https://localhost:{port}");
    let plain = Servers::start(&[("plain", "m")]);
    let trusting = gateway(
        directory.path(),
        &tls,
        &plain.named("plain"),
        &fixture("certificate.pem"),
    );
    let url = trusting.url();
    let mut asked = 0;
    for _ in 0..6 {
        let (status, upstream, host) = ask(&url, "/v1/models");
        assert_eq!(status, 200, "{}", trusting.log());
        assert_eq!(
            upstream == "tls",
            !host.is_empty(),
            "each is served by the one that is picked"
        );
        if upstream == "tls" {
            assert_eq!(host, "localhost");
            asked += 1;
        }
    }
    assert!(asked > 0);
    drop(trusting);

    // A name that the certificate has not, and a signer that it has not.
    let other_name = tls.replace("localhost", "localhost.");
    for (tls, ca_file) in [(other_name, "certificate.pem"), (tls, "other.pem")] {
        let wary = gateway(
            directory.path(),
            &tls,
            &plain.named("plain"),
            &fixture(ca_file),
        );
        for _ in 0..6 {
            // The retry goes to the other server.
            let (status, _, host) = ask(&wary.url(), "/v1/models");
            assert_eq!(
                (status, host.as_str()),
                (200, ""),
                "{tls}, {ca_file}: {}",
                wary.log()
            );
        }
    }
}

#[test]
fn a_fallback_route_of_both_kinds_speaks_to_each_in_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let plain = Servers::start(&[("plain", "m")]);
    let file = directory.path().join("config.json");
    // Every request is passed through.
    let text = r#"{ "upstreams": [ { "cluster": "tls", "weight": 0 }, { "cluster": "plain", "weight": 0 } ] }"#;
    std::fs::write(&file, text).unwrap();
    let servers = format!("tls=https://localhost:{port},{}", plain.named("plain"));
    let ca_file = fixture("certificate.pem");
    let all = [
        "--server",
        &servers,
        "--ca-file",
        &ca_file,
        "--config",
        file.to_str().unwrap(),
    ];
    let both = envoy(directory.path(), &all);
    let url = both.url();
    let mut seen = [false; 2];
    // Of two servers a request draws one with even odds: 1 in 2^39 that all go to one.
    for _ in 0..40 {
        let (status, _, host) = ask(&url, "/v1/models");
        assert_eq!(status, 200, "{}", both.log());
        seen[usize::from(host.is_empty())] = true;
    }
    assert_eq!(seen, [true; 2]);
}
