//! Which requests belong to a pool.

mod cover;
mod read;

use std::borrow::Cow;

pub(super) use read::read;

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
    /// The model asked for; `None` where the request names none. It is asked for
    /// last, because it may stand in the body.
    fn model(&mut self) -> Option<Cow<'_, [u8]>>;
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
    /// The model asked for.
    pub model: Option<ModelMatch>,
}

/// A condition on the model's name, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelMatch {
    /// One of these names, at least one.
    AnyOf(Vec<String>),
    /// A name that begins so.
    Prefix(String),
}

/// A condition on the host, without its port or a dot at its end, and without
/// regard to case.
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
            && self.model_matches(request)
    }

    /// Whether every request matches, because there is no condition.
    pub fn is_catch_all(&self) -> bool {
        self.path_prefix.is_none()
            && self.host.is_none()
            && self.headers.is_empty()
            && self.model.is_none()
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
            .is_some_and(|host| condition.matches(name_of(&host)))
    }

    fn model_matches(&self, request: &mut dyn RequestView) -> bool {
        let Some(condition) = &self.model else {
            return true;
        };
        request
            .model()
            .is_some_and(|model| condition.matches(&model))
    }
}

impl ModelMatch {
    fn matches(&self, model: &[u8]) -> bool {
        match self {
            Self::AnyOf(names) => names.iter().any(|name| name.as_bytes() == model),
            Self::Prefix(prefix) => model.starts_with(prefix.as_bytes()),
        }
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

/// The host without its port, and without the dot that ends a name which is
/// complete as it is.
fn name_of(host: &[u8]) -> &[u8] {
    let name = without_port(host);
    name.strip_suffix(b".").unwrap_or(name)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, and what was asked of it.
    #[derive(Default)]
    struct Request {
        path: Option<&'static [u8]>,
        host: Option<&'static [u8]>,
        headers: Vec<(&'static str, &'static [u8])>,
        model: Option<&'static [u8]>,
        asked: Vec<String>,
    }

    impl RequestView for Request {
        fn path(&mut self) -> Option<Cow<'_, [u8]>> {
            self.asked.push("path".to_owned());
            self.path.map(Cow::Borrowed)
        }

        fn host(&mut self) -> Option<Cow<'_, [u8]>> {
            self.asked.push("host".to_owned());
            self.host.map(Cow::Borrowed)
        }

        fn header(&mut self, name: &str) -> Option<Cow<'_, [u8]>> {
            self.asked.push(name.to_owned());
            let (_, value) = self.headers.iter().find(|(own, _)| *own == name)?;
            Some(Cow::Owned(value.to_vec()))
        }

