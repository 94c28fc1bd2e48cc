//! Envoy's words on who ended a response: `response.code_details`.

/// Who ended a response, as far as Envoy's details say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Details {
    /// They were not asked for, or say nothing that is known here.
    #[default]
    None,
    /// The response is the upstream's.
    Upstream,
    /// The response was not complete when its time was over.
    Timeout,
    /// The client did not send its request in time.
    SlowClient,
    /// Envoy closed the client's connection, for instance because it drains.
    ClosedByProxy,
    /// Envoy or a filter answered.
    LocalReply,
}

impl Details {
    /// What the value of the property says. Envoy's names are in
    /// `envoy/stream_info/stream_info.h`, `ResponseCodeDetailValues`; other words,
    /// such as those of a reset or of a filter of somebody's own, stand in braces
    /// or behind them.
    #[must_use]
    pub fn parse(details: &[u8]) -> Self {
        let name = details.split(|byte| matches!(byte, b'{' | b'(')).next();
        let name = name.unwrap_or_default();
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, details)) => *details,
            None if name.starts_with(b"upstream_") => Details::None,
            None => Details::LocalReply,
        }
    }
}

/// Envoy's names, the most frequent first. As a table, whose search is less code than a
/// `match` that has every comparison in itself.
const NAMES: [(&[u8], Details); 12] = [
    (b"via_upstream", Details::Upstream),
    (b"", Details::None),
    (b"downstream_remote_disconnect", Details::None),
    (b"downstream_local_disconnect", Details::ClosedByProxy),
    (b"upstream_response_timeout", Details::Timeout),
    (b"upstream_per_try_timeout", Details::Timeout),
    (b"upstream_per_try_idle_timeout", Details::Timeout),
    (b"upstream_max_stream_duration_reached", Details::Timeout),
    (b"max_duration_timeout", Details::Timeout),
    (b"response_timeout", Details::Timeout),
    (b"request_overall_timeout", Details::SlowClient),
    (b"request_header_timeout", Details::SlowClient),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_with_whatever_follows_them() {
        for (text, expected) in [
            ("", Details::None),
            ("via_upstream", Details::Upstream),
            ("max_duration_timeout", Details::Timeout),
            ("request_overall_timeout", Details::SlowClient),
            ("response_payload_too_large", Details::LocalReply),
            ("request_payload_too_large", Details::LocalReply),
            ("downstream_local_disconnect(drain)", Details::ClosedByProxy),
            ("downstream_remote_disconnect", Details::None),
            (
                "upstream_reset_before_response_started{connection_termination}",
                Details::None,
            ),
            (
                "rbac_access_denied_matched_policy[none]",
                Details::LocalReply,
            ),
        ] {
            assert_eq!(Details::parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(Details::parse(b"\xff"), Details::LocalReply);
    }
}
