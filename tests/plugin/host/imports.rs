//! The host functions `env.proxy_*` that a VM may import.
//!
//! The SDK imports all of the ABI, whatever the filter uses. Functions that it
//! does not use have no behaviour here: a call of one is a trap that names it.

use super::abi::{BufferType, HostResult, LogLevel, MapType, Status, StreamType};
use super::abi::{decode_pairs, encode_pairs};
use super::context::{Context, LocalResponse, LogLine, Property};
use super::guest::{Guest, answer};
use super::headers::HeaderMap;
use super::metrics::MetricType;
use super::shared_data::Consumer;
use super::vm::VmState;
use std::time::Duration;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Error, ExternType, Linker, Module};

macro_rules! define {
    ($linker:ident, $name:literal, |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        $linker.func_wrap("env", $name, |caller: Caller<'_, VmState> $(, $argument: $type)*| -> u32 {
            answer(caller, $name, |$guest: &mut Guest<'_, '_>| -> HostResult { $body })
        })?
    };
}

/// Defines all that `module` imports.
pub(super) fn define(linker: &mut Linker<VmState>, module: &Module) -> Result<(), LinkerError> {
    define_absent(linker, module)?;
    linker.allow_shadowing(true);
    define_general(linker)?;
    define_headers_and_bodies(linker)?;
    define_stream_control(linker)?;
    define_shared_state(linker)?;
    define_metrics(linker)
}

/// Makes every import a trap, for those without a definition of their own.
fn define_absent(linker: &mut Linker<VmState>, module: &Module) -> Result<(), LinkerError> {
    for import in module.imports().filter(|import| import.module() == "env") {
        let ExternType::Func(signature) = import.ty() else {
            continue;
        };
        let name = import.name().to_owned();
        linker.func_new("env", import.name(), signature.clone(), move |_, _, _| {
            Err(Error::new(format!("this host has no {name}")))
        })?;
    }
    Ok(())
}

fn define_general(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(
        linker,
        "proxy_log",
        |guest, level: u32, text: u32, size: u32| {
            let level = LogLevel::try_from(level)?;
            let text = guest.read(text, size)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            guest.vm().log.push(LogLine { level, text });
            Ok(())
        }
    );
    define!(linker, "proxy_get_log_level", |guest, level_to: u32| {
        guest.write_u32(level_to, LogLevel::Info as u32)
    });
    define!(
        linker,
        "proxy_get_current_time_nanoseconds",
        |guest, time_to: u32| {
            let time = guest.vm().process.with(|process| process.realtime);
            guest.write_u64(time_to, time)
        }
    );
    define!(
        linker,
        "proxy_set_tick_period_milliseconds",
        |guest, period: u32| {
            let root = guest.root().ok_or(Status::InternalFailure)?;
            root.tick_period = (period > 0).then(|| Duration::from_millis(period.into()));
            Ok(())
        }
    );
    define!(
        linker,
        "proxy_set_effective_context",
        |guest, context: u32| {
            let vm = guest.vm();
            if !vm.contexts.contains_key(&context) {
                return Err(Status::BadArgument);
            }
            vm.effective = context;
            Ok(())
        }
    );
    define!(linker, "proxy_done", |_guest| Ok(()));
    define!(
        linker,
        "proxy_call_foreign_function",
        |guest,
         name: u32,
         name_size: u32,
         arguments: u32,
         size: u32,
         _result_to: u32,
         _size_to: u32| {
            let name = guest.read(name, name_size)?;
            guest.read(arguments, size)?;
            match name.as_slice() {
                b"clear_route_cache" => Ok(()),
                _ => Err(Status::NotFound),
            }
        }
    );
    define!(
        linker,
        "proxy_get_property",
        |guest, path: u32, size: u32, value_to: u32, size_to: u32| {
            let path = guest.read(path, size)?;
            let value = property(guest, &path)?;
            guest.give(&value, value_to, size_to)
        }
    );
    Ok(())
}

fn property(guest: &mut Guest<'_, '_>, path: &[u8]) -> HostResult<Vec<u8>> {
    if let Some(stream) = guest.stream()
        && let Some(property) = stream.properties.get(path)
    {
        return match property.clone() {
            Property::Value(value) => Ok(value),
            Property::Failing(status) => Err(status),
        };
    }
    let vm_id = guest.vm().vm_id.clone();
    let plugin = &guest.root().ok_or(Status::NotFound)?.plugin;
    match path {
        b"plugin_name" => Ok(plugin.name.clone().into_bytes()),
        b"plugin_root_id" => Ok(plugin.root_id.clone().into_bytes()),
        b"plugin_vm_id" => Ok(vm_id),
        _ => Err(Status::NotFound),
    }
}

