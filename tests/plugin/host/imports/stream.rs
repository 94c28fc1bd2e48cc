//! Header maps, bodies and what becomes of a stream.

use super::super::abi::{BufferType, HostResult, MapType, Status, StreamType};
use super::super::abi::{decode_pairs, encode_pairs};
use super::super::context::{LocalResponse, StreamState};
use super::super::guest::{Guest, answer};
use super::super::headers::HeaderMap;
use super::super::vm::VmState;
use super::host_function;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Linker};

pub(super) fn define_headers(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
        linker,
        "proxy_get_header_map_pairs",
        |guest, map: u32, data_to: u32, size_to: u32| {
            let map = MapType::try_from(map)?;
            // A map out of its phase reads as an empty one.
            let map = guest.stream().and_then(|stream| stream.map(map)).cloned();
            let pairs = map.unwrap_or_default();
            let bytes = if pairs.len() == 0 {
                Vec::new()
            } else {
                encode_pairs(pairs.pairs())
            };
            guest.give(&bytes, data_to, size_to)
        }
    );
    host_function!(
        linker,
        "proxy_set_header_map_pairs",
        |guest, map: u32, data: u32, size: u32| {
            let map = MapType::try_from(map)?;
            let pairs = decode_pairs(&guest.read(data, size)?);
            *map_mut(guest, map)? = HeaderMap::new(pairs);
            Ok(())
        }
    );
    host_function!(
        linker,
        "proxy_get_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value_to: u32, size_to: u32| {
            let map = MapType::try_from(map)?;
            let name = guest.read(name, name_size)?;
            let value = if map == MapType::CallResponseHeaders {
                let answer = guest.root().and_then(|root| root.answer.as_ref());
                let headers = &answer.ok_or(Status::BadArgument)?.headers;
                headers.get(&name).ok_or(Status::NotFound)?.to_vec()
            } else {
                let stream = guest.stream().ok_or(Status::BadArgument)?;
                stream.header(map, &name)?.to_vec()
            };
            guest.give(&value, value_to, size_to)
        }
    );
    host_function!(
        linker,
        "proxy_add_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, name_size)?);
            let value = guest.read(value, value_size)?;
            map_mut(guest, map)?.add(&name, &value);
            Ok(())
        }
    );
    host_function!(
        linker,
        "proxy_replace_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, name_size)?);
            let value = guest.read(value, value_size)?;
            map_mut(guest, map)?.replace(&name, &value);
            let process = guest.vm().process.clone();
            process.note_header(&name, &value);
            Ok(())
        }
    );
    host_function!(
        linker,
        "proxy_remove_header_map_value",
        |guest, map: u32, name: u32, size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, size)?);
            map_mut(guest, map)?.remove(&name);
            Ok(())
        }
    );
    Ok(())
}

fn map_mut<'a>(guest: &'a mut Guest<'_, '_>, map: MapType) -> HostResult<&'a mut HeaderMap> {
    let stream = guest.stream().ok_or(Status::BadArgument)?;
    stream.map_mut(map)
}

pub(super) fn define_bodies(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
        linker,
        "proxy_get_buffer_bytes",
        |guest, buffer: u32, start: u32, length: u32, data_to: u32, size_to: u32| {
            let content = buffer_content(guest, BufferType::try_from(buffer)?)?;
            let end = start.checked_add(length).ok_or(Status::BadArgument)?;
            let end = content.len().min(end as usize);
            let slice = content.get(start as usize..end).unwrap_or_default();
            guest.give(slice, data_to, size_to)
        }
    );
    Ok(())
}

fn buffer_content(guest: &mut Guest<'_, '_>, buffer: BufferType) -> HostResult<Vec<u8>> {
    let body = |stream: &StreamState| match buffer {
        BufferType::RequestBody if stream.request_body.open => stream.request_body.content.clone(),
        BufferType::ResponseBody if stream.response_body.open => {
            stream.response_body.content.clone()
        }
        _ => Vec::new(),
    };
    match buffer {
        BufferType::RequestBody | BufferType::ResponseBody => Ok(guest
            .stream()
            .map(|stream| body(stream))
            .unwrap_or_default()),
        BufferType::VmConfiguration => Ok(Vec::new()),
        BufferType::PluginConfiguration => match guest.root() {
            Some(root) if root.configuring => Ok(root.plugin.configuration.clone()),
            _ => Err(Status::NotFound),
        },
        BufferType::CallResponseBody => {
            let answer = guest.root().and_then(|root| root.answer.as_ref());
            answer
                .map(|answer| answer.body.clone())
                .ok_or(Status::NotFound)
        }
        BufferType::Other => Err(Status::NotFound),
    }
}

pub(super) fn define_control(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(linker, "proxy_continue_stream", |guest, stream: u32| {
        match StreamType::try_from(stream)? {
            StreamType::Upstream => return Err(Status::Unimplemented),
            StreamType::Downstream => return Ok(()),
            StreamType::Request | StreamType::Response => {}
        }
        if let Some(stream) = guest.stream() {
            stream.resume();
        }
        Ok(())
    });
    host_function!(linker, "proxy_close_stream", |guest, stream: u32| {
        StreamType::try_from(stream)?;
        if let Some(stream) = guest.stream() {
            stream.closed = true;
        }
        Ok(())
    });
    host_function!(
        linker,
        "proxy_send_local_response",
        |guest,
         status: u32,
         details: u32,
         details_size: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         grpc_status: u32| {
            guest.read(details, details_size)?;
            let body = guest.read(body, body_size)?;
            let headers = HeaderMap::new(decode_pairs(&guest.read(headers, headers_size)?));
            guest.vm().stop_iteration = true;
            let stream = guest.stream().ok_or(Status::BadArgument)?;
            if stream.local_response.is_some() {
                return Err(Status::BadArgument);
            }
            stream.local_response = Some(LocalResponse {
                status,
                headers,
                body,
                grpc_status: (grpc_status != u32::MAX).then_some(grpc_status),
            });
            Ok(())
        }
    );
    Ok(())
}
