//! `paceline check` on files as users have them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether all is accepted, and what is said of it.
fn check(files: &[&Path]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .arg("check")
        .args(files)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn check_text(suffix: &str, text: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::with_suffix(suffix).unwrap();
    std::fs::write(file.path(), text).unwrap();
    check(&[file.path()])
}

/// The same for a text on standard input.
fn check_piped(text: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn what_is_piped_in_is_checked_whatever_it_is() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/envoy.yaml");
    let (accepted, said) = check_piped(&std::fs::read_to_string(shipped).unwrap());
    let expected = ["ingress", "status"].map(|listener| {
        format!("-: listener {listener}: filter paceline: accepted, 1 pool, 2 upstreams\n")
    });
    assert_eq!((accepted, said), (true, expected.concat()));

    let config = r#" { "upstreams": [ { "cluster": "a" }, { "cluster": "b", "wieght": 2 } ] }"#;
    let (accepted, said) = check_piped(config);
    assert!(
        !accepted && said.starts_with("-: refused: upstreams[1].wieght: unknown key"),
        "{said}"
    );
}

#[test]
fn shipped_plugins_are_accepted() {
    let istio = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio");
    let files = [
        "wasmplugin-gateway.yaml",
        "trafficextension-gateway.yaml",
        "envoyfilter-cluster-header.yaml",
    ]
    .map(|name| istio.join(name));
    let (accepted, said) = check(&files.each_ref().map(|path| path.as_path()));
    assert!(accepted, "{said}");
    assert_eq!(
        said.matches("accepted, 1 pool, 2 upstreams").count(),
        3,
        "{said}"
    );
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let plugin = "kind: WasmPlugin\nmetadata: { name: paceline }\nspec:\n  pluginConfig:\n    \
                  upstreams: [{ cluster: a, wieght: 2 }]\n";
    let json = r#"{ "upstreams": [ { "cluster": "a", "cluster": "b" } ] }"#;
    for (suffix, text, expected) in [
        (".yaml", plugin, "upstreams[0].wieght: unknown key"),
        (".json", json, "upstreams[0].cluster"),
        (
            ".yaml",
            "kind: WasmPlugin\nspec: {}\n",
            "upstreams: missing",
        ),
        (".yaml", "kind: Service\n", "no WasmPlugin"),
    ] {
        let (accepted, said) = check_text(suffix, text);
        assert!(!accepted, "{said}");
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_plain_configuration_is_accepted() {
    let text = r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "b" } ] }"#;
    let (accepted, said) = check_text(".json", text);
    assert!(accepted && said.contains("1 pool, 2 upstreams"), "{said}");
}

/// The directory of Envoy's shipped files.
fn shipped(name: &str) -> std::path::PathBuf {
    let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    envoy.join(name)
}

/// Shipped files in a directory of their own, each changed by a replacement.
fn changed(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, from, to) in files {
        let text = std::fs::read_to_string(shipped(name)).unwrap();
        assert!(text.contains(from), "{from} in {name}");
        std::fs::write(directory.path().join(name), text.replacen(from, to, 1)).unwrap();
    }
    directory
}

#[test]
fn shipped_envoys_are_accepted_without_a_warning() {
    for (name, summary) in [
        ("envoy.yaml", "1 pool, 2 upstreams"),
        ("endpoints.yaml", "1 pool, endpoints of 1 cluster"),
        ("models.yaml", "2 pools, 4 upstreams"),
        ("dynamic.yaml", "1 pool, 2 upstreams"),
        ("compose/envoy.yaml", "1 pool, 4 upstreams"),
    ] {
        let (accepted, said) = check(&[&shipped(name)]);
        assert!(accepted && !said.contains("warning"), "{said}");
        let expected = format!("listener ingress: filter paceline: accepted, {summary}");
        assert!(said.contains(&expected), "{expected} in {said}");
    }
}

