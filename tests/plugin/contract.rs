//! What the file itself promises a host: exports, imports, size.

use crate::host::artifact;
use std::collections::BTreeSet;
use wasmi::ExternType;

/// What of proxy-wasm ABI 0.2.1 a host is to call. Each callback that is exported for a
/// stream costs every request about half a microsecond, used or not.
const EXPORTS: [&str; 17] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_memory_allocate",
    "proxy_on_queue_ready",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
];

/// The host functions of ABI 0.2.1, any of which the filter may import.
const HOST_FUNCTIONS: [&str; 39] = [
    "proxy_add_header_map_value",
    "proxy_call_foreign_function",
    "proxy_close_stream",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_dequeue_shared_queue",
    "proxy_done",
    "proxy_enqueue_shared_queue",
    "proxy_get_buffer_bytes",
    "proxy_get_buffer_status",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_size",
    "proxy_get_header_map_value",
    "proxy_get_log_level",
    "proxy_get_metric",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_get_status",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_grpc_close",
    "proxy_grpc_send",
    "proxy_grpc_stream",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_record_metric",
    "proxy_register_shared_queue",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_resolve_shared_queue",
    "proxy_send_local_response",
    "proxy_set_buffer_bytes",
    "proxy_set_effective_context",
    "proxy_set_header_map_pairs",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
];

/// All that the filter may ask of WASI. Hosts other than Envoy offer less than
/// Envoy does, so a new entry here is a decision, not a formality.
const WASI: [&str; 6] = [
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "random_get",
];

/// Largest size of the file, in bytes.
const MAX_SIZE: usize = 480_000;

#[test]
fn exports_the_callbacks_that_it_needs_and_no_others() {
    let exports: BTreeSet<&str> = artifact::module()
        .exports()
        .map(|export| export.name())
        .collect();
    assert_eq!(exports, BTreeSet::from(EXPORTS));
}

#[test]
fn imports_host_functions_of_proxy_wasm_and_six_of_wasi_alone() {
    let mut wasi = BTreeSet::new();
    for import in artifact::module().imports() {
        let name = import.name();
        assert!(
            matches!(import.ty(), ExternType::Func(_)),
            "{name} is no function"
        );
        match import.module() {
            "env" => assert!(HOST_FUNCTIONS.contains(&name), "import env.{name}"),
            "wasi_snapshot_preview1" => drop(wasi.insert(name)),
            module => panic!("import {module}.{name}"),
        }
    }
    assert_eq!(
        wasi,
        BTreeSet::from(WASI),
        "WASI functions imported, and allowed"
    );
}

#[test]
fn the_page_on_security_lists_what_is_asked_of_wasi() {
    let page = include_str!("../../docs/operations.md");
    let (_, rest) = page.split_once("six of WASI's (").expect("a list");
    let (list, _) = rest.split_once(')').expect("the list's end");
    let listed: Vec<&str> = list.split([',', '\n', ' ', '`']).collect();
    let listed: Vec<&str> = listed.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(listed, WASI);
}

#[test]
fn the_file_is_small() {
    let size = artifact::bytes().len();
    assert!(
        size <= MAX_SIZE,
        "{size} bytes, at most {MAX_SIZE} are allowed"
    );
}
