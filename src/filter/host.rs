//! The real proxy, as a [`Host`].

use std::ptr::null_mut;

use super::abi::{self, HeaderMap};
use crate::host::{
    Host, HostError, MetricId, MetricKind, SetError, SharedData, Version, Versioned,
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

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        // The host takes 0 for "whatever it is". Any other number creates a key
        // that is missing and conflicts with one that is not, unless it is just
        // that key's version, which the greatest hardly ever is.
        let version = expected.map_or(u32::MAX, |version| version.0);
        // SAFETY: key and value outlive the call.
        let status = unsafe {
            abi::proxy_set_shared_data(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                version,
            )
        };
        match status {
            abi::OK => Ok(()),
            abi::CAS_MISMATCH => Err(SetError::Conflict),
            other => Err(SetError::Host(HostError(other))),
        }
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
