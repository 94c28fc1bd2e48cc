//! Why a request is left to the proxy.

use crate::state::StateError;

/// Why a request is not routed here but left to the proxy's own route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassThrough {
    /// No pool's match fits the request.
    NoPool,
    /// No pool's match fits the request's model.
    UnknownModel,
    /// No upstream of the pool accepts a request of this size.
    SizeNotAccepted,
    /// Other workers changed the shared record at every try.
    Contention,
    /// The shared record was not readable; it starts afresh.
    MalformedState,
    /// A host call failed.
    HostError,
}

impl PassThrough {
    /// All reasons, in the order of [`PassThrough::index`].
    pub const ALL: [PassThrough; 6] = [
        PassThrough::NoPool,
        PassThrough::UnknownModel,
        PassThrough::SizeNotAccepted,
        PassThrough::Contention,
        PassThrough::MalformedState,
        PassThrough::HostError,
    ];

    /// The reason's place in [`PassThrough::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the reason in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            PassThrough::NoPool => "no_pool",
            PassThrough::UnknownModel => "unknown_model",
            PassThrough::SizeNotAccepted => "size_not_accepted",
            PassThrough::Contention => "contention",
            PassThrough::MalformedState => "malformed_state",
            PassThrough::HostError => "host_error",
        }
    }
}

impl From<StateError> for PassThrough {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Contended => PassThrough::Contention,
            StateError::Malformed => PassThrough::MalformedState,
            StateError::Host(_) => PassThrough::HostError,
        }
    }
}
