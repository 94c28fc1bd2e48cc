//! The host functions `env.proxy_*` that a VM may import.
//!
//! Functions that the filter does not use have no behaviour here: a call of one is a
//! trap that names it.

mod call;
mod state;
mod stream;

use super::abi::{HostResult, LogLevel, Status};
use super::context::{LogLine, Property};
use super::guest::{Guest, answer};
use super::vm::VmState;
use std::time::Duration;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Error, ExternType, Linker, Module};

/// Defines one host function: its name, its arguments, and what it does for
/// the VM that calls.
macro_rules! host_function {
    ($linker:ident, $name:literal, |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        $linker.func_wrap(
            "env",
            $name,
            |caller: Caller<'_, VmState> $(, $argument: $type)*| -> u32 {
                answer(caller, $name, |$guest: &mut Guest<'_, '_>| -> HostResult { $body })
            },
        )?
    };
}
use host_function;

/// Defines all that `module` imports.
pub(super) fn define(linker: &mut Linker<VmState>, module: &Module) -> Result<(), LinkerError> {
    define_absent(linker, module)?;
    linker.allow_shadowing(true);
    define_general(linker)?;
    stream::define_headers(linker)?;
    stream::define_bodies(linker)?;
    stream::define_control(linker)?;
    call::define_call_outs(linker)?;
    state::define_shared_data(linker)?;
    state::define_queues(linker)?;
    state::define_metrics(linker)
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
    host_function!(
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
    host_function!(linker, "proxy_get_log_level", |guest, level_to: u32| {
        guest.write_u32(level_to, LogLevel::Info as u32)
    });
    host_function!(
        linker,
        "proxy_get_current_time_nanoseconds",
        |guest, time_to: u32| {
            let time = guest.vm().process.with(|process| process.realtime);
            guest.write_u64(time_to, time)
        }
    );
    host_function!(
        linker,
        "proxy_set_tick_period_milliseconds",
        |guest, period: u32| {
            let root = guest.root().ok_or(Status::InternalFailure)?;
            root.tick_period = (period > 0).then(|| Duration::from_millis(period.into()));
            Ok(())
        }
    );
    host_function!(
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
    host_function!(linker, "proxy_done", |_guest| Ok(()));
    host_function!(
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
    host_function!(
        linker,
        "proxy_set_property",
        |guest, path: u32, path_size: u32, value: u32, value_size: u32| {
            let path = guest.read(path, path_size)?;
            let value = guest.read(value, value_size)?;
            let stream = guest.stream().ok_or(Status::NotFound)?;
            stream.filter_state.insert(path, value);
            Ok(())
        }
    );
    host_function!(
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
