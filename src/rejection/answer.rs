//! What a client is answered whose request is rejected.

use std::time::Duration;

use super::Reason;

/// The response header that says why a request was answered here.
pub const REASON_HEADER: &str = "x-paceline-reject-reason";

/// What the proxy is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status; Envoy makes 200 of it where it answers a gRPC request.
    pub status: u16,
    /// Besides those that the proxy adds.
    pub headers: Vec<(&'static str, String)>,
    /// JSON with the reason and the pool. For gRPC a sentence, which becomes the
    /// `grpc-message`.
    pub body: String,
    /// For gRPC.
    pub grpc_status: Option<u32>,
}

impl Answer {
    /// The answer to a request of the pool with this name.
    #[must_use]
    pub fn new(reason: Reason, pool: &str, retry_after: Option<Duration>, is_grpc: bool) -> Self {
        let label = reason.label();
        let mut headers = vec![(REASON_HEADER, label.to_owned())];
        let retry_after = retry_after.filter(|_| reason.is_passing());
        let seconds = retry_after.map(|after| {
            let begun = u64::from(after.subsec_nanos() > 0);
            after.as_secs().saturating_add(begun).max(1)
        });
        headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
        let message = reason.message();
        let mut answer = Answer {
            status: reason.status(),
            headers,
            body: message.to_owned(),
            grpc_status: None,
        };
        if is_grpc {
            answer.grpc_status = Some(reason.grpc_status());
            // A gRPC client heeds this instead (gRFC A6).
            let millis = seconds.map(|seconds| (seconds * 1000).to_string());
            let pushback = millis.map(|millis| ("grpc-retry-pushback-ms", millis));
            answer.headers.extend(pushback);
        } else {
            answer
                .headers
                .push(("content-type", "application/json".to_owned()));
            let pool = in_json(pool);
            answer.body = format!(
                "{{\"error\":{{\"message\":\"{message}\",\"reason\":\"{label}\",\
                 \"pool\":\"{pool}\"}}}}\n"
            );
        }
        answer
    }
}

/// Whether a request with this `content-type` is one of gRPC, as Envoy sees it.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A name, which is visible ASCII, within a JSON string.
fn in_json(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_why_and_for_which_pool() {
        for reason in Reason::ALL {
            let after = Some(Duration::from_millis(2001));
            let answer = Answer::new(reason, r#"ch"at\1"#, after, false);
            assert_eq!(answer.status, reason.status());
            assert_eq!(answer.grpc_status, None);
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["error"]["reason"], reason.label());
            assert_eq!(body["error"]["pool"], r#"ch"at\1"#);
            assert!(body["error"]["message"].as_str().unwrap().ends_with('.'));
            let mut headers = vec![(REASON_HEADER, reason.label().to_owned())];
            if reason.is_passing() {
                headers.push(("retry-after", "3".to_owned()));
            }
            headers.push(("content-type", "application/json".to_owned()));
            assert_eq!(answer.headers, headers);
        }
    }

    #[test]
    fn a_grpc_client_is_told_in_its_own_words() {
        let answer = Answer::new(
            Reason::TenantShare,
            "chat",
            Some(Duration::from_millis(1)),
            true,
        );
        assert_eq!(answer.grpc_status, Some(8));
        assert_eq!(
            answer.body,
            "No upstream has room, and too many requests of yours wait already."
        );
        assert_eq!(
            answer.headers,
            [
                (REASON_HEADER, "tenant_share".to_owned()),
                ("retry-after", "1".to_owned()),
                ("grpc-retry-pushback-ms", "1000".to_owned()),
            ]
        );
        let unknown = Answer::new(Reason::MaxWait, "chat", None, true);
        assert_eq!(unknown.headers, [(REASON_HEADER, "max_wait".to_owned())]);
    }

    #[test]
    fn grpc_is_what_envoy_takes_for_it() {
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            assert!(is_grpc(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "",
            "application/json",
            "application/grpc-web",
            "application/grpcx",
            "grpc",
        ] {
            assert!(!is_grpc(kind.as_bytes()), "{kind}");
        }
    }
}
