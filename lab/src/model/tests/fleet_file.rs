//! What fleet files may say, and what is said of those that may not.

use super::*;

fn error_of(server: &str) -> String {
    let json = format!(r#"{{"servers": [{server}]}}"#);
    Fleet::from_json(&json).unwrap_err().to_string()
}

#[test]
fn a_gpu_brings_its_figures_and_keys_override_them() {
    let fleet = Fleet::from_json(
        r#"{"servers": [
            {"name": "a", "count": 2, "kind": "batching", "gpu": "a40"},
            {"name": "b", "kind": "batching", "gpu": "a40", "kv_tokens": 5000, "max_sequences": 4096}
        ]}"#,
    )
    .unwrap();
    let names: Vec<_> = fleet.servers().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a-1", "a-2", "b"]);
    let Kind::Batching(first) = &fleet.servers()[0].kind else {
        panic!("a batching server")
    };
    assert_eq!(first.cost, Gpu::A40.step_cost());
    assert_eq!(first.kv_tokens.get(), 207_000);
    assert_eq!(
        (first.max_sequences.get(), first.token_budget.get()),
        (256, 2048)
    );
    let Kind::Batching(last) = &fleet.servers()[2].kind else {
        panic!("a batching server")
    };
    assert_eq!(last.kv_tokens.get(), 5000);
    assert_eq!(
        (last.max_sequences.get(), last.token_budget.get()),
        (4096, 4096)
    );
}

#[test]
fn slot_servers_have_a_service_time() {
    let fleet = Fleet::from_json(
        r#"{"servers": [{"name": "a", "kind": "slots", "slots": 3, "service_ms": {"base": 100, "per_output_token": 2.5}}]}"#,
    )
    .unwrap();
    let Kind::Slots(spec) = &fleet.servers()[0].kind else {
        panic!("a slot server")
    };
    assert_eq!(spec.slots.get(), 3);
    assert_eq!(spec.service.of(1000, 4), Duration::from_millis(110));
}

#[test]
fn what_devices_may_not_be_is_refused() {
    let gpu = r#"{"name": "gpu", "memory": 10}"#;
    let on = |server: &str, devices: &str| {
        let json = format!(
            r#"{{"servers": [{{"name": "a", "kind": "slots"{server}}}], "devices": [{devices}]}}"#
        );
        Fleet::from_json(&json).map_err(|error| error.to_string())
    };
    let base = r#", "device": "gpu", "memory": {"base": 1}"#;
    assert!(on(base, gpu).is_ok());
    for (server, devices, expected) in [
        (r#", "device": "gpu""#, gpu, "servers[0].memory: nothing is"),
        (
            r#", "memory": {"base": 1}"#,
            gpu,
            "servers[0].device: nothing is",
        ),
        (base, "", "servers[0].device: \"gpu\" is not allowed"),
        (
            r#", "device": "gpu", "memory": {"base": -1}"#,
            gpu,
            "servers[0].memory.base: -1 is not allowed",
        ),
        (
            r#", "device": "gpu", "memory": {"each": 1}"#,
            gpu,
            "servers[0].memory.each: unknown field",
        ),
        (
            "",
            r#"{"name": "gpu"}"#,
            "devices[0]: missing field `memory`",
        ),
        (
            "",
            r#"{"name": "gpu", "memory": 0}"#,
            "devices[0].memory: 0 is not allowed",
        ),
        (
            "",
            r#"{"name": "a b", "memory": 1}"#,
            "devices[0].name: \"a b\" is not allowed",
        ),
        (
            "",
            r#"{"name": "gpu", "memory": 1, "reload_seconds": -1}"#,
            "devices[0].reload_seconds: -1 is not allowed",
        ),
        (
            "",
            r#"{"name": "gpu", "memory": 1}, {"name": "gpu", "memory": 2}"#,
            "devices[1].name: \"gpu\" is not allowed: no two",
        ),
    ] {
        let error = on(server, devices).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn errors_name_the_place_the_value_and_what_is_allowed() {
    let cases = [
        (r#"{"kind": "slots"}"#, "servers[0]: missing field `name`"),
        (
            r#"{"name": "a", "kind": "slot"}"#,
            "servers[0].kind: unknown variant `slot`, expected `slots` or `batching`",
        ),
        (
            r#"{"name": "a", "kind": "slots", "slot": 1}"#,
            "servers[0].slot: unknown field `slot`",
        ),
        (
            r#"{"name": "a", "kind": "slots", "slots": 0}"#,
            "servers[0].slots: invalid value: integer `0`",
        ),
        (
            r#"{"name": "a", "kind": "slots", "speed": "fast"}"#,
            "servers[0].speed: invalid type: string",
        ),
        (
            r#"{"name": "a", "kind": "slots", "speed": 0}"#,
            "servers[0].speed: 0 is not allowed: 0.001 to 1000",
        ),
        (
            r#"{"name": "a", "kind": "slots", "gpu": "h100"}"#,
            "servers[0].gpu: this key is not allowed: only servers of kind \"batching\"",
        ),
        (
            r#"{"name": "a b", "kind": "slots"}"#,
            "servers[0].name: \"a b\" is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "slots"}, {"name": "a", "kind": "slots"}"#,
            "servers[1].name: \"a\" is not allowed: no two",
        ),
        (
            r#"{"name": "a", "kind": "slots", "name": "b"}"#,
            "servers[0]: duplicate field `name`",
        ),
        (
            r#"{"name": "a", "kind": "slots", "count": 2, "port": 80}"#,
            "servers[0].port: 80 is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "slots", "service_ms": {"base": -1}}"#,
            "servers[0].service_ms.base: -1 is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "batching"}"#,
            "servers[0].gpu: nothing is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "batching", "gpu": "h200"}"#,
            "servers[0].gpu: unknown variant `h200`",
        ),
        (
            r#"{"name": "a", "kind": "batching", "gpu": "h100", "slots": 1}"#,
            "servers[0].slots: this key is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "batching", "gpu": "h100", "max_waiting": 0}"#,
            "servers[0].max_waiting: 0 is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "slots", "max_waiting": 0, "full_status": 500}"#,
            "servers[0].full_status: 500 is not allowed: 429 or 503",
        ),
        (
            r#"{"name": "a", "kind": "batching", "gpu": "h100", "token_budget": 100}"#,
            "servers[0].token_budget: 100 is not allowed: `max_sequences` (256)",
        ),
        (
            r#"{"name": "a", "kind": "batching", "step_ms": {"b0":1,"b1":1,"c0":1,"c1":1,"k":-1,"h":1}, "kv_tokens": 9}"#,
            "servers[0].step_ms.k: -1 is not allowed",
        ),
        (
            r#"{"name": "a", "kind": "batching", "step_ms": {"b0":1,"b1":1,"c0":1,"c1":1,"k":1,"h":1}}"#,
            "servers[0].kv_tokens: nothing is not allowed",
        ),
        ("", "servers: [] is not allowed"),
    ];
    for (server, expected) in cases {
        let error = error_of(server);
        assert!(error.starts_with(expected), "{server} gave {error:?}");
    }
    let unknown = Fleet::load("no-such-fleet").unwrap_err().to_string();
    assert!(unknown.contains("fleet no-such-fleet") && unknown.contains("unequal8"));
}
