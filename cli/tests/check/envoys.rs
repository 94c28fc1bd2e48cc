//! Envoy's configurations: which files belong together, and what is refused.

use crate::{changed, check, check_text, shipped};

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
