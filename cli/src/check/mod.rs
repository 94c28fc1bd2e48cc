//! `paceline check`.

mod advice;
mod clusters;
mod envoy;
mod files;
mod istio;
mod kubernetes;
mod manager;
mod source;

use std::path::PathBuf;

use serde_json::Value;

use paceline::config::Config;

use crate::failure::Failure;

/// Check configurations of the filter, of Envoy and of Istio.
///
/// Reads a configuration as JSON, as the filter itself would; Envoy's own YAML or JSON, which is a bootstrap
/// with the files that it names by path, or files of listeners, clusters and extensions; and Kubernetes
/// manifests with plugins of Istio in them. Upstreams are compared with the clusters that are there, in manifests with the routes and
/// subsets. Warnings say what works, but perhaps not as intended; they are no failure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A configuration of the filter, and where it was found.
#[derive(Debug)]
struct Plugin {
    /// What to call it: the file, and the place in it.
    place: String,
    /// The configuration's text, or why it has none.
    configuration: Result<String, String>,
    /// Whether the proxy shows bodies to the filter; `None` where that is not known.
    shows_bodies: Option<bool>,
    /// The connection manager that the filter is in, where it is known.
    manager: Option<Value>,
    /// The port of the listener that it is in, where that is known.
    port: Option<u64>,
    /// What is odd about how the proxy is to run it.
    warnings: Vec<String>,
}

/// What is said about one place.
#[derive(Debug)]
enum Finding {
    /// The filter or Envoy would refuse it, or requests would fail.
    Refused(String),
    /// It works, but perhaps not as intended.
    Warning(String),
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut refused = 0;
    let mut tell = |place: &str, findings: Vec<Finding>| {
        for finding in findings {
            match finding {
                Finding::Refused(why) => {
                    println!("{place}: refused: {why}");
                    refused += 1;
                }
                Finding::Warning(what) => println!("{place}: warning: {what}"),
            }
        }
    };
    let given = files::sort(&args.files)?;
    tell("Istio", given.mesh.findings());
    for plugin in &given.plugins {
        let findings = check(plugin, |config, _| given.mesh.compare(config));
        tell(&plugin.place, findings);
    }
    for envoy in &given.envoys {
        tell(&envoy.name, envoy.findings());
        for plugin in envoy.plugins() {
            let compare = |config: &Config, json: &Value| envoy.clusters.compare(config, json);
            let findings = check(&plugin, compare);
            tell(&plugin.place, findings);
        }
    }
    if refused > 0 {
        return Err(Failure::refused(format!("{refused} refused")));
    }
    Ok(())
}

/// Reads a plugin's configuration; `more` finds what is wrong with a valid one,
/// which it also gets as it was written.
fn check(plugin: &Plugin, more: impl FnOnce(&Config, &Value) -> Vec<Finding>) -> Vec<Finding> {
    let refuse = |lines: Vec<String>| lines.into_iter().map(Finding::Refused).collect();
    let text = match &plugin.configuration {
        Ok(text) => text,
        Err(why) => return refuse(vec![why.clone()]),
    };
    match Config::parse(Some(text.as_bytes())) {
        Ok(config) => {
            let json = serde_json::from_str(text).unwrap_or_default();
            let mut findings = more(&config, &json);
            findings.extend(plugin.warnings.iter().cloned().map(Finding::Warning));
            findings.extend(advice::advice(&config));
            if config.reads_bodies() && plugin.shows_bodies == Some(false) {
                findings.push(Finding::Warning(NO_BODIES.to_owned()));
            }
            if let Some(manager) = &plugin.manager {
                findings.extend(manager::findings(manager, plugin.port, &config));
            }
            let is_refused = |finding: &Finding| matches!(finding, Finding::Refused(_));
            if !findings.iter().any(is_refused) {
                println!("{}: accepted, {}", plugin.place, summary(&config));
            }
            findings
        }
        Err(error) => refuse(error.lines()),
    }
}

const NO_BODIES: &str = "reads bodies, but allow_on_headers_stop_iteration is not set, so the proxy does not show them: \
     models and sizes stay unknown (a WasmPlugin cannot set it; an EnvoyFilter can)";

fn summary(config: &Config) -> String {
    let plural = |count: usize, what: &str| match count {
        1 => format!("{count} {what}"),
        _ => format!("{count} {what}s"),
    };
    let pools = &config.pools;
    let upstreams: usize = pools.iter().map(|pool| pool.upstreams.len()).sum();
    let clusters = pools.iter().filter(|pool| pool.endpoints.is_some()).count();
    let mut parts = vec![plural(pools.len(), "pool")];
    if upstreams > 0 {
        parts.push(plural(upstreams, "upstream"));
    }
    if clusters > 0 {
        parts.push(format!("endpoints of {}", plural(clusters, "cluster")));
    }
    parts.join(", ")
}
