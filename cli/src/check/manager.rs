//! The connection manager around a filter: what of it the filter relies on, and
//! `envoy --mode validate` cannot know.

use paceline::config::{Config, Status};
use serde_json::Value;

use super::Finding;
use super::source::children;

/// What Envoy buffers of a body unless told otherwise.
const DEFAULT_BUFFER: u64 = 1024 * 1024;

/// The routes of a connection manager, if they are in its file.
fn hosts(manager: &Value) -> Option<&Vec<Value>> {
    manager.pointer("/route_config/virtual_hosts")?.as_array()
}

/// What of the manager, in a listener with this port, does not fit the configuration.
pub(super) fn findings(manager: &Value, port: Option<u64>, config: &Config) -> Vec<Finding> {
    let mut said = Vec::new();
    if let Some(status) = &config.status {
        if tells_only(manager) {
            return status_findings(status, port);
        }
        if status.port.is_none() {
            said.push(format!(
                "status: whoever reaches this listener gets the state at {}; give it a listener of its own, or a port",
                status.path
            ));
        }
    }
    let header = config.route_header.as_str();
    if !removes(manager, header) {
        said.push(format!(
            "early_header_mutation_extensions: clients' own {header} is not removed: where the filter does not run, \
             they choose a cluster"
        ));
    }
    let Some(hosts) = hosts(manager) else {
        return said.into_iter().map(Finding::Warning).collect();
    };
    let routes = || hosts.iter().flat_map(|host| list(host, "routes"));
    let by_cluster = config.pools.iter().any(|pool| pool.endpoints.is_none());
    let follows = |route: &Value| {
        let named = route
            .pointer("/route/cluster_header")
            .and_then(Value::as_str);
        named.is_some_and(|name| name.eq_ignore_ascii_case(header)) || asks_for(route, header)
    };
    if by_cluster && !routes().any(follows) {
        said.push(format!(
            "routes: none has cluster_header: {header}, so no request goes where the filter sends it"
        ));
    }
    for host in hosts {
        let place = format!("virtual host {:?}", text(host, "name"));
        let has_fallback = list(host, "routes").any(|route| !follows(route) || !by_cluster);
        if !has_fallback {
            said.push(format!(
                "{place}: no route without {header}: a request that the filter passes through gets a 404"
            ));
        }
        if config.include_attempt_count_in_response
            && host.get("include_attempt_count_in_response") != Some(&Value::Bool(true))
        {
            said.push(format!(
                "{place}: include_attempt_count_in_response is not set here, but the filter is told so: \
                 a server could make up the number of attempts"
            ));
        }
        let room = host
            .get("request_body_buffer_limit")
            .and_then(Value::as_u64);
        let room = room.unwrap_or(DEFAULT_BUFFER);
        let most = u64::from(config.request_body.max_bytes);
        if config.reads_bodies() && most > room {
            said.push(format!(
                "{place}: request_body_buffer_limit: {room} bytes are less than max_bytes ({most}): \
                 larger bodies are waited for in vain"
            ));
        }
    }
    for route in routes().filter(|route| route.get("route").is_some()) {
        if route.pointer("/route/timeout").is_none() {
            said.push(format!(
                "route {:?}: has no timeout, so Envoy cuts answers off after 15 s; 0s lets them end",
                text(route, "name")
            ));
        }
    }
    said.into_iter().map(Finding::Warning).collect()
}

/// What does not fit of a listener that is there for the state alone.
fn status_findings(status: &Status, port: Option<u64>) -> Vec<Finding> {
    let (Some(wanted), Some(port)) = (status.port.map(u64::from), port) else {
        return Vec::new();
    };
    match wanted == port {
        true => Vec::new(),
        false => vec![Finding::Warning(format!(
            "status.port: {wanted} is not the listener's port, {port}, so the filter answers nothing here"
        ))],
    }
}

/// Whether no request goes to a cluster, so that the filter is there for its state alone.
fn tells_only(manager: &Value) -> bool {
    let leads_on = |host| list(host, "routes").any(|route| route.get("route").is_some());
    hosts(manager).is_some_and(|hosts| !hosts.iter().any(leads_on))
}

/// Whether a header is removed before routes are looked for.
fn removes(manager: &Value, header: &str) -> bool {
    let extensions = list(manager, "early_header_mutation_extensions");
    let mutations = extensions.flat_map(|it| {
        let mutations = it.pointer("/typed_config/mutations");
        mutations.into_iter().flat_map(children)
    });
    let mut removed = mutations.filter_map(|it| it.get("remove")?.as_str());
    removed.any(|name| name.eq_ignore_ascii_case(header))
}

/// Whether a route matches only requests with a value of the header.
fn asks_for(route: &Value, header: &str) -> bool {
    let conditions = route
        .pointer("/match/headers")
        .into_iter()
        .flat_map(children);
    let mut names = conditions.filter_map(|it| it.get("name")?.as_str());
    names.any(|name| name.eq_ignore_ascii_case(header))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
