//! The clusters and routes that belong to a configuration of the filter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use paceline::config::{Config, ModelSource, Pool};
use serde::Serialize;

use super::configuration::{self, Complete, MODEL_HEADER, SERVERS_SUFFIX, STATUS_PATH};
use super::fallback::route_match;
use super::recipe::{Recipe, Targets};
use super::scalar::scalar;
use super::server::Server;
use crate::failure::Failure;

/// How many other servers stand by for the retries of one.
const OTHERS: usize = 2;
/// What Envoy buffers of a body, at least: some prompts are long.
const BODY_BUFFER: u32 = 4 * 1024 * 1024;
/// The name of the only pool where the configuration names none.
const ONLY_POOL: &str = "default";

/// What the templates need to know.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Layout {
    listen: Socket,
    admin: Socket,
    status: Option<Socket>,
    status_path: String,
    filter: String,
    ca_file: String,
    /// The filter's configuration as text.
    config: String,
    /// Whether a line is logged for each request.
    access_log: bool,
    /// The same with the status.
    status_config: String,
    route_header: String,
    endpoint_header: String,
    /// What clients must not send.
    removed_headers: Vec<String>,
    body_buffer_limit: u32,
    /// The cluster of endpoints, in place of all that follows.
    endpoints: Option<EndpointsCluster>,
    /// Whether the pools are models.
    models: bool,
    model_header: String,
    /// Whether Envoy copies the model from the body into that header.
    model_in_body: bool,
    several_pools: bool,
    /// Whether servers are asked by their own host name.
    host_rewrite: bool,
    upstreams: Vec<Upstream>,
    pools: Vec<PoolCluster>,
    fallbacks: Vec<Fallback>,
    /// The answer to requests that no pool takes.
    nowhere: Option<Nowhere>,
    /// How an upstream is called in metrics, for a comment.
    example_upstream: String,
}

#[derive(Clone, Debug, Serialize)]
struct Socket {
    address: String,
    port: u16,
}

#[derive(Clone, Debug, Serialize)]
struct EndpointsCluster {
    cluster: String,
    server: Host,
}

#[derive(Clone, Debug, Serialize)]
struct Host {
    host: String,
    port: u16,
    tls: bool,
    is_address: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Upstream {
    /// The aggregate, which Paceline picks.
    name: String,
    /// The server's own cluster.
    servers: String,
    /// The clusters of an attempt each, as YAML.
    tries: Vec<String>,
    server: Host,
}

/// All servers of a pool.
#[derive(Clone, Debug, Serialize)]
struct PoolCluster {
    cluster: String,
    servers: Vec<PoolServer>,
    all_addresses: bool,
    any_tls: bool,
    all_tls: bool,
}

#[derive(Clone, Debug, Serialize)]
struct PoolServer {
    upstream: String,
    server: Host,
}

#[derive(Clone, Debug, Serialize)]
struct Fallback {
    name: String,
    prefix: String,
    headers: Vec<String>,
    cluster: String,
}

#[derive(Clone, Debug, Serialize)]
struct Nowhere {
    name: &'static str,
    says: String,
}

impl Layout {
    /// Lays out what is asked for.
    ///
    /// # Errors
    /// A configuration that the filter refuses, or that does not fit the servers.
    pub(crate) fn of(recipe: &Recipe) -> Result<Self, Failure> {
        let complete = configuration::complete(recipe)?;
        let Complete {
            text,
            status_text,
            config,
            of_models,
            ..
        } = complete;
        let names_models = config.pools.iter().any(|pool| pool.matcher.model.is_some());
        let model_in_body = match &config.model {
            ModelSource::Body => names_models,
            ModelSource::Header(_) => of_models && recipe.model_header.is_none(),
        };
        let model_header = match &config.model {
            ModelSource::Header(header) => header.clone(),
            ModelSource::Body => MODEL_HEADER.to_owned(),
        };
        let mut layout = Self {
            listen: recipe.listen.into(),
            admin: recipe.admin.into(),
            status: recipe.status.map(Socket::from),
            status_path: config
                .status
                .as_ref()
                .map_or_else(|| STATUS_PATH.to_owned(), |it| it.path.clone()),
            filter: recipe.filter.clone(),
            ca_file: recipe.ca_file.clone(),
            config: text,
            access_log: config.access_log,
            status_config: status_text,
            removed_headers: vec![config.route_header.clone(), config.endpoint_header.clone()],
            route_header: config.route_header.clone(),
            endpoint_header: config.endpoint_header.clone(),
            body_buffer_limit: BODY_BUFFER.max(config.request_body.max_bytes),
            endpoints: None,
            models: of_models,
            model_header,
            model_in_body,
            several_pools: config.pools.len() > 1 || of_models,
            host_rewrite: false,
            upstreams: Vec::new(),
            pools: Vec::new(),
            fallbacks: Vec::new(),
            nowhere: None,
            example_upstream: String::new(),
        };
        match &recipe.targets {
            Targets::Endpoints(server) => layout.set_endpoints(&config, server)?,
            Targets::Servers(_) => layout.set_servers(&config, recipe)?,
        }
        Ok(layout)
    }

