//! Why a request is left to the proxy.

use crate::state::StateError;

/// Why a request is not routed here but left to the proxy's own route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassThrough {
    /// No pool's match fits the request.
    NoPool,
    /// No pool's match fits the request's model.
    UnknownModel,
    /// Every upstream of the pool has weight 0.
    Drained,
    /// No upstream of the pool accepts a request of this size.
    SizeNotAccepted,
    /// No upstream of the pool could ever take the request: it needs more memory than
    /// their devices have.
    TooLarge,
    /// No upstream of the pool can be expected to serve the request in time.
    Late,
    /// No upstream of the pool has room, and the request could not wait.
    NoRoom,
    /// Other workers changed the shared record at every try.
    Contention,
    /// The shared record was not readable; it starts afresh.
    MalformedState,
    /// A host call failed.
    HostError,
}

impl PassThrough {
    /// All reasons, in the order of [`PassThrough::index`].
    pub const ALL: [PassThrough; 10] = [
        PassThrough::NoPool,
        PassThrough::UnknownModel,
        PassThrough::Drained,
        PassThrough::SizeNotAccepted,
        PassThrough::TooLarge,
        PassThrough::Late,
        PassThrough::NoRoom,
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
            PassThrough::Drained => "drained",
            PassThrough::SizeNotAccepted => "size_not_accepted",
            PassThrough::TooLarge => "too_large",
            PassThrough::Late => "late",
            PassThrough::NoRoom => "no_room",
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