#[test]
fn probes_that_another_server_may_answer_are_told() {
    let upstream = "{ \"cluster\": \"gpu-b\" } ],";
    let check = |suffix: &str| {
        let to = format!("{upstream} \"health_check\": {{ \"preset\": \"vllm\"{suffix} }},");
        let files = changed(&[("envoy.yaml", upstream, &to)]);
        check(&[&files.path().join("envoy.yaml")])
    };
    let (accepted, said) = check(", \"cluster_suffix\": \"-servers\"");
    assert!(accepted && !said.contains("warning"), "{said}");
    for (suffix, expected) in [
        (
            "",
            "warning: pool \"default\": health_check asks \"gpu-a\" at the cluster \"gpu-a\", which goes on \
             to gpu-b-servers: where Envoy finds \"gpu-a-servers\" unhealthy, the next one answers in its \
             place; give health_check a cluster_suffix",
        ),
        (
            ", \"cluster_suffix\": \"-nodes\"",
            "warning: pool \"default\": health_check asks \"gpu-b\" at the cluster \"gpu-b-nodes\", which is no \
             cluster: it will never be ready",
        ),
    ] {
        let (accepted, said) = check(suffix);
        assert!(accepted && said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_dry_run_that_cannot_know_who_serves_is_told() {
    let text = std::fs::read_to_string(shipped("envoy.yaml")).unwrap();
    let attempts = "\"include_attempt_count_in_response\": true";
    let with_mode = |mode: &str| text.replace(attempts, &format!("{attempts}, \"mode\": {mode}"));
    let strip = |text: String| {
        let (before, fallback) = text.rsplit_once("- name: all-gpus").unwrap();
        let named = |line: &&str| !line.trim_start().starts_with("metadata:");
        let fallback: Vec<&str> = fallback.lines().filter(named).collect();
        format!("{before}- name: all-gpus{}\n", fallback.join("\n"))
    };
    for (text, is_told) in [
        (with_mode("\"observe\""), false),
        (strip(with_mode("\"observe\"")), true),
        (strip(with_mode("{ \"balance_percent\": 10 }")), false),
        (strip(text.clone()), false),
    ] {
        let (accepted, said) = check_text(".yaml", &text);
        let warning = "pool \"default\" observes, and routes go to the cluster \"all-gpus\", whose \
                       endpoints do not say which upstream they belong to";
        assert!(accepted, "{said}");
        assert_eq!(said.contains(warning), is_told, "{said}");
        assert_eq!(said.contains("warning"), is_told, "{said}");
    }
}

#[test]
fn files_that_a_bootstrap_names_are_checked_with_it() {
    let wrong = "{ \"cluster\": \"gpu-b\" }";
    for (to, expected) in [
        (
            "{ \"cluster\": \"gpu-x\" }",
            "upstreams[1].cluster: \"gpu-x\" is no cluster of this Envoy, which has all-gpus, \
             gpu-a, gpu-a-servers, gpu-b, gpu-b-servers",
        ),
        (
            "{ \"cluster\": \"gpu-b\", \"wieght\": 1 }",
            "upstreams[1].wieght: unknown key; did you mean weight?",
        ),
    ] {
        let files = changed(&[
            ("dynamic.yaml", "", ""),
            ("lds.yaml", wrong, to),
            ("cds.yaml", "", ""),
        ]);
        let path = |name: &str| files.path().join(name);
        let lds = path("lds.yaml");
        let expected = format!(
            "{}: listener ingress: filter paceline: refused: {expected}",
            lds.display()
        );
        // By the bootstrap alone, and the two files by themselves.
        for given in [
            &[path("dynamic.yaml")][..],
            &[lds.clone(), path("cds.yaml")],
            &[path("cds.yaml"), path("dynamic.yaml"), lds.clone()],
        ] {
            let given: Vec<_> = given.iter().map(|path| path.as_path()).collect();
            let (accepted, said) = check(&given);
            assert!(
                !accepted && said.contains(&expected),
                "{expected} in {said}"
            );
            assert!(said.contains("1 refused"), "{said}");
        }
    }
}

#[test]
fn paths_are_looked_for_beside_the_file_that_names_them() {
    let files = changed(&[
        ("dynamic.yaml", "/etc/envoy/cds.yaml", "parts/cds.yaml"),
        ("lds.yaml", "", ""),
    ]);
    let parts = files.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    std::fs::copy(shipped("cds.yaml"), parts.join("cds.yaml")).unwrap();
    let bootstrap = files.path().join("dynamic.yaml");
    let (accepted, said) = check(&[&bootstrap]);
    assert!(accepted, "{said}");

    std::fs::remove_file(parts.join("cds.yaml")).unwrap();
    let (accepted, said) = check(&[&bootstrap]);
    assert!(
        !accepted && said.contains("names parts/cds.yaml, which is neither there"),
        "{said}"
    );
    // One that is given stands in for it, wherever it lies.
    let (accepted, said) = check(&[&bootstrap, &shipped("cds.yaml")]);
    assert!(accepted, "{said}");
}

#[test]
fn listeners_alone_are_checked_as_far_as_can_be() {
    let (accepted, said) = check(&[&shipped("lds.yaml")]);
    assert!(
        accepted && said.contains("no clusters in these files"),
        "{said}"
    );
    let (accepted, said) = check(&[&shipped("cds.yaml")]);
    assert!(!accepted && said.contains("no Wasm filter"), "{said}");
}

#[test]
fn an_aggregate_that_leaves_its_pool_is_warned_about() {
    let files = changed(&[(
        "models.yaml",
        "[llama-a-servers, llama-b-servers]",
        "[llama-a-servers, qwen-a-servers]",
    )]);
    let (accepted, said) = check(&[&files.path().join("models.yaml")]);
    assert!(accepted, "{said}");
    let expected = "warning: pool \"llama\": cluster \"llama-a\" goes on to \"qwen-a-servers\", \
                    which serves pool \"qwen\": a retry would leave the pool";
    assert!(said.contains(expected), "{expected} in {said}");

    let files = changed(&[(
        "envoy.yaml",
        "[gpu-a-servers, gpu-b-servers]",
        "[gpu-a-servers, gpu-x]",
    )]);
    let (accepted, said) = check(&[&files.path().join("envoy.yaml")]);
    assert!(
        accepted && said.contains("cluster \"gpu-a\" names \"gpu-x\", which is no cluster"),
        "{said}"
    );
}

#[test]
fn a_cluster_of_endpoints_is_looked_at() {
    let files = changed(&[(
        "endpoints.yaml",
        "\"cluster\": \"gpus\"",
        "\"cluster\": \"gpu\"",
    )]);
    let (accepted, said) = check(&[&files.path().join("endpoints.yaml")]);
    assert!(
        !accepted && said.contains("refused: cluster: \"gpu\" is no cluster"),
        "{said}"
    );

    let files = changed(&[(
        "envoy.yaml",
        "\"upstreams\": [ { \"cluster\": \"gpu-a\" }, { \"cluster\": \"gpu-b\" } ]",
        "\"cluster\": \"all-gpus\"",
    )]);
    let (accepted, said) = check(&[&files.path().join("envoy.yaml")]);
    assert!(
        accepted && said.contains("warning: cluster: cluster \"all-gpus\" has not"),
        "{said}"
    );
}

#[test]
fn a_struct_and_a_value_that_is_no_text_are_refused() {
    let files = changed(&[(
        "envoy.yaml",
        "google.protobuf.StringValue",
        "google.protobuf.Struct",
    )]);
    let (accepted, said) = check(&[&files.path().join("envoy.yaml")]);
    assert!(
        !accepted && said.contains("type.googleapis.com/google.protobuf.StringValue"),
        "{said}"
    );

    let files = changed(&[("envoy.yaml", "value: |", "value:")]);
    let (accepted, said) = check(&[&files.path().join("envoy.yaml")]);
    assert!(
        !accepted && said.contains("configuration.value: is no string"),
        "{said}"
    );
}

#[test]
fn each_problem_is_told_with_its_place() {
    let text = r#"{ "upstreams": [ { "cluster": "a" }, {} ], "lease": "10" }"#;
    let (accepted, said) = check_text(".json", text);
    assert!(!accepted && said.contains("2 refused"), "{said}");
    for problem in ["lease: \"10\"", "upstreams[1].cluster: missing"] {
        assert!(
            said.contains(&format!(".json: refused: {problem}")),
            "{said}"
        );
    }
}

#[test]
fn clusters_of_a_control_plane_are_not_missed() {
    let files = changed(&[
        (
            "dynamic.yaml",
            "    path_config_source: { path: /etc/envoy/cds.yaml }\n",
            "    ads: {}\n",
        ),
        ("lds.yaml", "\"gpu-b\"", "\"gpu-x\""),
    ]);
    let (accepted, said) = check(&[&files.path().join("dynamic.yaml")]);
    assert!(
        accepted && said.contains("clusters come from a control plane"),
        "{said}"
    );
}

/// What is said of a shipped file of Envoy's after one replacement.
fn said_of(name: &str, from: &str, to: &str) -> String {
    let files = changed(&[(name, from, to)]);
    check(&[&files.path().join(name)]).1
}

#[test]
fn what_envoy_cannot_know_is_warned_about() {
    for (from, to, expected) in [
        (
            "                        - remove: x-upstream-cluster\n",
            "",
            "clients' own x-upstream-cluster is not removed",
        ),
        (
            "{ \"cluster\": \"gpu-a\" }, { \"cluster\": \"gpu-b\" }",
            "{ \"cluster\": \"gpu-a\" }",
            "pool \"default\": has one upstream only",
        ),
        (
            "\"include_attempt_count_in_response\": true",
            "\"route_header\": \"x-other\"",
            "none has cluster_header: x-other",
        ),
        (
            "                      include_attempt_count_in_response: true\n",
            "",
            "a server could make up the number of attempts",
        ),
        (
            "                            cluster: all-gpus\n                            timeout: 0s\n",
            "                            cluster: all-gpus\n",
            "route \"fallback\": has no timeout",
        ),
        (
            "                          match: { prefix: / }\n                          route:\n                            cluster: all-gpus",
            "                          match: { prefix: /, headers: [{ name: x-upstream-cluster, present_match: true }] }\n                          route:\n                            cluster: all-gpus",
            "passes through gets a 404",
        ),
        (
            "\"include_attempt_count_in_response\": true",
            "\"include_attempt_count_in_response\": true, \"status\": { \"path\": \"/x\" }",
            "listener ingress: filter paceline: warning: status: whoever reaches this listener gets the state at /x",
        ),
        (
            "failure_policy: FAIL_RELOAD",
            "failure_policy: FAIL_CLOSED",
            "after a trap",
        ),
        (
            "vm_id: paceline",
            "vm_id: ''",
            "vm_config.vm_id: is not set",
        ),
        (
            "address: 127.0.0.1, port_value: 9902",
            "address: 127.0.0.1, port_value: 9903",
            "listener status: filter paceline: warning: status.port: 9902 is not the listener's port, 9903",
        ),
    ] {
        let said = said_of("envoy.yaml", from, to);
        assert!(
            said.contains("warning") && !said.contains("refused"),
            "{said}"
        );
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn bodies_that_are_not_shown_are_warned_about() {
    let config = "\"include_attempt_count_in_response\": true";
    let reads = format!("{config}, \"request_size\": \"openai\"");
    let large = format!("{reads}, \"request_body\": {{ \"max_bytes\": 5000000 }}");
    let said = said_of("envoy.yaml", config, &reads);
    assert!(!said.contains("warning"), "{said}");
    let said = said_of("envoy.yaml", config, &large);
    assert!(
        said.contains("4194304 bytes are less than max_bytes (5000000)"),
        "{said}"
    );

    let files = changed(&[("envoy.yaml", config, &reads)]);
    let path = files.path().join("envoy.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("iteration: true", "iteration: false")).unwrap();
    let (accepted, said) = check(&[&path]);
    assert!(
        accepted && said.contains("warning: reads bodies, but"),
        "{said}"
    );

    let plugin = "kind: WasmPlugin\nmetadata: { name: paceline }\nspec:\n  pluginConfig:\n    \
                  request_size: openai\n    upstreams: [{ cluster: a }, { cluster: b }]\n";
    let (accepted, said) = check_text(".yaml", plugin);
    assert!(
        accepted && said.contains("a WasmPlugin cannot set it"),
        "{said}"
    );
}

#[test]
fn limits_without_a_word_on_waiting_are_warned_about() {
    let text = |queue: &str| {
        format!(
            r#"{{ "upstreams": [ {{ "cluster": "a", "max_in_flight": "auto" }}, {{ "cluster": "b" }} ]{queue} }}"#
        )
    };
    let expected = "waits, up to 1000 requests for up to 30 s each";
    let (accepted, said) = check_text(".json", &text(""));
    assert!(accepted && said.contains(expected), "{said}");
    let queue = r#", "admission": { "queue": { "max_wait": "5s" } }"#;
    let (accepted, said) = check_text(".json", &text(queue));
    assert!(accepted && !said.contains("admission.queue"), "{said}");
    let plain = r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "b" } ] }"#;
    let (accepted, said) = check_text(".json", plain);
    assert!(accepted && !said.contains("admission.queue"), "{said}");
}

#[test]
fn weights_without_an_effect_are_warned_about() {
    for (weight, expected) in [
        (2, "round_robin ignores weights"),
        (
            0,
            "every weight is 0, so all its requests take the fallback route",
        ),
    ] {
        let upstream = |name| format!(r#"{{ "cluster": "{name}", "weight": {weight} }}"#);
        let text = format!(
            r#"{{ "policy": "round_robin", "upstreams": [ {}, {} ] }}"#,
            upstream("a"),
            upstream("b")
        );
        let (accepted, said) = check_text(".json", &text);
        assert!(accepted && said.contains(expected), "{said}");
    }
}

#[test]
fn a_filter_that_comes_by_ecds_is_checked_in_its_listener() {
    let directory = changed(&[("dynamic.yaml", "", ""), ("cds.yaml", "", "")]);
    let lds = std::fs::read_to_string(shipped("lds.yaml")).unwrap();
    let mut lds: serde_json::Value = serde_saphyr::from_str(&lds).unwrap();
    let filter = "/resources/0/filter_chains/0/filters/0/typed_config/http_filters/0";
    let filter = lds.pointer_mut(filter).unwrap();
    let typed = filter["typed_config"].take();
    *filter = serde_json::json!({ "name": "paceline", "config_discovery": {
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
        "config_source": { "path_config_source": { "path": "/etc/envoy/ecds.json" } } } });
    let mut ecds = serde_json::json!({ "resources": [{ "name": "paceline", "typed_config": typed,
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig" }] });
    let write = |name: &str, value: &serde_json::Value| {
        std::fs::write(directory.path().join(name), value.to_string()).unwrap();
    };
    write("lds.yaml", &lds);
    write("ecds.json", &ecds);
    let bootstrap = directory.path().join("dynamic.yaml");
    let (accepted, said) = check(&[&bootstrap]);
    assert!(
        accepted && said.contains("ecds.json: filter paceline: accepted, 1 pool"),
        "{said}"
    );
    assert!(!said.contains("warning"), "{said}");

    // Its upstreams are compared with the clusters, its header with the routes.
    let value = "/resources/0/typed_config/config/configuration/value";
    *ecds.pointer_mut(value).unwrap() =
        r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "x" } ], "route_header": "x-h" }"#
            .into();
    write("ecds.json", &ecds);
    let (accepted, said) = check(&[&bootstrap]);
    assert!(
        !accepted && said.contains("\"x\" is no cluster of this Envoy"),
        "{said}"
    );
    assert!(said.contains("none has cluster_header: x-h"), "{said}");
}

#[test]
fn manifests_are_compared_with_their_routes_and_subsets() {
    let istio = Path::new(env!("CARGO_MANIFEST_DIR")).join("../istio");
    let names = [
        "wasmplugin-gateway.yaml",
        "virtualservice.yaml",
        "destinationrule.yaml",
    ];
    let read = |name: &str| std::fs::read_to_string(istio.join(name)).unwrap();
    let all = names.map(read).join("\n---\n");
    for (from, to, expected) in [
        ("", "", "accepted, 1 pool, 2 upstreams"),
        (
            "exact: l4",
            "exact: l40",
            "no VirtualService has a route for x-upstream-cluster: l4",
        ),
        (
            "subset: l4",
            "subset: l40",
            "has no subset \"l40\" in its DestinationRule",
        ),
    ] {
        let (accepted, said) = check_text(".yaml", &all.replacen(from, to, 1));
        assert_eq!(accepted, from.is_empty(), "{said}");
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let names = [
        "wasmplugin-gateway.yaml",
        "virtualservice-cluster-header.yaml",
    ];
    let (accepted, said) = check_text(".yaml", &names.map(read).join("\n---\n"));
    assert!(accepted, "{said}");
}