    /// The same with the clusters that only `other` has.
    pub(crate) fn with_clusters_of(&self, other: &Self) -> Self {
        let mut both = self.clone();
        let names = self.cluster_names();
        let more = other
            .upstreams
            .iter()
            .filter(|it| !names.contains(it.name.as_str()));
        both.upstreams.extend(more.cloned());
        let more = other
            .pools
            .iter()
            .filter(|it| !names.contains(it.cluster.as_str()));
        both.pools.extend(more.cloned());
        both
    }

    /// Whether it has a cluster that `other` has not.
    pub(crate) fn adds_clusters_to(&self, other: &Self) -> bool {
        !self.cluster_names().is_subset(&other.cluster_names())
    }

    fn cluster_names(&self) -> BTreeSet<&str> {
        let upstreams = self.upstreams.iter().map(|it| it.name.as_str());
        let endpoints = self.endpoints.iter().map(|it| it.cluster.as_str());
        let pools = self.pools.iter().map(|it| it.cluster.as_str());
        upstreams.chain(endpoints).chain(pools).collect()
    }

    fn set_endpoints(&mut self, config: &Config, server: &Server) -> Result<(), Failure> {
        let endpoints = config.pools.iter().find_map(|pool| pool.endpoints.as_ref());
        let endpoints = endpoints.ok_or_else(|| Failure::refused("no pool balances endpoints"))?;
        self.host_rewrite = server.tls;
        self.example_upstream = "10.0.0.1:8000".to_owned();
        self.endpoints = Some(EndpointsCluster {
            cluster: endpoints.cluster.clone(),
            server: server.into(),
        });
        Ok(())
    }

    fn set_servers(&mut self, config: &Config, recipe: &Recipe) -> Result<(), Failure> {
        let by_name: BTreeMap<&str, &Server> = recipe
            .servers()
            .iter()
            .map(|it| (it.name.as_str(), &it.url))
            .collect();
        refuse_strangers(config, &by_name)?;
        for (name, server) in in_order(&config.pools, &by_name) {
            let tries = tries(name, &config.pools);
            self.upstreams.push(Upstream {
                name: name.to_owned(),
                servers: servers_of(name),
                tries: tries.iter().map(|name| scalar(&servers_of(name))).collect(),
                server: server.into(),
            });
        }
        for pool in &config.pools {
            let cluster = match pool.name.as_str() {
                ONLY_POOL => "all-gpus".to_owned(),
                name => format!("all-{}", slug(name)),
            };
            let own = pool.upstreams.iter().filter_map(|it| {
                let server = by_name.get(it.cluster.as_str())?;
                Some(PoolServer {
                    upstream: it.cluster.clone(),
                    server: Host::from(*server),
                })
            });
            let servers: Vec<PoolServer> = own.collect();
            let route = route_match(&pool.matcher, &self.model_header);
            self.fallbacks.push(Fallback {
                name: match pool.name.as_str() {
                    ONLY_POOL => "fallback".to_owned(),
                    name => format!("fallback-{}", slug(name)),
                },
                prefix: route.prefix,
                headers: route.headers,
                cluster: cluster.clone(),
            });
            self.pools.push(PoolCluster {
                cluster,
                all_addresses: servers.iter().all(|it| it.server.is_address),
                any_tls: servers.iter().any(|it| it.server.tls),
                all_tls: servers.iter().all(|it| it.server.tls),
                servers,
            });
        }
        if !config.pools.iter().any(|pool| pool.matcher.is_catch_all()) {
            self.nowhere = Some(self.nowhere(config));
        }
        self.host_rewrite = self.upstreams.iter().any(|it| it.server.tls);
        let first = self.upstreams.first();
        self.example_upstream = first.map(|it| it.name.clone()).unwrap_or_default();
        self.refuse_equal_names()
    }

