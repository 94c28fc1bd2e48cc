use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;

use super::Form;

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they go.
    pub target: Target,
    /// What they look like.
    pub form: Form,
    /// Headers of each request beyond those of its form, in the order of the requests. Requests beyond the last have none.
    pub headers: Arc<[HeaderMap]>,
    /// Seconds of emulated time in a second of real time, 0.001 to 1000. 1 for servers that are not emulated.
    pub time_scale: f64,
    /// After how long a request is given up, counted from when it was due, in emulated time. More than 0, at most a day.
    pub timeout: Duration,
    /// The part of the requests, 0 to 0.9, that is sent first and not measured.
    pub warm_up: f64,
    /// How many requests may be outstanding; one that is due when there are as many is counted as not sent. At least 1.
    pub max_outstanding: usize,
    /// Whether the measurement has a [`Record`](super::Record) of each request.
    pub keeps_records: bool,
}

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {value} is not allowed, {allowed}")]
pub struct SettingsError {
    setting: &'static str,
    value: String,
    allowed: &'static str,
}

impl Settings {
    /// Settings for servers in real time, with a timeout of 10 minutes, no further headers, a warm-up of a tenth and 4096 outstanding requests.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            form: Form::Infer,
            headers: Arc::default(),
            time_scale: 1.0,
            timeout: Duration::from_secs(600),
            warm_up: 0.1,
            max_outstanding: 4096,
            keeps_records: false,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let error = |setting, value: &dyn fmt::Debug, allowed| {
            Err(SettingsError {
                setting,
                value: format!("{value:?}"),
                allowed,
            })
        };
        if !(0.001..=MAX_TIME_SCALE).contains(&self.time_scale) {
            return error("time scale", &self.time_scale, "0.001 to 1000 is");
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIMEOUT {
            return error(
                "timeout",
                &self.timeout,
                "more than 0s and at most 86400s is",
            );
        }
        if !(0.0..=0.9).contains(&self.warm_up) {
            return error("warm-up", &self.warm_up, "0 to 0.9 is");
        }
        if !(1..=1_000_000).contains(&self.max_outstanding) {
            return error(
                "outstanding requests",
                &self.max_outstanding,
                "1 to 1000000 is",
            );
        }
        Ok(())
    }
}

/// The greatest time scale.
pub const MAX_TIME_SCALE: f64 = 1000.0;

/// The longest timeout.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// An HTTP URL whose host name is resolved.
#[derive(Clone, Debug)]
pub struct Target {
    url: String,
    /// The first address of the host.
    pub(super) address: SocketAddr,
    pub(super) host: HeaderValue,
    /// Where the URL has a path other than `/`; otherwise the form of the requests says.
    pub(super) path: Option<PathAndQuery>,
}

/// The root of the server at that address.
impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let text = address.to_string();
        Self {
            url: format!("http://{text}"),
            address,
            // Digits, dots, colons and brackets: always allowed in a header.
            host: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")),
            path: None,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let error =
            |what: &str| format!("{url:?}: {what}, allowed is a URL such as http://127.0.0.1:8080");
        let uri: Uri = url.parse().map_err(|parse| error(&format!("{parse}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(error("the scheme is not http"));
        }
        let authority = uri.authority().ok_or_else(|| error("no host"))?;
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| error("the host cannot be a header"))?;
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(error("no such port, or a user name")),
        };
        // An IPv6 address stands in brackets, which the resolver does not want.
        let name = authority.host().trim_matches(['[', ']']);
        let address = (name, port)
            .to_socket_addrs()
            .map_err(|resolve| error(&format!("{name} has no address: {resolve}")))?
            .next()
            .ok_or_else(|| error(&format!("{name} has no address")))?;
        Ok(Self {
            url: url.to_owned(),
            address,
            host,
            path: uri.path_and_query().filter(|path| *path != "/").cloned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls() {
        let target: Target = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!(target.address, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!(target.path, None);
        let target: Target = "http://[::1]/generate?x=1".parse().unwrap();
        assert_eq!(target.address.to_string(), "[::1]:80");
        assert_eq!(target.path.unwrap(), "/generate?x=1");
        for (url, wrong) in [
            ("https://127.0.0.1", "the scheme is not http"),
            ("127.0.0.1:80", "the scheme is not http"),
            ("http://127.0.0.1:99999", "no such port"),
            ("http://", "\"http://\""),
        ] {
            let error = url.parse::<Target>().unwrap_err();
            assert!(
                error.contains(wrong) && error.contains("allowed is a URL"),
                "{error}"
            );
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = Settings::new("http://127.0.0.1:1".parse().unwrap());
        assert_eq!(good.check(), Ok(()));
        let bad = Settings {
            time_scale: 0.0,
            ..good.clone()
        };
        assert_eq!(
            bad.check().unwrap_err().to_string(),
            "time scale: 0.0 is not allowed, 0.001 to 1000 is"
        );
        let bad = Settings {
            warm_up: 1.0,
            ..good.clone()
        };
        assert!(
            bad.check()
                .unwrap_err()
                .to_string()
                .starts_with("warm-up: 1.0")
        );
        let bad = Settings {
            timeout: Duration::ZERO,
            ..good.clone()
        };
        assert!(
            bad.check()
                .unwrap_err()
                .to_string()
                .starts_with("timeout: 0ns")
        );
        let bad = Settings {
            max_outstanding: 0,
            ..good
        };
        assert!(
            bad.check()
                .unwrap_err()
                .to_string()
                .starts_with("outstanding requests: 0")
        );
    }
}
