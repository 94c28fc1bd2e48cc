//! Every manifest says only what Istio and Kubernetes know, and configures
//! Paceline with what Paceline accepts.

use paceline::config::Config;
use serde_json::{Value, json};

use crate::documents::{self, Document};
use crate::istio::plugin_configuration;
use crate::model::problems;

const ISTIO: &str = include_str!("schemas/istio.json");
const KUBERNETES: &str = include_str!("schemas/kubernetes.json");

/// Fields of every object, of which the schemas of Istio say nothing.
const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

fn against_model(value: &Value) -> Vec<String> {
    let mut models: serde_json::Map<String, Value> = serde_json::from_str(ISTIO).unwrap();
    models.extend(serde_json::from_str::<serde_json::Map<_, _>>(KUBERNETES).unwrap());
    let part = |key: &str| value[key].as_str().unwrap_or_default();
    let name = format!("{}/{}", part("apiVersion"), part("kind"));
    let Some(model) = models.get(&name) else {
        return vec![format!("{name}: no such kind")];
    };
    let mut found = Vec::new();
    for (key, field) in value.as_object().unwrap() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let known = |key: &String| METADATA.contains(&key.as_str());
                let unknown = field.as_object().unwrap().keys().filter(|key| !known(key));
                found.extend(unknown.map(|key| format!("metadata.{key}: unknown field")));
            }
            _ => match model["properties"].get(key) {
                Some(schema) => found.extend(problems(schema, field)),
                None => found.push(format!("{key}: unknown field")),
            },
        }
    }
    found.extend(rules_in_cel(part("kind"), &value["spec"]));
    found
}

/// The rules of these kinds that the models have in CEL, which the schemas here
/// leave out.
fn rules_in_cel(kind: &str, spec: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let targets = ["selector", "targetRefs", "targetRef"];
    let given = targets.iter().filter(|key| !spec[**key].is_null()).count();
    if ["WasmPlugin", "TrafficExtension"].contains(&kind) && given > 1 {
        broken.push(format!("{kind}: more than one of {targets:?}"));
    }
    if kind == "TrafficExtension" && spec["wasm"].is_null() == spec["lua"].is_null() {
        broken.push("TrafficExtension: not one of wasm and lua".to_owned());
    }
    let url = match kind {
        "WasmPlugin" => spec["url"].as_str(),
        _ => spec["wasm"]["url"].as_str(),
    };
    if url.is_some_and(|url| {
        !["oci://", "file://", "http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
    }) {
        broken.push(format!("{kind}: url: not oci, file, http or https"));
    }
    broken
}

fn objects() -> Vec<Document> {
    let files = documents::files();
    let files = files.iter().filter(|file| *file != "kustomization.yaml");
    files.flat_map(|file| documents::read(file)).collect()
}

#[test]
fn every_manifest_fits_its_model() {
    let objects = objects();
    for document in &objects {
        let found = against_model(&document.value);
        assert!(found.is_empty(), "{}: {found:#?}", document.file);
    }
    // All kinds that the page speaks of, and no file that was forgotten.
    for kind in [
        "WasmPlugin",
        "TrafficExtension",
        "VirtualService",
        "DestinationRule",
        "EnvoyFilter",
        "Gateway",
        "Deployment",
    ] {
        assert!(objects.iter().any(|object| object.kind() == kind), "{kind}");
    }
}

#[test]
fn a_slip_in_a_manifest_is_found() {
    let slips: [(&str, &str, Value, &str); 12] = [
        (
            "wasmplugin-gateway.yaml",
            "/spec/failstrategy",
            json!("FAIL_OPEN"),
            "failstrategy: unknown field",
        ),
        (
            "wasmplugin-gateway.yaml",
            "/spec/failStrategy",
            json!("FAIL_SOFT"),
            "is none of",
        ),
        (
            "wasmplugin-gateway.yaml",
            "/spec/targetRefs",
            json!([{ "kind": "Service", "group": "", "name": "llama" }]),
            "more than one of",
        ),
        (
            "wasmplugin-gateway.yaml",
            "/spec/url",
            json!("registry/paceline"),
            "not oci",
        ),
        (
            "wasmplugin-sidecar.yaml",
            "/spec/match/0/mode",
            json!("OUTBOUND"),
            "is none of",
        ),
        (
            "wasmplugin-sidecar.yaml",
            "/spec/match/0/ports/0/number",
            json!(0),
            "out of range",
        ),
        (
            "trafficextension-gateway.yaml",
            "/spec/pluginConfig",
            json!({}),
            "pluginConfig: unknown field",
        ),
        (
            "trafficextension-gateway.yaml",
            "/metadata/namespaces",
            json!("x"),
            "namespaces: unknown field",
        ),
        (
            "virtualservice.yaml",
            "/spec/http/0/route/0/destination/subsets",
            json!("h100"),
            "subsets: unknown field",
        ),
        (
            "destinationrule.yaml",
            "/spec/trafficPolicy/loadBalancer/simple",
            json!("LEAST"),
            "is none of",
        ),
        (
            "envoyfilter-retries.yaml",
            "/spec/configPatches/0/applyTo",
            json!("CLUSTERS"),
            "is none of",
        ),
        (
            "gateway.yaml",
            "/spec/servers/0/port/number",
            json!("80"),
            "is not of type",
        ),
    ];
    for (file, place, value, expected) in slips {
        let mut document = documents::read(file).remove(0).value;
        let (parent, key) = place.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[key] = value;
        let found = against_model(&document);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{file}{place}: {found:?}"
        );
    }
}

