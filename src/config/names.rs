//! What can stand in a header, in a metric's name, or as a header's name.

use core::net::SocketAddr;

/// The longest name of a pool or cluster. Istio's cluster names, made of a port,
/// a subset and a host name, stay below it.
const MAX_NAME_LEN: usize = 512;

/// What [`is_name`] accepts, in words.
pub(super) const NAME: &str = "a name of 1 to 512 visible ASCII characters, \
     without a semicolon and without a space at either end";

/// What [`is_route_header`] accepts, in words.
pub(super) const ROUTE_HEADER: &str = "the name of a request header that means nothing else, \
     such as \"x-upstream-cluster\"";

/// What [`endpoint_address`] accepts, in words.
pub(super) const ADDRESS: &str =
    "an IP address and a port, such as \"10.0.0.1:8000\" or \"[fd00::1]:8000\"";

/// Request headers that mean something else to HTTP, to Envoy or to model
/// servers. Overwriting them would break the request or give away what they
/// protect.
const RESERVED_HEADERS: [&str; 24] = [
    "authorization",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "range",
    "referer",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-api-key",
    "x-real-ip",
    "x-request-id",
];

/// How the names of more such headers begin.
const RESERVED_PREFIXES: [&str; 8] = [
    "accept",
    "content-",
    "grpc-",
    "if-",
    "proxy-",
    "sec-",
    "x-envoy-",
    "x-forwarded-",
];

/// Whether Envoy can carry the name in a header, and a metric in a label: there
/// a semicolon ends the value.
pub(super) fn is_name(text: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(|byte| visible(byte) && byte != b';')
        && text.trim_matches(' ').len() == text.len()
}

/// Whether the name is a header's, and free to name the upstream cluster.
/// Header names have no case.
pub(super) fn is_route_header(text: &str) -> bool {
    let begins = |prefix: &str| {
        let start = text.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let reserved = RESERVED_HEADERS
        .iter()
        .any(|name| name.eq_ignore_ascii_case(text))
        || RESERVED_PREFIXES.into_iter().any(begins);
    is_token(text) && !reserved
}

/// The address of an endpoint in the form in which Envoy writes it, `ip:port`
/// with IPv6 in brackets; `None` where the text is none.
#[must_use]
pub fn endpoint_address(text: &str) -> Option<String> {
    let address: SocketAddr = text.parse().ok()?;
    (address.port() != 0).then(|| address.to_string())
}

/// A token of RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=MAX_NAME_LEN).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_envoy_and_istio_use_are_names() {
        for name in [
            "gpu-a",
            "outbound|8080|v2|svc.ns.svc.cluster.local",
            "10.0.0.1:8000",
            "Llama 3",
            "a",
            &"n".repeat(512),
        ] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn what_a_header_cannot_carry_is_no_name() {
        for name in [
            "",
            " ",
            " a",
            "a ",
            "a\tb",
            "a\nb",
            "a\0b",
            "a\u{7f}",
            "modèle",
            "a;b",
            &"n".repeat(513),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn free_header_tokens_can_route() {
        for name in ["x-upstream-cluster", "X-Upstream", "x_route", "a", "x.y~z"] {
            assert!(is_route_header(name), "{name:?}");
        }
    }

    #[test]
    fn addresses_of_endpoints_have_one_form() {
        for (text, address) in [
            ("10.0.0.1:8000", Some("10.0.0.1:8000")),
            ("[fd00:0::1]:8000", Some("[fd00::1]:8000")),
            ("[FD00::1]:8000", Some("[fd00::1]:8000")),
            ("fd00::1:8000", None),
            ("10.0.0.1", None),
            ("10.0.0.1:0", None),
            ("localhost:8000", None),
            (" 10.0.0.1:8000", None),
            ("10.0.0.1:8000,10.0.0.2:8000", None),
        ] {
            assert_eq!(endpoint_address(text).as_deref(), address, "{text:?}");
        }
    }

    #[test]
    fn other_headers_cannot_route() {
        for name in [
            "",
            ":authority",
            ":path",
            "x upstream",
            "x-upstream:",
            "x-über",
            "x\r\ny",
            "x(y)",
            "host",
            "Host",
            "Connection",
            "transfer-encoding",
            "content-length",
            "te",
            "upgrade",
            "cookie",
            "User-Agent",
            "grpc-timeout",
            "X-Envoy-Upstream-Rq-Timeout-Ms",
            "x-envoy-retry-on",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "accept-encoding",
            "content-type",
            "proxy-authorization",
            "traceparent",
        ] {
            assert!(!is_route_header(name), "{name:?}");
        }
    }
}