        fn model(&mut self) -> Option<Cow<'_, [u8]>> {
            self.asked.push("model".to_owned());
            self.model.map(Cow::Borrowed)
        }
    }

    fn on_path(prefix: &str, path: &'static [u8]) -> bool {
        let conditions = Match {
            path_prefix: Some(prefix.to_owned()),
            ..Match::default()
        };
        conditions.matches(&mut Request {
            path: Some(path),
            ..Request::default()
        })
    }

    fn on_host(host: HostMatch, asked: &'static [u8]) -> bool {
        let conditions = Match {
            host: Some(host),
            ..Match::default()
        };
        conditions.matches(&mut Request {
            host: Some(asked),
            ..Request::default()
        })
    }

    fn on_header(value: ValueMatch, given: &'static [u8]) -> bool {
        let conditions = Match {
            headers: vec![HeaderMatch {
                name: "x-a".to_owned(),
                value,
            }],
            ..Match::default()
        };
        conditions.matches(&mut Request {
            headers: vec![("x-a", given)],
            ..Request::default()
        })
    }

    #[test]
    fn without_conditions_everything_matches_and_nothing_is_asked() {
        let mut request = Request::default();
        assert!(Match::default().matches(&mut request));
        assert!(request.asked.is_empty());
    }

    #[test]
    fn paths_are_compared_without_their_query() {
        assert!(on_path("/v1", b"/v1"));
        assert!(on_path("/v1", b"/v1/chat?x=1"));
        assert!(on_path("/v1", b"/v1beta"));
        assert!(!on_path("/v1/", b"/v1"));
        assert!(!on_path("/v1", b"/V1"));
        assert!(!on_path("/v1/chat", b"/v1?/chat"));
        assert!(!on_path("/a", b"?/a"));
        assert!(!on_path("/", b""));
        assert!(on_path("/", b"/\xff\xfe"));
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        let exact = || HostMatch::Exact("a.example.com".to_owned());
        assert!(on_host(exact(), b"a.example.com"));
        assert!(on_host(exact(), b"A.Example.COM:8080"));
        assert!(on_host(exact(), b"a.example.com."));
        assert!(on_host(exact(), b"A.example.com.:8080"));
        assert!(!on_host(exact(), b"a.example.com.."));
        assert!(!on_host(exact(), b"b.a.example.com"));
        assert!(!on_host(exact(), b""));
        assert!(!on_host(exact(), b"\xff"));
    }

    #[test]
    fn an_ipv6_address_keeps_its_colons() {
        let loopback = || HostMatch::Exact("[::1]".to_owned());
        assert!(on_host(loopback(), b"[::1]"));
        assert!(on_host(loopback(), b"[::1]:8080"));
        assert!(!on_host(loopback(), b"[::2]:8080"));
    }

    #[test]
    fn a_suffix_matches_what_is_below_a_domain() {
        let below = || HostMatch::Suffix(".example.com".to_owned());
        assert!(on_host(below(), b"a.example.com"));
        assert!(on_host(below(), b"a.b.EXAMPLE.com:443"));
        assert!(on_host(below(), b"a.example.com."));
        assert!(!on_host(below(), b"example.com"));
        assert!(!on_host(below(), b".example.com"));
        assert!(!on_host(below(), b"a.badexample.com"));
        assert!(!on_host(below(), b"com"));
    }

    #[test]
    fn header_values_are_compared_as_bytes() {
        let exact = || ValueMatch::Exact("ab".to_owned());
        assert!(on_header(exact(), b"ab"));
        assert!(!on_header(exact(), b"AB"));
        assert!(!on_header(exact(), b"abc"));
        assert!(!on_header(exact(), b"ab\xff"));

        let prefix = || ValueMatch::Prefix("ab".to_owned());
        assert!(on_header(prefix(), b"ab"));
        assert!(on_header(prefix(), b"ab\xff"));
        assert!(!on_header(prefix(), b"a"));

        assert!(on_header(ValueMatch::Present, b""));
        assert!(on_header(ValueMatch::Present, b"\xff"));
    }

    #[test]
    fn models_are_one_of_some_or_begin_alike() {
        let on_model = |model: ModelMatch, given: &'static [u8]| {
            let conditions = Match {
                model: Some(model),
                ..Match::default()
            };
            conditions.matches(&mut Request {
                model: Some(given),
                ..Request::default()
            })
        };
        let two = || ModelMatch::AnyOf(vec!["a".to_owned(), "b".to_owned()]);
        assert!(on_model(two(), b"a"));
        assert!(on_model(two(), b"b"));
        assert!(!on_model(two(), b"A"));
        assert!(!on_model(two(), b"ab"));
        assert!(!on_model(two(), b""));

        let llama = || ModelMatch::Prefix("llama-".to_owned());
        assert!(on_model(llama(), b"llama-3"));
        assert!(on_model(llama(), b"llama-\xff"));
        assert!(!on_model(llama(), b"llama"));
    }

    #[test]
    fn what_is_absent_matches_no_condition() {
        let nothing = |conditions: Match| conditions.matches(&mut Request::default());
        assert!(!nothing(Match {
            path_prefix: Some("/".to_owned()),
            ..Match::default()
        }));
        assert!(!nothing(Match {
            host: Some(HostMatch::Exact("a".to_owned())),
            ..Match::default()
        }));
        assert!(!nothing(Match {
            model: Some(ModelMatch::Prefix("a".to_owned())),
            ..Match::default()
        }));
        assert!(!nothing(Match {
            headers: vec![HeaderMatch {
                name: "x-a".to_owned(),
                value: ValueMatch::Present,
            }],
            ..Match::default()
        }));
    }

    #[test]
    fn all_conditions_must_hold_and_the_first_that_fails_ends_it() {
        let header = |name: &str| HeaderMatch {
            name: name.to_owned(),
            value: ValueMatch::Present,
        };
        let conditions = Match {
            path_prefix: Some("/v1".to_owned()),
            host: Some(HostMatch::Exact("a".to_owned())),
            headers: vec![header("x-a"), header("x-b"), header("x-c")],
            model: Some(ModelMatch::AnyOf(vec!["m".to_owned()])),
        };
        let mut request = Request {
            path: Some(b"/v1"),
            host: Some(b"a"),
            headers: vec![("x-a", b"1"), ("x-c", b"1")],
            model: Some(b"m"),
            asked: Vec::new(),
        };
        assert!(!conditions.matches(&mut request));
        assert_eq!(request.asked, ["path", "host", "x-a", "x-b"]);

        request.headers.push(("x-b", b"1"));
        assert!(conditions.matches(&mut request));
        assert_eq!(request.asked.last().map(String::as_str), Some("model"));
    }
}