#[test]
fn a_slip_in_a_kubernetes_object_is_found() {
    let objects = documents::read("models.yaml");
    let deployment = objects
        .iter()
        .find(|object| object.kind() == "Deployment")
        .unwrap();
    let mut value = deployment.value.clone();
    value["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    assert!(
        against_model(&value)
            .iter()
            .any(|problem| problem.contains("readynessProbe: unknown field"))
    );
}

#[test]
fn every_plugin_configuration_is_accepted() {
    let mut configured = 0;
    for document in objects() {
        for configuration in plugin_configurations(&document) {
            let config = Config::parse(Some(configuration.as_bytes()))
                .unwrap_or_else(|error| panic!("{}: {error}\n{configuration}", document.file));
            assert_eq!(
                config.route_header, "x-upstream-cluster",
                "{}",
                document.file
            );
            configured += 1;
        }
    }
    assert_eq!(
        configured, 6,
        "four WasmPlugins, a TrafficExtension and an EnvoyFilter"
    );
}

#[test]
fn the_health_check_of_the_page_is_accepted_and_asks_the_cluster_of_the_manifests() {
    let page = std::fs::read_to_string(documents::directory().join("README.md")).unwrap();
    let block = page.split("```yaml\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let value: Value = serde_saphyr::from_str(block).unwrap();
    let configuration = plugin_configuration(&value["pluginConfig"]);
    let config = Config::parse(Some(configuration.as_bytes())).unwrap();
    let check = config.pools[0].health_check.as_ref().unwrap();
    assert_eq!(check.path, "/health");
    let manifest = documents::read("wasmplugin-endpoints.yaml").remove(0).value;
    let manifest = &manifest["spec"]["pluginConfig"]["pools"][0];
    let pool = &value["pluginConfig"]["pools"][0];
    for key in ["name", "match", "cluster"] {
        assert_eq!(pool[key], manifest[key], "{key}");
    }
}

/// What reaches the filter from this manifest.
fn plugin_configurations(document: &Document) -> Vec<String> {
    let spec = &document.value["spec"];
    match document.kind() {
        "WasmPlugin" => vec![plugin_configuration(&spec["pluginConfig"])],
        "TrafficExtension" => vec![plugin_configuration(&spec["wasm"]["pluginConfig"])],
        "EnvoyFilter" => {
            let patches = spec["configPatches"].as_array().unwrap().iter();
            let place = "/patch/value/typed_config/config/configuration/value";
            patches
                .filter_map(|patch| Some(patch.pointer(place)?.as_str()?.to_owned()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// `spec` of both kinds, in the terms of the newer one.
#[test]
fn the_traffic_extension_says_what_the_wasm_plugin_says() {
    let plugin = documents::read("wasmplugin-gateway.yaml").remove(0);
    let extension = documents::read("trafficextension-gateway.yaml").remove(0);
    let mut wasm = plugin.value["spec"].clone();
    let selector = wasm.as_object_mut().unwrap().remove("selector").unwrap();
    assert_eq!(
        extension.value["spec"],
        json!({ "selector": selector, "wasm": wasm })
    );
    assert_eq!(extension.value["metadata"], plugin.value["metadata"]);
}

#[test]
fn the_kustomization_names_files_that_are_there() {
    let kustomization = documents::read("kustomization.yaml").remove(0).value;
    let keys: Vec<_> = kustomization.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["apiVersion", "kind", "resources"]);
    assert_eq!(
        kustomization["apiVersion"],
        "kustomize.config.k8s.io/v1beta1"
    );
    let resources = kustomization["resources"].as_array().unwrap();
    let mut names = Vec::new();
    for resource in resources {
        for document in documents::read(resource.as_str().unwrap()) {
            let name = format!("{} {}", document.kind(), document.value["metadata"]);
            assert!(!names.contains(&name), "{name} twice");
            names.push(name);
        }
    }
    assert_eq!(names.len(), 9);
}
