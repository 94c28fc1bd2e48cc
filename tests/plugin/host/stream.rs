//! One HTTP stream, driven callback by callback.

use super::abi::Action;
use super::context::{Context, LocalResponse, Property, StreamState};
use super::headers::HeaderMap;
use super::vm::{Vm, VmResult};

/// What a filter answers to a part of a body that is to be shown again, with the
/// next part.
const STOP_AND_BUFFER: u32 = 1;

/// A handle on a stream. Dropping it makes no callback: a test that wants the
/// stream to end says how.
pub(crate) struct Stream {
    vm: Vm,
    id: u32,
}

impl Stream {
    pub(super) fn new(vm: Vm, id: u32) -> Self {
        Self { vm, id }
    }

    pub(crate) fn request_headers(&self, headers: HeaderMap, end: bool) -> VmResult<Action> {
        let count = headers.len() as u32;
        self.with(|stream| stream.request_headers.arrive(headers));
        let params = (self.id, count, u32::from(end));
        let action = self.callback("proxy_on_request_headers", params)?;
        self.with(|stream| {
            // The filter may have resumed the stream itself before pausing.
            let goes_on = stream.resumed || action == Action::Continue;
            stream.request_headers.open = !goes_on;
        });
        Ok(action)
    }

    pub(crate) fn request_body(&self, body: &[u8], end: bool) -> VmResult<Action> {
        let shown = self.with(|stream| stream.show_request_body(body));
        let params = (self.id, shown as u32, u32::from(end));
        let answer: u32 = self.vm.call(self.id, "proxy_on_request_body", params)?;
        let action = self.vm.action(answer);
        self.with(|stream| {
            stream.joins_body = answer == STOP_AND_BUFFER;
            // A part that is kept is not shown once more.
            stream.request_body.open = stream.joins_body;
            stream.request_headers.settle(action);
        });
        Ok(action)
    }

    pub(crate) fn request_trailers(&self, trailers: HeaderMap) -> VmResult<Action> {
        let count = trailers.len() as u32;
        self.with(|stream| stream.request_trailers.arrive(trailers));
        let action = self.callback("proxy_on_request_trailers", (self.id, count))?;
        self.with(|stream| {
            stream.request_trailers.settle(action);
            stream.request_body.settle(action);
            stream.request_headers.settle(action);
        });
        Ok(action)
    }

    pub(crate) fn response_headers(&self, headers: HeaderMap, end: bool) -> VmResult<Action> {
        let count = headers.len() as u32;
        self.with(|stream| stream.response_headers.arrive(headers));
        let params = (self.id, count, u32::from(end));
        let action = self.callback("proxy_on_response_headers", params)?;
        self.with(|stream| stream.response_headers.settle(action));
        Ok(action)
    }

    pub(crate) fn response_body(&self, body: &[u8], end: bool) -> VmResult<Action> {
        self.with(|stream| stream.response_body.arrive(body.to_vec()));
        let params = (self.id, body.len() as u32, u32::from(end));
        let action = self.callback("proxy_on_response_body", params)?;
        self.with(|stream| stream.response_body.settle(action));
        Ok(action)
    }

    pub(crate) fn response_trailers(&self, trailers: HeaderMap) -> VmResult<Action> {
        let count = trailers.len() as u32;
        self.with(|stream| stream.response_trailers.arrive(trailers));
        let action = self.callback("proxy_on_response_trailers", (self.id, count))?;
        self.with(|stream| stream.response_trailers.settle(action));
        Ok(action)
    }

    pub(crate) fn log(&self) -> VmResult {
        self.with(|stream| stream.logging = true);
        let outcome = self.vm.call(self.id, "proxy_on_log", self.id);
        self.with(|stream| stream.logging = false);
        outcome
    }

    pub(crate) fn done(&self) -> VmResult {
        self.vm
            .call_if_there::<_, u32>(self.id, "proxy_on_done", self.id)
            .map(drop)
    }

    pub(crate) fn delete(self) -> VmResult {
        let outcome = self.vm.call(self.id, "proxy_on_delete", self.id);
        self.vm.with(|vm| vm.contexts.remove(&self.id));
        outcome
    }

    /// Ends the stream as Envoy ends every one: log, done, delete.
    pub(crate) fn end(self) -> VmResult {
        self.log()?;
        self.done()?;
        self.delete()
    }

    /// The request's headers as the filter left them.
    pub(crate) fn sent_headers(&self) -> HeaderMap {
        self.with(|stream| stream.request_headers.content.clone())
    }

    /// The response's headers as the filter left them.
    pub(crate) fn received_headers(&self) -> HeaderMap {
        self.with(|stream| stream.response_headers.content.clone())
    }

    /// The response that the filter sent in place of an upstream's.
    pub(crate) fn local_response(&self) -> Option<LocalResponse> {
        self.with(|stream| stream.local_response.clone())
    }

    /// Whether the filter let a request go on that it had paused.
    pub(crate) fn resumed(&self) -> bool {
        self.with(|stream| stream.resumed)
    }

    /// Whether the parts of the request's body are joined, so that the request can
    /// go on with its next part alone.
    pub(crate) fn joins_body(&self) -> bool {
        self.with(|stream| stream.joins_body)
    }

    /// Whether the filter reset the stream.
    pub(crate) fn closed(&self) -> bool {
        self.with(|stream| stream.closed)
    }

    /// Sets an attribute of the stream.
    pub(crate) fn set_property(&self, path: &[&str], property: Property) {
        let path = path.join("\0").into_bytes();
        self.with(|stream| stream.properties.insert(path, property));
    }

    /// What the access log would show of a filter state that the filter has set.
    pub(crate) fn filter_state(&self, path: &str) -> Option<String> {
        let value = self.with(|stream| stream.filter_state.get(path.as_bytes()).cloned())?;
        Some(String::from_utf8(value).unwrap())
    }

    fn callback<P: wasmi::WasmParams>(&self, name: &'static str, params: P) -> VmResult<Action> {
        self.vm.call_for_action(self.id, name, params)
    }

    fn with<R>(&self, body: impl FnOnce(&mut StreamState) -> R) -> R {
        self.vm.with(|vm| match vm.contexts.get_mut(&self.id) {
            Some(Context::Stream(stream)) => body(stream),
            _ => panic!("context {} is no stream", self.id),
        })
    }
}
