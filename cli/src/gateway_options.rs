//! The options that say what a gateway is made of.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::files;
use crate::gateway::{Named, Recipe, Server, Targets, name_all, split_name};

/// The servers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerOptions {
    /// A model server: http://gpu-a:8000, or with a name of its own gpu-a=http://10.0.0.1:8000
    ///
    /// Several with commas or by repeating the option. Without a scheme it is http; https servers are asked by their own name.
    /// The name is what Paceline picks and metrics show; without one it is made of the host.
    #[arg(long = "server", value_name = "[NAME=]URL,...")]
    pub(crate) servers: Vec<String>,

    /// A server of one of several models: llama=http://gpu-a:8000, or llama=gpu-a=http://10.0.0.1:8000
    ///
    /// Each model gets a pool, and a fallback route of its own.
    #[arg(
        long = "model",
        value_name = "MODEL=[NAME=]URL,...",
        conflicts_with = "servers"
    )]
    pub(crate) models: Vec<String>,

    /// One cluster whose endpoints are the servers: a DNS name, such as that of a headless Service, and a port
    #[arg(long, value_name = "dns:NAME:PORT", conflicts_with_all = ["servers", "models"])]
    pub(crate) endpoints: Option<String>,
}

/// What else there is to say.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GatewayOptions {
    /// The filter's configuration as JSON; what it does not say of upstreams, the servers say
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// With --model: the header in which clients name the model; without this option their JSON body does
    #[arg(long, value_name = "HEADER")]
    pub(crate) model_header: Option<String>,

    /// Where the filter tells its state, as a page and as JSON; nobody is asked for a password [default: 127.0.0.1:9902]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "no_status")]
    pub(crate) status: Option<SocketAddr>,

    /// Tell the filter's state nowhere
    #[arg(long)]
    pub(crate) no_status: bool,

    /// For https servers: where Envoy finds the certificates of those who sign theirs
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<String>,
}

/// Where Debian's and Ubuntu's certificates are, and those in Envoy's images.
const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

impl ServerOptions {
    pub(crate) fn are_given(&self) -> bool {
        !(self.servers.is_empty() && self.models.is_empty() && self.endpoints.is_none())
    }

    /// What requests can be sent to.
    pub(crate) fn targets(&self) -> Result<Targets, Failure> {
        if let Some(text) = &self.endpoints {
            return Ok(Targets::Endpoints(endpoints(text)?));
        }
        let mut given = Vec::new();
        for text in &self.servers {
            given.extend(servers("--server", text, None)?);
        }
        for text in &self.models {
            given.extend(servers_of_model("--model", text)?);
        }
        if given.is_empty() {
            return Err(Failure::usage(
                "no servers: give --server, --model or --endpoints; see --help",
            ));
        }
        Ok(Targets::Servers(name_all(&given, &[])?))
    }
}

impl GatewayOptions {
    /// The filter's configuration, empty unless given.
    pub(crate) fn configuration(&self) -> Result<Map<String, Value>, Failure> {
        match &self.config {
            Some(path) => configuration(path),
            None => Ok(Map::new()),
        }
    }

    /// The whole recipe.
    pub(crate) fn recipe(
        &self,
        targets: Targets,
        listen: SocketAddr,
        admin: SocketAddr,
        filter: String,
    ) -> Result<Recipe, Failure> {
        let of_models = match &targets {
            Targets::Servers(servers) => servers.iter().any(|it| it.model.is_some()),
            Targets::Endpoints(_) => false,
        };
        if self.model_header.is_some() && !of_models {
            return Err(Failure::usage("--model-header: needs --model"));
        }
        Ok(Recipe {
            listen,
            admin,
            status: match self.no_status {
                true => None,
                false => Some(self.status.unwrap_or(Recipe::STATUS)),
            },
            filter,
            ca_file: self.ca_file.clone().unwrap_or_else(|| CA_FILE.to_owned()),
            model_header: self.model_header.as_ref().map(|it| it.to_ascii_lowercase()),
            targets,
            config: self.configuration()?,
        })
    }
}

/// Servers that are added to others: with models where the others have some.
pub(crate) fn added(texts: &[String], others: &[Named]) -> Result<Vec<Named>, Failure> {
    let of_models = others.iter().any(|it| it.model.is_some());
    let mut given = Vec::new();
    for text in texts {
        given.extend(match of_models {
            true => servers_of_model("--add", text)?,
            false => servers("--add", text, None)?,
        });
    }
    name_all(&given, others)
}

/// A server before it has a name: the name that is given, the server, its model.
type Given = (Option<String>, Server, Option<String>);

fn servers(option: &str, text: &str, model: Option<&str>) -> Result<Vec<Given>, Failure> {
    let server = |part: &str| {
        let (name, url) = split_name(part);
        let server = Server::parse(url)
            .map_err(|why| Failure::usage(format!("{option} {text}: {url:?}: {why}")))?;
        Ok((name.map(str::to_owned), server, model.map(str::to_owned)))
    };
    text.split(',').map(server).collect()
}

fn servers_of_model(option: &str, text: &str) -> Result<Vec<Given>, Failure> {
    match text.split_once('=') {
        Some((model, rest)) if !model.is_empty() => servers(option, rest, Some(model)),
        _ => Err(Failure::usage(format!(
            "{option} {text}: no model; write {option} MODEL={text}"
        ))),
    }
}

fn endpoints(text: &str) -> Result<Server, Failure> {
    let refuse = |why: String| Failure::usage(format!("--endpoints {text}: {why}"));
    let Some(place) = text.strip_prefix("dns:") else {
        return Err(refuse(
            "write dns:NAME:PORT, such as dns:gpus.models.svc.cluster.local:8000".to_owned(),
        ));
    };
    if place.contains("://") {
        return Err(refuse(
            "a URL is not allowed; write dns:NAME:PORT".to_owned(),
        ));
    }
    if !place.contains(':') {
        return Err(refuse(format!("no port; write dns:{place}:8000")));
    }
    Server::parse(place).map_err(refuse)
}

/// The value of an option for a socket, also as the URL that is printed elsewhere.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let place = text.strip_prefix("http://").unwrap_or(text);
    let place = place.strip_suffix('/').unwrap_or(place);
    place
        .parse()
        .map_err(|_| "give an IP address and a port, such as 127.0.0.1:9901".to_owned())
}

/// Reads a configuration of the filter, as far as it is an object.
fn configuration(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = files::read(path)?;
    let refuse = |why: String| Failure::refused(format!("{}: {why}", path.display()));
    match serde_json::from_str(&text) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(refuse("no JSON object".to_owned())),
        Err(error) => Err(refuse(format!("not valid JSON: {error}"))),
    }
}
