//! Root and stream contexts: what the host knows of each, and in which phase a
//! callback may see what.

use super::abi::{Action, HostResult, LogLevel, MapType, Status};
use super::headers::HeaderMap;
use std::collections::BTreeMap;
use std::time::Duration;

/// One plugin's configuration in a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plugin {
    /// The property `plugin_name`.
    pub(crate) name: String,
    /// The property `plugin_root_id`.
    pub(crate) root_id: String,
    /// The plugin's configuration, byte for byte.
    pub(crate) configuration: Vec<u8>,
}

impl Plugin {
    /// A plugin under the name and root id that the project recommends.
    pub(crate) fn new(configuration: impl AsRef<[u8]>) -> Self {
        Self {
            name: "paceline".into(),
            root_id: "paceline".into(),
            configuration: configuration.as_ref().to_vec(),
        }
    }

    /// The same plugin under another name.
    pub(crate) fn named(self, name: &str) -> Self {
        let name = name.into();
        Self { name, ..self }
    }
}

/// What the VM wrote to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) level: LogLevel,
    pub(crate) text: String,
}

pub(super) enum Context {
    Root(RootState),
    Stream(Box<StreamState>),
}

pub(super) struct RootState {
    pub(super) plugin: Plugin,
    /// The configuration can be read while it is being handed over, only then.
    pub(super) configuring: bool,
    pub(super) tick_period: Option<Duration>,
    /// The call-outs that have not ended yet.
    pub(super) calls: Vec<CallOut>,
    /// The answer to one of them, while the plugin hears of it.
    pub(super) answer: Option<Answer>,
}

/// A request that the VM has sent itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallOut {
    /// What the VM calls it.
    pub(crate) token: u32,
    pub(crate) cluster: String,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
}

/// What comes back from a call-out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// An upstream's own.
    pub(crate) fn of_upstream(status: u16, body: impl AsRef<[u8]>) -> Self {
        let status = status.to_string();
        let headers = [
            (":status", status.as_str()),
            ("x-envoy-upstream-service-time", "3"),
        ];
        Self {
            headers: HeaderMap::new(headers),
            body: body.as_ref().to_vec(),
        }
    }

    /// One that Envoy gives itself.
    pub(crate) fn of_envoy(status: u16) -> Self {
        let status = status.to_string();
        Self {
            headers: HeaderMap::new([(":status", status.as_str())]),
            body: b"upstream request timeout".to_vec(),
        }
    }
}

/// An attribute of the stream, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// It is present. Integers and durations have 8 bytes, little endian.
    Value(Vec<u8>),
    /// Reading it fails, as `xds.upstream_host_metadata` does for a host without any.
    Failing(Status),
}

impl Property {
    pub(crate) fn int(value: i64) -> Self {
        Self::Value(value.to_le_bytes().to_vec())
    }

    pub(crate) fn text(value: &str) -> Self {
        Self::Value(value.as_bytes().to_vec())
    }
}

/// A response that the VM asked the host to send in place of an upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalResponse {
    pub(crate) status: u32,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// `None` where the host is to derive it from the status.
    pub(crate) grpc_status: Option<u32>,
}

/// A header map or body, and whether a callback may touch it now.
#[derive(Default)]
pub(super) struct Phased<T> {
    pub(super) content: T,
    pub(super) open: bool,
}

impl<T> Phased<T> {
    /// Opens the content to the callback that is about to be made.
    pub(super) fn arrive(&mut self, content: T) {
        self.content = content;
        self.open = true;
    }

    /// Closes the content once the host has moved on with it.
    pub(super) fn settle(&mut self, action: Action) {
        self.open = action == Action::Pause;
    }

    fn get(&self) -> Option<&T> {
        self.open.then_some(&self.content)
    }

    fn get_mut(&mut self) -> Option<&mut T> {
        self.open.then_some(&mut self.content)
    }
}

#[derive(Default)]
pub(super) struct StreamState {
    pub(super) root: u32,
    pub(super) request_headers: Phased<HeaderMap>,
    pub(super) request_trailers: Phased<HeaderMap>,
    pub(super) request_body: Phased<Vec<u8>>,
    /// The filter's last answer was to keep what has come and to show it together
    /// with what follows. From a tick, Envoy cannot let such a request go.
    pub(super) joins_body: bool,
    pub(super) response_headers: Phased<HeaderMap>,
    pub(super) response_trailers: Phased<HeaderMap>,
    pub(super) response_body: Phased<Vec<u8>>,
    /// The access log is being written: header maps can be read again, not changed.
    pub(super) logging: bool,
    pub(super) properties: BTreeMap<Vec<u8>, Property>,
    /// What the VM has set, for the access log.
    pub(super) filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) local_response: Option<LocalResponse>,
    /// The VM resumed the stream.
    pub(super) resumed: bool,
    /// The VM reset the stream.
    pub(super) closed: bool,
}

impl StreamState {
    /// The map for reading; absent outside its phase.
    pub(super) fn map(&self, kind: MapType) -> Option<&HeaderMap> {
        let logged = |map| self.logging.then_some(map);
        match kind {
            MapType::RequestHeaders => {
                let open = self.request_headers.get();
                open.or(logged(&self.request_headers.content))
            }
            MapType::RequestTrailers if self.logging => None,
            MapType::RequestTrailers => self.request_trailers.get(),
            MapType::ResponseHeaders => {
                let open = self.response_headers.get();
                open.or(logged(&self.response_headers.content))
            }
            MapType::ResponseTrailers => {
                let open = self.response_trailers.get();
                open.or(logged(&self.response_trailers.content))
            }
            MapType::Grpc | MapType::CallResponseHeaders | MapType::CallResponseTrailers => None,
        }
    }

    /// The map for writing, or the status of a map out of its phase.
    pub(super) fn map_mut(&mut self, kind: MapType) -> HostResult<&mut HeaderMap> {
        let map = match kind {
            MapType::RequestHeaders => self.request_headers.get_mut(),
            MapType::RequestTrailers => self.request_trailers.get_mut(),
            MapType::ResponseHeaders => self.response_headers.get_mut(),
            MapType::ResponseTrailers => self.response_trailers.get_mut(),
            MapType::Grpc | MapType::CallResponseHeaders | MapType::CallResponseTrailers => None,
        };
        map.ok_or(Status::BadArgument)
    }

    /// The first value of a header: out of phase the map is a bad argument,
    /// in the access log a missing header.
    pub(super) fn header(&self, kind: MapType, name: &[u8]) -> HostResult<&[u8]> {
        let missing = if self.logging {
            Status::NotFound
        } else {
            Status::BadArgument
        };
        let map = self.map(kind).ok_or(missing)?;
        map.get(name).ok_or(Status::NotFound)
    }

    /// A piece of the request's body has come. Envoy shows it with those before it
    /// only where the filter's answer is to join them. Says how much is shown.
    pub(super) fn show_request_body(&mut self, piece: &[u8]) -> usize {
        if !self.joins_body {
            self.request_body.content.clear();
        }
        self.request_body.content.extend_from_slice(piece);
        self.request_body.open = true;
        self.request_body.content.len()
    }

    /// What continuing the stream takes from the VM's sight.
    pub(super) fn resume(&mut self) {
        self.resumed = true;
        self.request_headers.open = false;
        self.request_trailers.open = false;
        self.request_body.open = false;
    }
}