fn define_headers_and_bodies(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(
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
    define!(
        linker,
        "proxy_set_header_map_pairs",
        |guest, map: u32, data: u32, size: u32| {
            let map = MapType::try_from(map)?;
            let pairs = decode_pairs(&guest.read(data, size)?);
            *map_mut(guest, map)? = HeaderMap::new(pairs);
            Ok(())
        }
    );
    define!(
        linker,
        "proxy_get_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value_to: u32, size_to: u32| {
            let map = MapType::try_from(map)?;
            let name = guest.read(name, name_size)?;
            let stream = guest.stream().ok_or(Status::BadArgument)?;
            let value = stream.header(map, &name)?.to_vec();
            guest.give(&value, value_to, size_to)
        }
    );
    define!(
        linker,
        "proxy_add_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, name_size)?);
            let value = guest.read(value, value_size)?;
            map_mut(guest, map)?.add(&name, &value);
            Ok(())
        }
    );
    define!(
        linker,
        "proxy_replace_header_map_value",
        |guest, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, name_size)?);
            let value = guest.read(value, value_size)?;
            map_mut(guest, map)?.replace(&name, &value);
            Ok(())
        }
    );
    define!(
        linker,
        "proxy_remove_header_map_value",
        |guest, map: u32, name: u32, size: u32| {
            let (map, name) = (MapType::try_from(map)?, guest.read(name, size)?);
            map_mut(guest, map)?.remove(&name);
            Ok(())
        }
    );
    define!(
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

fn map_mut<'a>(guest: &'a mut Guest<'_, '_>, map: MapType) -> HostResult<&'a mut HeaderMap> {
    let stream = guest.stream().ok_or(Status::BadArgument)?;
    stream.map_mut(map)
}

fn buffer_content(guest: &mut Guest<'_, '_>, buffer: BufferType) -> HostResult<Vec<u8>> {
    let body = |stream: &super::context::StreamState| match buffer {
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
        BufferType::Other => Err(Status::NotFound),
    }
}

fn define_stream_control(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(linker, "proxy_continue_stream", |guest, stream: u32| {
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
    define!(linker, "proxy_close_stream", |guest, stream: u32| {
        StreamType::try_from(stream)?;
        if let Some(stream) = guest.stream() {
            stream.closed = true;
        }
        Ok(())
    });
    define!(
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
         _grpc_status: u32| {
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
            });
            Ok(())
        }
    );
    Ok(())
}

fn define_shared_state(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(
        linker,
        "proxy_get_shared_data",
        |guest, key: u32, size: u32, value_to: u32, size_to: u32, cas_to: u32| {
            let key = guest.read(key, size)?;
            let vm = guest.vm();
            let (value, cas) = vm
                .process
                .with(|process| process.data.get(&vm.vm_id, &key))?;
            guest.give(&value, value_to, size_to)?;
            guest.write_u32(cas_to, cas)
        }
    );
    define!(
        linker,
        "proxy_set_shared_data",
        |guest, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32| {
            let (key, value) = (guest.read(key, key_size)?, guest.read(value, value_size)?);
            let vm = guest.vm();
            vm.process
                .with(|process| process.data.set(&vm.vm_id, &key, &value, cas))
        }
    );
    define!(
        linker,
        "proxy_register_shared_queue",
        |guest, name: u32, size: u32, token_to: u32| {
            let name = guest.read(name, size)?;
            let vm = guest.vm();
            let root = match vm.context() {
                Some(Context::Stream(stream)) => stream.root,
                _ => vm.current,
            };
            let consumer = Consumer { vm: vm.index, root };
            let token = vm
                .process
                .with(|process| process.queues.register(&vm.vm_id, &name, consumer));
            guest.write_u32(token_to, token)
        }
    );
    define!(
        linker,
        "proxy_resolve_shared_queue",
        |guest, vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, token_to: u32| {
            let (vm_id, name) = (guest.read(vm_id, vm_id_size)?, guest.read(name, name_size)?);
            let vm = guest.vm();
            let vm_id = if vm_id.is_empty() {
                vm.vm_id.clone()
            } else {
                vm_id
            };
            let token = vm
                .process
                .with(|process| process.queues.resolve(&vm_id, &name));
            guest.write_u32(token_to, token.ok_or(Status::NotFound)?)
        }
    );
    define!(
        linker,
        "proxy_enqueue_shared_queue",
        |guest, token: u32, data: u32, size: u32| {
            let data = guest.read(data, size)?;
            guest
                .vm()
                .process
                .with(|process| process.queues.enqueue(token, &data))
        }
    );
    define!(
        linker,
        "proxy_dequeue_shared_queue",
        |guest, token: u32, data_to: u32, size_to: u32| {
            let data = guest
                .vm()
                .process
                .with(|process| process.queues.dequeue(token))?;
            guest.give(&data, data_to, size_to)
        }
    );
    Ok(())
}

fn define_metrics(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(
        linker,
        "proxy_define_metric",
        |guest, kind: u32, name: u32, size: u32, id_to: u32| {
            let (kind, name) = (MetricType::try_from(kind)?, guest.read(name, size)?);
            let name = String::from_utf8_lossy(&name).into_owned();
            let vm = guest.vm();
            let id = vm
                .process
                .with(|process| vm.metric_ids.define(&mut process.metrics, kind, &name));
            guest.write_u32(id_to, id)
        }
    );
    define!(
        linker,
        "proxy_increment_metric",
        |guest, id: u32, offset: i64| {
            let vm = guest.vm();
            vm.process
                .with(|process| vm.metric_ids.increment(&mut process.metrics, id, offset))
        }
    );
    define!(
        linker,
        "proxy_record_metric",
        |guest, id: u32, value: u64| {
            let vm = guest.vm();
            vm.process
                .with(|process| vm.metric_ids.record(&mut process.metrics, id, value))
        }
    );
    define!(
        linker,
        "proxy_get_metric",
        |guest, id: u32, value_to: u32| {
            let vm = guest.vm();
            let value = vm
                .process
                .with(|process| vm.metric_ids.get(&mut process.metrics, id))?;
            guest.write_u64(value_to, value)
        }
    );
    Ok(())
}
