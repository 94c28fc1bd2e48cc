//! Envoy's attributes that the filter reads, by their paths.
//!
//! They are listed in Envoy's documentation, "Attributes"; numbers are eight
//! little-endian bytes.

/// The port at which the client has connected.
pub const DESTINATION_PORT: &[&str] = &["destination", "port"];
/// Bytes received for the request so far, its headers included.
pub const REQUEST_TOTAL_SIZE: &[&str] = &["request", "total_size"];
/// The response's status.
pub const RESPONSE_CODE: &[&str] = &["response", "code"];
/// What gave the response its status, in words.
pub const RESPONSE_CODE_DETAILS: &[&str] = &["response", "code_details"];
/// What went wrong, a bit each.
pub const RESPONSE_FLAGS: &[&str] = &["response", "flags"];
/// The status that a gRPC response ended with.
pub const RESPONSE_GRPC_STATUS: &[&str] = &["response", "grpc_status"];
/// The host that was tried last, `ip:port`.
pub const UPSTREAM_ADDRESS: &[&str] = &["upstream", "address"];
/// How many attempts were made.
pub const UPSTREAM_ATTEMPTS: &[&str] = &["upstream", "request_attempt_count"];
/// The response header in which the proxy says so, where it is told to.
pub const ATTEMPT_COUNT_HEADER: &str = "x-envoy-attempt-count";
/// The response header in which the proxy says how long an upstream took. It is not
/// in the answers that the proxy gives itself.
pub const SERVICE_TIME_HEADER: &str = "x-envoy-upstream-service-time";
/// The cluster of the route that was taken.
pub const CLUSTER_NAME: &[&str] = &["xds", "cluster_name"];
/// Where an endpoint's metadata may name the upstream that it belongs to:
/// `filter_metadata: { paceline: { upstream: gpu-a } }`.
pub const ENDPOINT_UPSTREAM: &[&str] = &[
    "xds",
    "upstream_host_metadata",
    "filter_metadata",
    "paceline",
    "upstream",
];
/// The stream's filter state in which the filter tells the access log what it decided:
/// to Envoy it is `wasm.paceline`.
pub const DECISION: &str = "paceline";
/// The plugin's name in the proxy's configuration.
pub const PLUGIN_NAME: &[&str] = &["plugin_name"];

/// A number from its bytes.
#[must_use]
pub fn number(bytes: &[u8]) -> u64 {
    let places = bytes.iter().take(8).enumerate();
    places.fold(0, |number, (place, byte)| {
        number | u64::from(*byte) << (8 * place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian() {
        assert_eq!(number(&[2, 1, 0, 0, 0, 0, 0, 0]), 258);
        assert_eq!(number(&[]), 0);
        assert_eq!(number(&[0xff; 9]), u64::MAX);
    }
}
