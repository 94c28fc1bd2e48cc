//! The real proxy, as a [`Host`].

use std::ptr::{null, null_mut};
use std::time::Duration;

use super::abi::{self, HeaderMap};
use crate::host::{
    CallId, Calls, Host, HostError, LocalResponse, MetricId, MetricKind, QueueId, SetError,
    SharedData, Version, Versioned,
};
use crate::time::Timestamp;

/// The proxy that runs this filter, at the stream that it is calling for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxy;

impl Proxy {
    /// The plugin's configuration; `None` where there is none.
    pub(super) fn configuration(self, size: usize) -> Result<Option<Vec<u8>>, HostError> {
        if size == 0 {
            return Ok(None);
        }
        self.buffer(abi::PLUGIN_CONFIGURATION, size)
    }

    fn buffer(self, buffer: u32, max: usize) -> Result<Option<Vec<u8>>, HostError> {
        receive(|data, length| {
            // SAFETY: both pointers are to locals that outlive the call.
            unsafe { abi::proxy_get_buffer_bytes(buffer, 0, max, data, length) }
        })
    }

    fn header(self, map: HeaderMap, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        receive(|data, length| {
            // SAFETY: the name outlives the call, and so do the locals.
            unsafe {
                abi::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, length)
            }
        })
    }

    fn set_header(self, map: HeaderMap, name: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: name and value outlive the call.
        check(unsafe {
            abi::proxy_replace_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }
}

/// With this version the host writes whatever is there.
const ANY_VERSION: u32 = 0;

fn set_shared_data(key: &str, value: &[u8], version: u32) -> u32 {
    // SAFETY: key and value outlive the call.
    unsafe {
        abi::proxy_set_shared_data(
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            version,
        )
    }
}

impl SharedData for Proxy {
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
        let mut version = 0;
        let value = receive_as(
            |data, length| {
                // SAFETY: the key outlives the call, and so do the locals.
                unsafe {
                    abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, length, &mut version)
                }
            },
            // A value that was set to nothing is there and has a version.
            Some(Vec::new()),
        )?;
        Ok(value.map(|value| Versioned {
            value,
            version: Version(version),
        }))
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError> {
        check(set_shared_data(key, value, ANY_VERSION))
    }

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        // Any number but 0 creates a key that is missing and conflicts with one
        // that is not, unless it is just that key's version, which the greatest
        // hardly ever is.
        let version = expected.map_or(u32::MAX, |version| version.0);
        match set_shared_data(key, value, version) {
            abi::OK => Ok(()),
            abi::CAS_MISMATCH => Err(SetError::Conflict),
            other => Err(SetError::Host(HostError(other))),
        }
    }
}

impl Calls for Proxy {
    fn call(
        &mut self,
        cluster: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<CallId, HostError> {
        let (headers, trailers) = (pairs(headers), pairs(&[]));
        // At least one: without a limit a call might never end.
        let millis = timeout.as_millis().clamp(1, i32::MAX as u128) as u32;
        let mut call = 0;
        // SAFETY: cluster, headers and trailers outlive the call, and so does the
        // local; of a body without bytes nothing is read.
        check(unsafe {
            abi::proxy_http_call(
                cluster.as_ptr(),
                cluster.len(),
                headers.as_ptr(),
                headers.len(),
                null(),
                0,
                trailers.as_ptr(),
                trailers.len(),
                millis,
                &mut call,
            )
        })?;
        Ok(CallId(call))
    }

    fn call_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.header(HeaderMap::CallResponse, name)
    }

    fn call_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.buffer(abi::CALL_RESPONSE_BODY, max)
    }
}

impl Host for Proxy {
    fn now(&mut self) -> Result<Timestamp, HostError> {
        let mut nanos = 0;
        // SAFETY: the local outlives the call.
        check(unsafe { abi::clock_time_get(abi::CLOCK_MONOTONIC, 0, &mut nanos) })?;
        Ok(Timestamp::from_nanos(nanos))
    }

    fn random(&mut self) -> Result<u64, HostError> {
        let mut bytes = [0; 8];
        // SAFETY: the local outlives the call and has the size given.
        check(unsafe { abi::random_get(bytes.as_mut_ptr(), bytes.len()) })?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn request_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.header(HeaderMap::Request, name)
    }

