//! Which requests belong to a pool.

use std::borrow::Cow;

/// What a [`Match`] may ask of a request.
///
/// Values are bytes, for HTTP does not promise UTF-8. A value is asked for only
/// when a condition needs it, so that an implementation can fetch it then; it
/// takes `&mut self` so that it can keep what it fetched.
pub trait RequestView {
    /// The request's path, with its query if it has one.
    fn path(&mut self) -> Option<Cow<'_, [u8]>>;
    /// The request's authority, with its port if it has one.
    fn host(&mut self) -> Option<Cow<'_, [u8]>>;
    /// The first value of the header `name`, which is in lower case.
    fn header(&mut self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// The conditions of a pool, all of which must hold. None at all match every
/// request: that is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// How the path begins, compared byte by byte and without the query.
    pub path_prefix: Option<String>,
    /// The host asked for.
    pub host: Option<HostMatch>,
    /// Conditions on headers, each on a header of its own.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the host, without its port and without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// This host, in lower case.
    Exact(String),
    /// Every host below a domain: what it ends with, in lower case and with
    /// the leading dot. `*.example.com` is `.example.com` here, which
    /// `example.com` itself does not end with.
    Suffix(String),
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name in lower case, or `:method`.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a header's value, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// This value.
    Exact(String),
    /// A value that begins so.
    Prefix(String),
    /// Any value, even an empty one.
    Present,
}

impl Match {
    /// Whether all conditions hold for `request`.
    pub fn matches(&self, request: &mut dyn RequestView) -> bool {
        self.path_matches(request)
            && self.host_matches(request)
            && self.headers.iter().all(|header| header.matches(request))
    }

    /// Whether every request matches, because there is no condition.
    pub fn is_catch_all(&self) -> bool {
        self.path_prefix.is_none() && self.host.is_none() && self.headers.is_empty()
    }

    fn path_matches(&self, request: &mut dyn RequestView) -> bool {
        let Some(prefix) = &self.path_prefix else {
            return true;
        };
        request
            .path()
            .is_some_and(|path| without_query(&path).starts_with(prefix.as_bytes()))
    }

    fn host_matches(&self, request: &mut dyn RequestView) -> bool {
        let Some(condition) = &self.host else {
            return true;
        };
        request
            .host()
            .is_some_and(|host| condition.matches(without_port(&host)))
    }
}

impl HostMatch {
    fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Suffix(suffix) => {
                // Something must stand before the suffix's dot.
                let Some(start) = host.len().checked_sub(suffix.len()).filter(|&at| at > 0) else {
                    return false;
                };
                host.get(start..)
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

impl HeaderMatch {
    fn matches(&self, request: &mut dyn RequestView) -> bool {
        let Some(value) = request.header(&self.name) else {
            return false;
        };
        match &self.value {
            ValueMatch::Exact(exact) => *value == *exact.as_bytes(),
            ValueMatch::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            ValueMatch::Present => true,
        }
    }
}

fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#'))
        .next()
        .unwrap_or(path)
}

fn without_port(host: &[u8]) -> &[u8] {
    // The colons inside an IPv6 address's brackets are not the port's.
    let name_end = host.iter().position(|&byte| byte == b']').unwrap_or(0);
    let port = host
        .iter()
        .skip(name_end)
        .position(|&byte| byte == b':')
        .map(|at| at + name_end);
    port.and_then(|at| host.get(..at)).unwrap_or(host)
}
