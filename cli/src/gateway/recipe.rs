//! What a gateway is made of.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::server::Server;
use crate::failure::Failure;

/// All that decides about the written files. A directory of dynamic files keeps it,
/// so that servers can be added and removed later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Envoy's admin interface.
    pub(crate) admin: SocketAddr,
    /// Where the filter tells its state; `None` is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<SocketAddr>,
    /// Where Envoy finds the filter.
    pub(crate) filter: String,
    /// Where Envoy finds the certificates of those who sign servers' certificates.
    pub(crate) ca_file: String,
    /// The header in which clients name the model, for servers with models; `None`
    /// where the JSON body names it.
    pub(crate) model_header: Option<String>,
    /// The servers.
    pub(crate) targets: Targets,
    /// The filter's configuration as the user gives it, perhaps without upstreams.
    pub(crate) config: Map<String, Value>,
}

/// What requests can be sent to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Targets {
    /// At least one; with models all of them, without none.
    Servers(Vec<Named>),
    /// A name whose addresses are the servers.
    Endpoints(Server),
}

/// A server with the name that Paceline picks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// The cluster, unique in the gateway.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) url: Server,
    /// The model that it serves, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
}

impl Recipe {
    /// Where clients connect unless they are told otherwise.
    pub(crate) const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10_000);
    /// Where the admin interface listens: on loopback, because whoever reaches it can
    /// stop Envoy.
    pub(crate) const ADMIN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

    /// Where the state is told: on loopback, because nobody is asked for a password.
    pub(crate) const STATUS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9902);

    /// The servers by name.
    pub(crate) fn servers(&self) -> &[Named] {
        match &self.targets {
            Targets::Servers(servers) => servers,
            Targets::Endpoints(_) => &[],
        }
    }
}

/// Gives servers their names: those that the user gave, and else the shortest of the
/// host's first label, the host, and host and port that tells them from each other
/// and from `taken` ones. Dots and colons become dashes.
pub(crate) fn name_all(
    given: &[(Option<String>, Server, Option<String>)],
    taken: &[Named],
) -> Result<Vec<Named>, Failure> {
    let mut names: BTreeSet<String> = taken.iter().map(|it| it.name.clone()).collect();
    for (name, server, _) in given {
        let Some(name) = name else { continue };
        if !is_name(name) {
            return Err(Failure::usage(format!(
                "{name}={server}: the name {name:?} is not allowed; give 1 to 100 letters, digits, dots, dashes and underscores"
            )));
        }
        if !names.insert(name.clone()) {
            return Err(Failure::usage(format!(
                "{name}={server}: another server has the name {name}; give each its own"
            )));
        }
    }
    let mut places: Vec<&Server> = taken.iter().map(|it| &it.url).collect();
    for (_, server, model) in given {
        if places.contains(&server) {
            let hint = match model {
                Some(_) => {
                    "; for servers with several models use --config with pools that share upstreams"
                }
                None => "",
            };
            return Err(Failure::usage(format!("{server} is given twice{hint}")));
        }
        places.push(server);
    }

    let unnamed = || given.iter().filter(|(name, ..)| name.is_none());
    let fits = |level: usize| {
        let mut names = names.clone();
        unnamed().all(|(_, server, _)| names.insert(candidate(server, level)))
    };
    let level = (0..3).find(|level| fits(*level)).ok_or_else(|| {
        let all: Vec<_> = unnamed().map(|(_, server, _)| server.to_string()).collect();
        Failure::usage(format!(
            "{}: no names tell these servers apart; give them some, as in gpu-a={}",
            all.join(", "),
            all.first().map_or("", String::as_str)
        ))
    });
    let level = if unnamed().next().is_some() {
        level?
    } else {
        0
    };
    let named = given.iter().map(|(name, server, model)| Named {
        name: name.clone().unwrap_or_else(|| candidate(server, level)),
        url: server.clone(),
        model: model.clone(),
    });
    Ok(named.collect())
}

/// A name for a server: 0 is the shortest, 2 the most precise.
fn candidate(server: &Server, level: usize) -> String {
    let dashed = |text: &str| text.replace(['.', ':'], "-").trim_matches('-').to_owned();
    match level {
        0 if !server.is_address() => {
            let label = server.host.split('.').next().unwrap_or_default();
            label.to_owned()
        }
        0 | 1 => dashed(&server.host),
        _ => format!("{}-{}", dashed(&server.host), server.port),
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=100).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(urls: &[&str], taken: &[&str]) -> Result<Vec<String>, String> {
        let given = |text: &&str| {
            let (name, url) = super::super::split_name(text);
            (name.map(str::to_owned), Server::parse(url).unwrap(), None)
        };
        let taken: Vec<_> = taken.iter().map(given).collect();
        let taken = name_all(&taken, &[]).unwrap();
        let given: Vec<_> = urls.iter().map(given).collect();
        let named = name_all(&given, &taken).map_err(|failure| failure.to_string())?;
        Ok(named.into_iter().map(|it| it.name).collect())
    }

    #[test]
    fn servers_get_the_shortest_names_that_tell_them_apart() {
        for (urls, expected) in [
            (["http://gpu-a.models.svc:1", "gpu-b:1"], ["gpu-a", "gpu-b"]),
            (["gpu-0.a:1", "gpu-0.b:1"], ["gpu-0-a", "gpu-0-b"]),
            (
                ["127.0.0.1:1", "127.0.0.1:2"],
                ["127-0-0-1-1", "127-0-0-1-2"],
            ),
            (["[fd00::1]:1", "10.0.0.1:1"], ["fd00--1", "10-0-0-1"]),
            (["x=gpu-a:1", "gpu-a:2"], ["x", "gpu-a"]),
        ] {
            assert_eq!(names(&urls, &[]).unwrap(), expected);
        }
        assert_eq!(names(&["gpu-a.y:1"], &["gpu-a.x:1"]).unwrap(), ["gpu-a-y"]);
    }

    #[test]
    fn what_is_not_one_of_a_kind_is_refused() {
        for (urls, why) in [
            (
                ["gpu-a:1", "http://gpu-a:1/"],
                "http://gpu-a:1 is given twice",
            ),
            (["x=gpu-a:1", "x=gpu-b:1"], "another server has the name x"),
            (
                ["x y=gpu-a:1", "gpu-b:1"],
                "the name \"x y\" is not allowed",
            ),
            (["http://a.b:1", "http://a-b.c:1"], ""),
        ] {
            match names(&urls, &[]) {
                Err(said) => assert!(!why.is_empty() && said.contains(why), "{said}"),
                Ok(names) => assert!(why.is_empty(), "{names:?}"),
            }
        }
        let same = names(
            &["a.b:1", "a-b:1", "a-b-1:2"],
            &["a=x:1", "a-b=y:1", "a-b-1=z:1"],
        );
        assert!(same.unwrap_err().contains("give them some"));
    }
}
