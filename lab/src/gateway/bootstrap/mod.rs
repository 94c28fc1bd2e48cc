//! Envoy's configuration, made from the shipped file.

mod clusters;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

pub(super) use clusters::endpoints;

use super::error::GatewayError;
use super::topology::{Balancing, Topology};

/// The files that users copy: for a cluster for each server, and for one whose
/// endpoints the servers are.
const SHIPPED: &str = include_str!("../../../../envoy/envoy.yaml");
const SHIPPED_ENDPOINTS: &str = include_str!("../../../../envoy/endpoints.yaml");

/// Where the endpoints are read from, in the gateway's directory.
pub(super) const ENDPOINTS_FILE: &str = "endpoints.json";

/// Where a reloadable listener is read from, in the gateway's directory.
pub(super) const LISTENERS_FILE: &str = "listeners.json";

const LISTENERS: &str = "/static_resources/listeners";
const LISTENER_PORT: &str = "/static_resources/listeners/0/address/socket_address";
const STATUS_PORT: &str = "/static_resources/listeners/1/address/socket_address";
const STATUS_FILTER: &str =
    "/static_resources/listeners/1/filter_chains/0/filters/0/typed_config/http_filters/0";
const ADMIN_PORT: &str = "/admin/address/socket_address";
const CLUSTERS: &str = "/static_resources/clusters";
const CONNECTION_MANAGER: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const HTTP_FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
const VIRTUAL_HOST: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                            /route_config/virtual_hosts/0";
const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                      /route_config/virtual_hosts/0/routes";
const FILTER_NAME: &str = "paceline";
const PLUGIN: &str = "/typed_config/config";
const SHOWS_BODIES: &str = "allow_on_headers_stop_iteration";
const FILTER_MODULE: &str = "/typed_config/config/vm_config/code/local/filename";
const FILTER_CONFIG: &str = "/typed_config/config/configuration/value";
const ENDPOINTS_SOURCE: &str =
    "/static_resources/clusters/0/eds_cluster_config/eds_config/path_config_source";

/// Envoy's bootstrap as JSON, which Envoy reads as well as YAML.
#[derive(Debug, Clone)]
pub(super) struct Bootstrap {
    value: Value,
}

/// A bootstrap with everything filled in.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    value: Value,
    /// The file of the listeners, if they are to be read from one.
    pub(super) listeners: Option<String>,
    /// The file of the endpoints, if they are to be read from one.
    pub(super) endpoints: Option<String>,
}

/// Where Envoy is to listen; port 0 lets the system choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sockets {
    /// For clients.
    pub(super) listener: SocketAddr,
    /// For the admin interface.
    pub(super) admin: SocketAddr,
}

impl Bootstrap {
    /// The shipped configuration for such a topology.
    pub(super) fn shipped(topology: &Topology) -> Result<Self, GatewayError> {
        let text = match topology.endpoints {
            true => SHIPPED_ENDPOINTS,
            false => SHIPPED,
        };
        Ok(Self {
            value: serde_saphyr::from_str(text)?,
        })
    }

    /// The configuration for a topology.
    pub(super) fn render(
        mut self,
        topology: &Topology,
        sockets: Sockets,
    ) -> Result<Rendered, GatewayError> {
        if topology.upstreams.is_empty() {
            return Err(GatewayError::NoUpstreams);
        }
        *self.at(ADMIN_PORT)? = socket_address(sockets.admin);
        *self.at(LISTENER_PORT)? = socket_address(sockets.listener);
        // A line for each request is no part of what is measured.
        let manager = self.at(CONNECTION_MANAGER)?.as_object_mut();
        manager.and_then(|manager| manager.remove("access_log"));
        self.set_filter(topology)?;
        self.set_routes(topology)?;
        self.set_status(topology, sockets.listener)?;
        let endpoints = if topology.endpoints {
            self.watch_endpoints(&topology.balancing)?;
            Some(endpoints(&topology.upstreams)?)
        } else {
            self.set_clusters(topology)?;
            None
        };
        if let Some(other) = &topology.other {
            self.add_other(other)?;
        }
        for (place, value) in &topology.amendments {
            self.amend(place, value)?;
        }
        let listeners = if topology.reloadable {
            Some(self.take_listeners()?)
        } else {
            None
        };
        Ok(Rendered {
            value: self.value,
            listeners,
            endpoints,
        })
    }

    fn set_filter(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        let filters = self.list(HTTP_FILTERS)?;
        let position = filters
            .iter()
            .position(|filter| filter.get("name").is_some_and(|name| name == FILTER_NAME))
            .ok_or_else(|| GatewayError::template(HTTP_FILTERS, "no filter `paceline`"))?;
        let Balancing::Filter { module, config } = &topology.balancing else {
            filters.remove(position);
            return Ok(());
        };
        let place = format!("{HTTP_FILTERS}/{position}");
        if !topology.shows_bodies {
            set(
                self.at(&format!("{place}{PLUGIN}"))?,
                SHOWS_BODIES,
                json!(false),
            );
        }
        *self.at(&format!("{place}{FILTER_MODULE}"))? = json!(module);
        *self.at(&format!("{place}{FILTER_CONFIG}"))? = json!(config);
        Ok(())
    }