    fn nowhere(&self, config: &Config) -> Nowhere {
        let by_model = config.pools.iter().all(|pool| pool.matcher.model.is_some());
        match (by_model, self.model_in_body) {
            (true, true) => Nowhere {
                name: "unknown-model",
                says: "no such model; name one in the body's model\n".to_owned(),
            },
            (true, false) => Nowhere {
                name: "unknown-model",
                says: format!("no such model; name one in {}\n", self.model_header),
            },
            (false, _) => Nowhere {
                name: "no-pool",
                says: "no pool takes this request\n".to_owned(),
            },
        }
    }

    /// The names of Envoy's clusters are made of those of servers and pools.
    fn refuse_equal_names(&self) -> Result<(), Failure> {
        let own = self.upstreams.iter().flat_map(|it| [&it.name, &it.servers]);
        let mut seen = BTreeSet::new();
        for name in own.chain(self.pools.iter().map(|it| &it.cluster)) {
            if !seen.insert(name) {
                return Err(Failure::usage(format!(
                    "two clusters would be called {name}; give servers or pools other names"
                )));
            }
        }
        Ok(())
    }
}

/// Refuses upstreams without a server, and servers that are nobody's upstream.
fn refuse_strangers(config: &Config, servers: &BTreeMap<&str, &Server>) -> Result<(), Failure> {
    let mut used = BTreeSet::new();
    for pool in &config.pools {
        if pool.endpoints.is_some() {
            return Err(Failure::usage(format!(
                "pool {}: a cluster of endpoints needs --endpoints in place of --server",
                pool.name
            )));
        }
        for upstream in &pool.upstreams {
            let name = upstream.cluster.as_str();
            if !servers.contains_key(name) {
                return Err(Failure::usage(format!(
                    "pool {}: upstream {name:?} has no server; give --server {name}=URL (there are {})",
                    pool.name,
                    servers.keys().copied().collect::<Vec<_>>().join(", ")
                )));
            }
            used.insert(name);
        }
    }
    match servers.keys().find(|name| !used.contains(**name)) {
        Some(name) => Err(Failure::usage(format!(
            "server {name}: no pool of the configuration has it among its upstreams; add it, or leave the server out"
        ))),
        None => Ok(()),
    }
}

/// The servers in the order in which pools name them, each once.
fn in_order<'a>(
    pools: &'a [Pool],
    servers: &BTreeMap<&str, &'a Server>,
) -> Vec<(&'a str, &'a Server)> {
    let mut seen = BTreeSet::new();
    let upstreams = pools.iter().flat_map(|pool| &pool.upstreams);
    upstreams
        .map(|upstream| upstream.cluster.as_str())
        .filter(|name| seen.insert(*name))
        .filter_map(|name| servers.get(name).map(|server| (name, *server)))
        .collect()
}

/// The upstream itself, and the next two of its pool that can serve all that it may
/// be picked for.
fn tries<'a>(name: &'a str, pools: &'a [Pool]) -> Vec<&'a str> {
    let has = |pool: &Pool, name: &str| pool.upstreams.iter().any(|it| it.cluster == name);
    let own: Vec<&Pool> = pools.iter().filter(|pool| has(pool, name)).collect();
    let ring = own.first().map_or(&[][..], |pool| &pool.upstreams);
    let at = ring
        .iter()
        .position(|it| it.cluster == name)
        .unwrap_or_default();
    let others = ring
        .iter()
        .cycle()
        .skip(at + 1)
        .take(ring.len().saturating_sub(1));
    let others = others
        .map(|it| it.cluster.as_str())
        .filter(|other| own.iter().all(|pool| has(pool, other)));
    [name].into_iter().chain(others.take(OTHERS)).collect()
}

fn servers_of(name: &str) -> String {
    format!("{name}{SERVERS_SUFFIX}")
}

/// A pool's name as a part of a cluster's name.
fn slug(name: &str) -> String {
    let allowed = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
    let replaced = |it: char| if allowed(it) { it } else { '-' };
    name.chars().map(replaced).collect()
}

impl From<SocketAddr> for Socket {
    fn from(socket: SocketAddr) -> Self {
        Self {
            address: socket.ip().to_string(),
            port: socket.port(),
        }
    }
}

impl From<&Server> for Host {
    fn from(server: &Server) -> Self {
        Self {
            host: server.host.clone(),
            port: server.port,
            tls: server.tls,
            is_address: server.is_address(),
        }
    }
}
