//! The request headers that the filter writes, and what must not share them.

use core::fmt;

use super::error::Problems;
use super::json::Quoted;
use super::reader::{Object, Path};
use super::{Config, ModelSource, SizeSource, names};

const DEFAULT_ROUTE_HEADER: &str = "x-upstream-cluster";
const DEFAULT_ENDPOINT_HEADER: &str = "x-gateway-destination-endpoint";

/// Reads `route_header` and `endpoint_header`, in lower case.
pub(super) fn read(object: &Object<'_>, problems: &mut Problems) -> [String; 2] {
    let keys = [
        ("route_header", DEFAULT_ROUTE_HEADER),
        ("endpoint_header", DEFAULT_ENDPOINT_HEADER),
    ];
    let headers = keys.map(|(key, default)| {
        object
            .get(key)
            .and_then(|node| node.text_that(names::is_route_header, names::ROUTE_HEADER, problems))
            .unwrap_or(default)
            .to_ascii_lowercase()
    });
    let [route, endpoint] = &headers;
    if let Some(node) = object.get("endpoint_header")
        && route == endpoint
    {
        problems.add(&node.path, &"is the route_header too; give each its own");
    }
    headers
}

/// Refuses a header that is written for two purposes, or written and read: what
/// a client sends in it never survives.
pub(super) fn refuse_shared(config: &Config, object: &Object<'_>, problems: &mut Problems) {
    let has_endpoints = config.pools.iter().any(|pool| pool.endpoints.is_some());
    if has_endpoints
        && config.route_header == config.endpoint_header
        && let Some(node) = object.get("route_header")
    {
        problems.add(
            &node.path,
            &format_args!(
                "{} is the endpoint_header too, by default; give each its own",
                Quoted(&config.route_header)
            ),
        );
    }
    let mut written = vec![("route_header", &config.route_header)];
    if has_endpoints {
        written.push(("endpoint_header", &config.endpoint_header));
    }
    let mut refuse = |path: &dyn fmt::Display, name: &str| {
        refuse_written(path, name, &written, problems);
    };
    if let ModelSource::Header(name) = &config.model {
        let model = Path::Key(&object.path, "model");
        refuse(&Path::Key(&model, "header"), name);
    }
    let pools = Path::Key(&object.path, "pools");
    for (index, pool) in config.pools.iter().enumerate() {
        let place = match object.get("pools") {
            Some(_) => Path::Index(&pools, index),
            None => object.path,
        };
        let (conditions, size) = (
            Path::Key(&place, "match"),
            Path::Key(&place, "request_size"),
        );
        let headers = Path::Key(&conditions, "headers");
        for header in &pool.matcher.headers {
            refuse(&Path::Key(&headers, &header.name), &header.name);
        }
        if let SizeSource::Header(name) = &pool.request_size {
            refuse(&Path::Key(&size, "header"), name);
        }
        let admission = Path::Key(&place, "admission");
        for (key, name) in pool.admission.headers() {
            refuse(&Path::Key(&Path::Key(&admission, key), "header"), name);
        }
    }
}

/// Refuses to read the header `name` where it is one of those `written`.
#[inline(never)]
fn refuse_written(
    path: &dyn fmt::Display,
    name: &str,
    written: &[(&str, &String)],
    problems: &mut Problems,
) {
    if let Some((key, _)) = written.iter().find(|(_, header)| *header == name) {
        problems.add(
            path,
            &format_args!(
                "{} is the {key}, which the filter overwrites; read another header, \
             or give {key} another name",
                Quoted(name)
            ),
        );
    }
}