    /// Envoy's own balancing is the fallback route alone.
    fn set_routes(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        let host = self.at(VIRTUAL_HOST)?.as_object_mut();
        let policy = host.and_then(|host| match topology.retries {
            true => host.get("retry_policy").cloned(),
            false => host.remove("retry_policy"),
        });
        if policy.is_none() {
            return Err(GatewayError::template(VIRTUAL_HOST, "no retry_policy"));
        }
        let routes = self.list(ROUTES)?;
        if !topology.balancing.is_by_header() {
            routes.retain(|route| route.pointer("/route/cluster_header").is_none());
        }
        for action in routes.iter_mut().filter_map(|route| route.get_mut("route")) {
            if let Some(timeout) = topology.request_timeout {
                set(action, "timeout", json!(seconds(timeout)));
            }
        }
        Ok(())
    }

    /// The listener for the state, or none.
    fn set_status(&mut self, topology: &Topology, near: SocketAddr) -> Result<(), GatewayError> {
        let Balancing::Filter { module, config } = &topology.balancing else {
            self.list(LISTENERS)?.truncate(1);
            return Ok(());
        };
        if !topology.status {
            self.list(LISTENERS)?.truncate(1);
            return Ok(());
        }
        // What is not JSON the filter refuses.
        let mut config: Value = serde_json::from_str(config).unwrap_or_default();
        set(&mut config, "status", json!({ "path": "/paceline" }));
        *self.at(STATUS_PORT)? = socket_address(SocketAddr::new(near.ip(), 0));
        *self.at(&format!("{STATUS_FILTER}{FILTER_MODULE}"))? = json!(module);
        *self.at(&format!("{STATUS_FILTER}{FILTER_CONFIG}"))? = json!(config.to_string());
        Ok(())
    }

    /// Moves the listeners out, into what Envoy reads from a watched file.
    fn take_listeners(&mut self) -> Result<String, GatewayError> {
        let mut resources = std::mem::take(self.list(LISTENERS)?);
        for listener in &mut resources {
            set(
                listener,
                "@type",
                json!("type.googleapis.com/envoy.config.listener.v3.Listener"),
            );
        }
        to_text(&json!({ "resources": resources }))
    }

    fn amend(&mut self, place: &str, value: &Value) -> Result<(), GatewayError> {
        let missing = || GatewayError::template(place, "is missing");
        let (parent, last) = place.rsplit_once('/').ok_or_else(missing)?;
        match self.at(parent)? {
            Value::Object(fields) if value.is_null() => {
                fields.remove(last).ok_or_else(missing)?;
            }
            Value::Object(fields) => {
                fields.insert(last.to_owned(), value.clone());
            }
            Value::Array(items) if last == "-" => items.push(value.clone()),
            Value::Array(items) => {
                let index: usize = last.parse().map_err(|_| missing())?;
                match value {
                    Value::Null if index < items.len() => {
                        items.remove(index);
                    }
                    value if index <= items.len() && !value.is_null() => {
                        items.insert(index, value.clone());
                    }
                    _ => return Err(missing()),
                }
            }
            _ => return Err(missing()),
        }
        Ok(())
    }

    fn at(&mut self, pointer: &str) -> Result<&mut Value, GatewayError> {
        self.value
            .pointer_mut(pointer)
            .ok_or_else(|| GatewayError::template(pointer, "is missing"))
    }

    fn list(&mut self, pointer: &str) -> Result<&mut Vec<Value>, GatewayError> {
        self.at(pointer)?
            .as_array_mut()
            .ok_or_else(|| GatewayError::template(pointer, "is not a list"))
    }
}

impl Rendered {
    /// The bootstrap's text. `directory` is where the file of the listeners
    /// lies, if there is one.
    pub(super) fn to_json(&self, directory: &Path) -> Result<String, GatewayError> {
        let mut value = self.value.clone();
        if self.listeners.is_some() || self.endpoints.is_some() {
            // Envoy insists on a name for itself where anything is dynamic.
            set(
                &mut value,
                "node",
                json!({ "id": "gateway", "cluster": "gateway" }),
            );
        }
        if self.endpoints.is_some()
            && let Some(source) = value.pointer_mut(ENDPOINTS_SOURCE)
        {
            set(source, "path", json!(directory.join(ENDPOINTS_FILE)));
        }
        if self.listeners.is_some() {
            let source = json!({
                "resource_api_version": "V3",
                "path_config_source": { "path": directory.join(LISTENERS_FILE) },
            });
            set(
                &mut value,
                "dynamic_resources",
                json!({ "lds_config": source }),
            );
        }
        to_text(&value)
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "address": address.ip(), "port_value": address.port() })
}

/// Sets a field of a JSON object.
fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// A duration as protobuf's JSON form has it.
fn seconds(duration: Duration) -> String {
    format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos())
}

fn to_text(value: &Value) -> Result<String, GatewayError> {
    serde_json::to_string_pretty(value).map_err(|error| GatewayError::File {
        path: "envoy.json".into(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests;
