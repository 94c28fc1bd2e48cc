//! Where Envoy runs.

use super::container::Network;

/// Where a gateway runs.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On this machine, on loopback: the binary of [`envoy_binary`](super::envoy_binary).
    Process,
    /// In a container of its own.
    Container(&'a Network),
}
