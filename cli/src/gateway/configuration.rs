//! The filter's configuration: the user's, completed by the servers.

use paceline::config::Config;
use serde_json::{Map, Value, json};

use super::json_text::pretty;
use super::recipe::{Named, Recipe, Targets};
use super::server::Server;
use crate::failure::Failure;
use crate::schema;

/// What says in a configuration what to choose from.
const TARGET_KEYS: [&str; 4] = ["upstreams", "cluster", "endpoints", "pools"];
const ATTEMPTS: &str = "include_attempt_count_in_response";

/// A valid configuration, as text and read.
pub(super) struct Complete {
    pub(super) text: String,
    /// The same, with the state told at a path.
    pub(super) status_text: String,
    pub(super) config: Config,
    /// Whether the pools are those of `--model`.
    pub(super) of_models: bool,
}

/// Puts the servers in, and lets the filter read the whole.
pub(super) fn complete(recipe: &Recipe) -> Result<Complete, Failure> {
    let mut parts = targets(recipe)?;
    let of_models = recipe.servers().iter().any(|it| it.model.is_some());
    for (key, value) in &recipe.config {
        let belongs_to_pools = of_models && schema::pool_keys().contains(key);
        if !belongs_to_pools {
            parts.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if let Targets::Servers(_) = &recipe.targets {
        probe_own_servers(&mut parts);
        let pools = parts.get_mut("pools").and_then(Value::as_array_mut);
        for pool in pools.into_iter().flatten().filter_map(Value::as_object_mut) {
            probe_own_servers(pool);
        }
    }
    // The virtual host sets the header that this asks for.
    parts.entry(ATTEMPTS).or_insert(json!(true));
    let mut status_parts = parts.clone();
    let status = status_parts
        .entry("status")
        .or_insert(json!({ "path": STATUS_PATH }));
    // The listener is there for nothing else: other paths are answered as well, and do
    // not count. A port that the system chooses cannot be named.
    if let (Some(status), Some(address)) = (status.as_object_mut(), recipe.status)
        && address.port() != 0
    {
        status.insert("port".to_owned(), json!(address.port()));
    }
    let status_text = pretty(&Value::Object(status_parts));
    // The listener for clients logs it.
    parts.entry("access_log").or_insert(json!(true));
    let text = pretty(&Value::Object(parts));
    let config = Config::parse(Some(text.as_bytes())).map_err(|error| {
        let lines = error.lines().join("\n  ");
        Failure::refused(format!("the filter refuses this configuration:\n  {lines}"))
    })?;
    Ok(Complete {
        text,
        status_text,
        config,
        of_models,
    })
}

/// Lets health checks ask a server's own cluster unless they name another: behind the
/// aggregate that Paceline picks, another server might answer.
fn probe_own_servers(pool: &mut Map<String, Value>) {
    let Some(check) = pool.get_mut("health_check") else {
        return;
    };
    if check.is_string() {
        *check = json!({ "preset": check.take() });
    }
    if let Some(check) = check.as_object_mut() {
        check
            .entry("cluster_suffix")
            .or_insert(json!(SERVERS_SUFFIX));
    }
}

/// What the name of a server's own cluster has beyond the aggregate's.
pub(super) const SERVERS_SUFFIX: &str = "-servers";

/// The entries that say what to choose from: none where the user's do.
fn targets(recipe: &Recipe) -> Result<Map<String, Value>, Failure> {
    let given = TARGET_KEYS
        .iter()
        .find(|key| recipe.config.contains_key(**key));
    let entries = match (&recipe.targets, given) {
        (Targets::Endpoints(_), Some(&"cluster" | &"endpoints")) => json!({}),
        (Targets::Endpoints(_), Some(key)) => {
            return Err(Failure::usage(format!(
                "--config: {key}: --endpoints balances one cluster's endpoints; give cluster, or leave it out"
            )));
        }
        (Targets::Endpoints(server), None) => json!({ "cluster": cluster_of(server) }),
        (Targets::Servers(servers), given) => {
            let of_models = servers.iter().any(|it| it.model.is_some());
            match given {
                Some(key) if of_models => {
                    return Err(Failure::usage(format!(
                        "--config: {key}: --model makes the pools; give servers with --server, or leave {key} out"
                    )));
                }
                Some(_) => json!({}),
                None if of_models => pools_of_models(recipe, servers),
                None => {
                    let names = servers.iter().map(|it| json!({ "cluster": it.name }));
                    json!({ "upstreams": names.collect::<Vec<_>>() })
                }
            }
        }
    };
    match entries {
        Value::Object(entries) => Ok(entries),
        _ => Ok(Map::new()),
    }
}

/// A pool for each model, each with what the user says of pools.
fn pools_of_models(recipe: &Recipe, servers: &[Named]) -> Value {
    let mut pools: Vec<Value> = Vec::new();
    for model in models(servers) {
        let own = servers
            .iter()
            .filter(|it| it.model.as_deref() == Some(model));
        let upstreams: Vec<_> = own.map(|it| json!({ "cluster": it.name })).collect();
        let mut pool = Map::new();
        pool.insert("name".to_owned(), json!(model));
        pool.insert("match".to_owned(), json!({ "model": model }));
        for (key, value) in &recipe.config {
            if schema::pool_keys().contains(key) {
                pool.insert(key.clone(), value.clone());
            }
        }
        pool.insert("upstreams".to_owned(), json!(upstreams));
        pools.push(Value::Object(pool));
    }
    let header = recipe.model_header.as_deref().unwrap_or(MODEL_HEADER);
    json!({ "model": { "header": header }, "pools": pools })
}

/// Where the state is told, on a listener of its own.
pub(super) const STATUS_PATH: &str = "/paceline";

/// The header that carries a model's name to the routes.
pub(super) const MODEL_HEADER: &str = "x-model";

/// The models in the order in which they are first named.
fn models(servers: &[Named]) -> Vec<&str> {
    let mut models = Vec::new();
    for model in servers.iter().filter_map(|it| it.model.as_deref()) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

/// What to call the cluster of a name's addresses.
fn cluster_of(server: &Server) -> &str {
    if server.is_address() {
        return "gpus";
    }
    server.host.split('.').next().unwrap_or("gpus")
}
