//! `paceline istio`.

use std::io::Write as _;
use std::path::PathBuf;

use minijinja::value::Serde;
use minijinja::{Value as Context, context};
use paceline::config::Config;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::{Exit, Failure};
use crate::files;
use crate::gateway::{Server, Templates, pretty};
use crate::gateway_options::GatewayOptions;
use crate::schema;

/// Write Istio manifests with Paceline for a Service and its subsets.
///
/// Routes by header, the plugin, and what keeps clients from choosing an upstream, for an ingress gateway; istio/README.md explains
/// them. The filter's own code checks its configuration. They are one text with several documents, or with --out a file each.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The Service by its full name, and its port
    #[arg(long, value_name = "NAME.NAMESPACE.svc.DOMAIN:PORT")]
    service: String,

    /// A kind of pods that Paceline tells apart: a name, and the label that they have
    ///
    /// Several with commas or by repeating the option.
    #[arg(
        long = "subset",
        value_name = "NAME=LABEL=VALUE,...",
        value_delimiter = ',',
        required_unless_present = "endpoints"
    )]
    subsets: Vec<String>,

    /// Balance single pods, which come and go, in place of subsets
    #[arg(long, conflicts_with_all = ["subsets", "retries"])]
    endpoints: bool,

    /// The host that clients ask for
    #[arg(long, value_name = "HOST")]
    host: String,

    /// The image of the filter with its digest, as `make image` prints it
    #[arg(long, value_name = "URL", default_value = IMAGE)]
    image: String,

    /// Also let retries go to the next subset, which takes an EnvoyFilter
    #[arg(long)]
    retries: bool,

    /// The label of the gateway's pods
    #[arg(
        long,
        value_name = "LABEL=VALUE",
        default_value = "istio=ingressgateway"
    )]
    gateway: String,

    /// The namespace of the gateway's pods
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    gateway_namespace: String,

    /// The filter's configuration as JSON, without upstreams
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Write a file for each manifest into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  paceline istio --service llama.models.svc.cluster.local:8000 --host llama.example.com \\
    --subset h100=hardware=h100 --subset l4=hardware=l4 --retries --out manifests
  paceline istio --service llama.models.svc.cluster.local:8000 --host llama.example.com --endpoints";

/// A placeholder that no registry has.
const IMAGE: &str = "oci://registry.example.com/paceline@sha256:\
                     0000000000000000000000000000000000000000000000000000000000000000";

/// How many other subsets stand by for the retries of one.
const OTHERS: usize = 2;

/// The manifests, each with its template.
const TEMPLATES: [(&str, &str); 8] = [
    (
        "destinationrule",
        include_str!("../templates/istio/destinationrule"),
    ),
    ("gateway", include_str!("../templates/istio/gateway")),
    (
        "virtualservice",
        include_str!("../templates/istio/virtualservice"),
    ),
    (
        "envoyfilter-strip-header",
        include_str!("../templates/istio/envoyfilter-strip-header"),
    ),
    (
        "envoyfilter-retries",
        include_str!("../templates/istio/envoyfilter-retries"),
    ),
    (
        "wasmplugin-gateway",
        include_str!("../templates/istio/wasmplugin-gateway"),
    ),
    (
        "envoyfilter-endpoints",
        include_str!("../templates/istio/envoyfilter-endpoints"),
    ),
    (
        "wasmplugin-endpoints",
        include_str!("../templates/istio/wasmplugin-endpoints"),
    ),
];

/// A subset of the Service.
#[derive(Debug, Serialize)]
struct Subset {
    name: String,
    key: String,
    value: String,
    /// The subsets of an attempt each.
    tries: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let values = args.values()?;
    // In the order in which they are to be applied: routes before the plugin.
    let names: &[&str] = match (args.endpoints, args.retries) {
        (true, _) => &[
            "gateway",
            "virtualservice",
            "envoyfilter-endpoints",
            "wasmplugin-endpoints",
        ],
        (false, false) => &[
            "destinationrule",
            "gateway",
            "virtualservice",
            "envoyfilter-strip-header",
            "wasmplugin-gateway",
        ],
        (false, true) => &[
            "destinationrule",
            "gateway",
            "virtualservice",
            "envoyfilter-strip-header",
            "envoyfilter-retries",
            "wasmplugin-gateway",
        ],
    };
    let templates = Templates::new(&TEMPLATES)?;
    let mut all = Vec::new();
    for name in names {
        all.push((name, templates.render(name, values.clone())?));
    }
    if let Some(directory) = &args.out {
        files::make_directory(directory)?;
        for (name, text) in &all {
            let path = directory.join(format!("{name}.yaml"));
            files::write(&path, text)?;
            println!("{}", path.display());
        }
        return Ok(());
    }
    let texts: Vec<_> = all.into_iter().map(|(_, text)| text).collect();
    std::io::stdout()
        .write_all(texts.join("---\n").as_bytes())
        .map_err(|error| Failure::new(Exit::NoOutput, format_args!("standard output: {error}")))
}

