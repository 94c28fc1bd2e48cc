//! What Envoy cannot know: it accepts these, and they do not do what they should.

use crate::{changed, check, check_text, said_of, shipped};

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
