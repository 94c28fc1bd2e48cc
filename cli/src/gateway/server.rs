//! Where a server listens, as users write it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `http://gpu-a:8000` or `https://gpu-a`, or an address and a port alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Server {
    /// A host name or an IP address, without brackets.
    pub(crate) host: String,
    /// 1 to 65535.
    pub(crate) port: u16,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

impl Server {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme}:// is not allowed; write http:// or https://"
                ));
            }
            None => (None, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(at) = authority.find(['/', '?', '#']) {
            let extra = authority.get(at..).unwrap_or_default();
            return Err(format!(
                "{extra:?} is not allowed: requests keep their own path; write the host and the port alone"
            ));
        }
        if authority.contains('@') {
            return Err("a user is not allowed; write the host and the port alone".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let port = match (port, tls) {
            (Some(port), _) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(format!("port {port:?} is not allowed; give 1 to 65535")),
            },
            (None, Some(tls)) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            (None, None) => return Err(format!("no port; write {host}:8000, or a URL")),
        };
        if host.parse::<IpAddr>().is_err() && !is_host_name(host) {
            return Err(format!(
                "{host:?} is no host; give a host name or an IP address (IPv6 in brackets)"
            ));
        }
        if tls == Some(true) && host.parse::<IpAddr>().is_ok() {
            // Envoy verifies the names of certificates only for names.
            return Err(format!(
                "{host} is an address; write the host name that the server's certificate has"
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            tls: tls.unwrap_or(false),
        })
    }

    /// Whether the host is an IP address.
    pub(crate) fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

/// The host without brackets, and the port if there is one.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err("the bracket before an IPv6 address is not closed".to_owned());
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("{after:?} after the bracket is no port")),
        };
    }
    match authority.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(format!(
            "write the IPv6 address in brackets, as in [{authority}]:8000"
        )),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    // Of digits and dots alone, it was meant to be an address.
    let is_numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let name = host.strip_suffix('.').unwrap_or(host);
    (1..=253).contains(&name.len()) && name.split('.').all(is_label) && !is_numeric
}

/// `NAME=URL` in two; a URL alone has no name.
pub(crate) fn split_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, url)) => (Some(name), url),
        None => (None, text),
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|why| format!("{text}: {why}"))
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_are_servers() {
        for (text, url) in [
            ("http://gpu-a:8000", "http://gpu-a:8000"),
            ("http://gpu-a:8000/", "http://gpu-a:8000"),
            ("http://gpu-a", "http://gpu-a:80"),
            (
                "https://models.example.com",
                "https://models.example.com:443",
            ),
            ("10.0.0.1:8000", "http://10.0.0.1:8000"),
            ("[fd00::1]:8000", "http://[fd00::1]:8000"),
            (
                "gpu_a.models.svc.cluster.local.:1",
                "http://gpu_a.models.svc.cluster.local.:1",
            ),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(server.to_string(), url, "{text}");
            assert_eq!(Server::parse(url), Ok(server), "{text}");
        }
    }

    #[test]
    fn other_texts_are_told_what_is_wrong() {
        for (text, why) in [
            ("gpu-a", "no port; write gpu-a:8000"),
            ("http://gpu-a:0", "port \"0\" is not allowed"),
            ("http://gpu-a:65536", "port \"65536\" is not allowed"),
            ("gpu-a:http", "port \"http\" is not allowed"),
            ("gpu-a:", "port \"\" is not allowed"),
            ("grpc://gpu-a:1", "grpc:// is not allowed"),
            ("http://gpu-a:8000/v1", "\"/v1\" is not allowed"),
            ("http://gpu-a:8000?x", "\"?x\" is not allowed"),
            ("http://me@gpu-a:8000", "a user is not allowed"),
            ("fd00::1:8000", "in brackets"),
            ("[fd00::1", "not closed"),
            ("[fd00::1]8000", "\"8000\" after the bracket"),
            ("http://:8000", "\"\" is no host"),
            ("http://a b:1", "\"a b\" is no host"),
            (
                "https://10.0.0.1:1",
                "10.0.0.1 is an address; write the host name",
            ),
            (
                "https://[fd00::1]",
                "fd00::1 is an address; write the host name",
            ),
            ("http://10.0.0.256:1", "\"10.0.0.256\" is no host"),
            ("", "no port"),
        ] {
            let said = Server::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