impl Args {
    /// What the templates need to know.
    fn values(&self) -> Result<Context, Failure> {
        let refuse = |why: String| Failure::usage(format!("--service {}: {why}", self.service));
        let service = Server::parse(&self.service).map_err(refuse)?;
        let mut labels = service.host.split('.');
        let (Some(name), Some(namespace), Some("svc")) =
            (labels.next(), labels.next(), labels.next())
        else {
            return Err(refuse(
                "write NAME.NAMESPACE.svc.DOMAIN:PORT, such as llama.models.svc.cluster.local:8000"
                    .to_owned(),
            ));
        };
        let Some((key, value)) = self.gateway.split_once('=') else {
            return Err(Failure::usage(format!(
                "--gateway {}: write LABEL=VALUE",
                self.gateway
            )));
        };
        for (option, text) in [
            ("--host", &self.host),
            ("--gateway-namespace", &self.gateway_namespace),
        ] {
            if Server::parse(&format!("{text}:1")).is_err() {
                return Err(Failure::usage(format!("{option} {text}: is no host name")));
            }
        }
        if !self.image.bytes().all(|byte| byte.is_ascii_graphic()) || self.image.contains('#') {
            return Err(Failure::usage(format!("--image {}: is no URL", self.image)));
        }
        let subsets = self.subsets()?;
        let own = match &self.config {
            Some(_) => self.own_configuration()?,
            None => Map::new(),
        };
        let config = self.complete(&own, name, &subsets, &service)?;
        let is_of_pool = |key: &String| schema::pool_keys().contains(key);
        let entries = |of_pool: bool| -> Vec<String> {
            let entries = own.iter().filter(|(key, _)| is_of_pool(key) == of_pool);
            entries
                .map(|(key, value)| format!("{key}: {value}"))
                .collect()
        };
        Ok(context! {
            service => &service.host,
            port => service.port,
            name,
            namespace,
            host => &self.host,
            image => &self.image,
            selector => context! { key, value },
            gateway_namespace => &self.gateway_namespace,
            route_header => config.route_header,
            endpoint_header => config.endpoint_header,
            subsets => Context::from(Serde(&subsets)),
            top_entries => entries(false),
            pool_entries => entries(true),
        })
    }

    fn own_configuration(&self) -> Result<Map<String, Value>, Failure> {
        let options = GatewayOptions {
            config: self.config.clone(),
            model_header: None,
            status: None,
            no_status: false,
            ca_file: None,
        };
        let own = options.configuration()?;
        match ["pools", "upstreams", "cluster", "endpoints"]
            .iter()
            .find(|key| own.contains_key(**key))
        {
            Some(key) => Err(Failure::usage(format!(
                "--config: {key}: the subsets are the upstreams; leave it out"
            ))),
            None => Ok(own),
        }
    }

    /// What the plugin is configured with, read by the filter.
    fn complete(
        &self,
        own: &Map<String, Value>,
        name: &str,
        subsets: &[Subset],
        service: &Server,
    ) -> Result<Config, Failure> {
        let (mut top, mut pool) = (Map::new(), Map::new());
        for (key, value) in own {
            let part = if schema::pool_keys().contains(key) {
                &mut pool
            } else {
                &mut top
            };
            part.insert(key.clone(), value.clone());
        }
        pool.insert("name".to_owned(), json!(name));
        pool.insert("match".to_owned(), json!({ "host": self.host }));
        if self.endpoints {
            let cluster = format!("outbound|{}||{}", service.port, service.host);
            pool.insert("cluster".to_owned(), json!(cluster));
        } else {
            let upstreams: Vec<_> = subsets
                .iter()
                .map(|it| json!({ "cluster": it.name }))
                .collect();
            pool.insert("upstreams".to_owned(), json!(upstreams));
        }
        top.insert("pools".to_owned(), json!([pool]));
        let text = pretty(&Value::Object(top));
        Config::parse(Some(text.as_bytes())).map_err(|error| {
            let lines = error.lines().join("\n  ");
            Failure::refused(format!("the filter refuses this configuration:\n  {lines}"))
        })
    }

    fn subsets(&self) -> Result<Vec<Subset>, Failure> {
        let mut parts: Vec<(&str, &str, &str)> = Vec::new();
        for text in &self.subsets {
            let refuse = |why: &str| Failure::usage(format!("--subset {text}: {why}"));
            let mut pieces = text.splitn(3, '=');
            let (Some(name), Some(key), Some(value)) =
                (pieces.next(), pieces.next(), pieces.next())
            else {
                return Err(refuse("write NAME=LABEL=VALUE, such as h100=hardware=h100"));
            };
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(allowed) {
                return Err(refuse(
                    "a subset's name has lower-case letters, digits and dashes",
                ));
            }
            if parts.iter().any(|(other, ..)| *other == name) {
                return Err(refuse("another subset has this name"));
            }
            parts.push((name, key, value));
        }
        let names: Vec<&str> = parts.iter().map(|(name, ..)| *name).collect();
        let tries = |at: usize| {
            let ring = names.iter().cycle().skip(at);
            ring.take(names.len().min(1 + OTHERS))
                .map(|name| (*name).to_owned())
                .collect()
        };
        let subsets = parts
            .iter()
            .enumerate()
            .map(|(at, (name, key, value))| Subset {
                name: (*name).to_owned(),
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                tries: tries(at),
            });
        Ok(subsets.collect())
    }
}