    fn set_request_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
        self.set_header(HeaderMap::Request, name, value)
    }

    fn remove_request_header(&mut self, name: &str) -> Result<(), HostError> {
        // SAFETY: the name outlives the call.
        check(unsafe {
            abi::proxy_remove_header_map_value(HeaderMap::Request as u32, name.as_ptr(), name.len())
        })
    }

    fn request_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.buffer(abi::REQUEST_BODY, max)
    }

    fn attend(&mut self, context: u32) -> Result<(), HostError> {
        // SAFETY: no pointer is passed.
        check(unsafe { abi::proxy_set_effective_context(context) })
    }

    fn resume_request(&mut self) -> Result<(), HostError> {
        // SAFETY: no pointer is passed.
        check(unsafe { abi::proxy_continue_stream(abi::REQUEST_STREAM) })
    }

    fn respond(&mut self, response: &LocalResponse<'_>) -> Result<(), HostError> {
        let headers = pairs(response.headers);
        let (details, body) = (response.details, response.body);
        let grpc_status = response
            .grpc_status
            .and_then(|status| i32::try_from(status).ok());
        // SAFETY: details, body and headers outlive the call.
        check(unsafe {
            abi::proxy_send_local_response(
                u32::from(response.status),
                details.as_ptr(),
                details.len(),
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                grpc_status.unwrap_or(NO_GRPC_STATUS),
            )
        })
    }

    fn own_queue(&mut self, name: &str) -> Result<QueueId, HostError> {
        let mut queue = 0;
        // SAFETY: the name and the local outlive the call.
        check(unsafe { abi::proxy_register_shared_queue(name.as_ptr(), name.len(), &mut queue) })?;
        Ok(QueueId(queue))
    }

    fn enqueue(&mut self, queue: QueueId) -> Result<(), HostError> {
        // That something is there says all.
        const VALUE: &[u8] = b"!";
        // SAFETY: the value outlives the call.
        check(unsafe { abi::proxy_enqueue_shared_queue(queue.0, VALUE.as_ptr(), VALUE.len()) })
    }

    fn dequeue(&mut self, queue: QueueId) -> Result<bool, HostError> {
        let taken = receive(|data, length| {
            // SAFETY: the locals outlive the call.
            unsafe { abi::proxy_dequeue_shared_queue(queue.0, data, length) }
        });
        match taken {
            Ok(value) => Ok(value.is_some()),
            Err(HostError(abi::EMPTY)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn tick_every(&mut self, millis: u32) -> Result<(), HostError> {
        // SAFETY: no pointer is passed.
        check(unsafe { abi::proxy_set_tick_period_milliseconds(millis) })
    }

    fn response_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.header(HeaderMap::Response, name)
    }

    fn set_response_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
        self.set_header(HeaderMap::Response, name, value)
    }

    fn property(&mut self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        // The parts of a path are separated by zero bytes. Those that are asked
        // for at every request are put together without an allocation.
        let mut short = [0; SHORT_PATH];
        let long;
        let path = match joined(path, &mut short) {
            Some(path) => path,
            None => {
                long = path.join("\0");
                long.as_bytes()
            }
        };
        receive(|data, length| {
            // SAFETY: the path outlives the call, and so do the locals.
            unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, length) }
        })
    }

    fn set_property(&mut self, path: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: path and value outlive the call.
        check(unsafe {
            abi::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len())
        })
    }

    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Result<MetricId, HostError> {
        let kind = match kind {
            MetricKind::Counter => 0,
            MetricKind::Gauge => 1,
            MetricKind::Histogram => 2,
        };
        let mut id = 0;
        // SAFETY: the name and the local outlive the call.
        check(unsafe { abi::proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) })?;
        Ok(MetricId(id))
    }

    fn increment_metric(&mut self, id: MetricId, by: i64) -> Result<(), HostError> {
        // SAFETY: no pointer is passed.
        check(unsafe { abi::proxy_increment_metric(id.0, by) })
    }

    fn record_metric(&mut self, id: MetricId, value: u64) -> Result<(), HostError> {
        // SAFETY: no pointer is passed.
        check(unsafe { abi::proxy_record_metric(id.0, value) })
    }
}

/// With this the host derives the status of gRPC from that of HTTP.
const NO_GRPC_STATUS: i32 = -1;

/// Headers as the ABI moves them: the number of pairs, all sizes, then each name and
/// value with a zero byte behind it.
#[inline(never)]
fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (headers.len() as u32).to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Room for a property's path as most have it.
const SHORT_PATH: usize = 64;

/// The path with its parts separated by zero bytes, if `room` has room for it.
/// `room` is all zeros.
fn joined<'a>(path: &[&str], room: &'a mut [u8; SHORT_PATH]) -> Option<&'a [u8]> {
    let mut end = 0;
    for (number, part) in path.iter().enumerate() {
        let start = end + usize::from(number > 0);
        end = start + part.len();
        room.get_mut(start..end)?.copy_from_slice(part.as_bytes());
    }
    room.get(..end)
}

fn check(status: u32) -> Result<(), HostError> {
    match status {
        abi::OK => Ok(()),
        other => Err(HostError(other)),
    }
}

/// A value that the host gives by allocating it in this VM; `None` where the
/// host has none.
fn receive(
    call: impl FnOnce(*mut *mut u8, *mut usize) -> u32,
) -> Result<Option<Vec<u8>>, HostError> {
    receive_as(call, None)
}

/// Like [`receive`], with what a value of no bytes stands for.
fn receive_as(
    call: impl FnOnce(*mut *mut u8, *mut usize) -> u32,
    empty: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, HostError> {
    let (mut data, mut length) = (null_mut(), 0);
    match call(&mut data, &mut length) {
        abi::OK if data.is_null() || length == 0 => Ok(empty),
        abi::OK => {
            // SAFETY: the host allocated `length` bytes with this module's
            // `proxy_on_memory_allocate`, which makes them with `Vec`'s
            // allocator and exactly that capacity, and gave them away.
            Ok(Some(unsafe { Vec::from_raw_parts(data, length, length) }))
        }
        abi::NOT_FOUND => Ok(None),
        other => Err(HostError(other)),
    }
}
