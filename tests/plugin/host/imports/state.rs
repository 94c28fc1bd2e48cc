//! Shared data, shared queues and metrics.

use super::super::abi::{HostResult, Status};
use super::super::context::Context;
use super::super::guest::{Guest, answer};
use super::super::metrics::MetricType;
use super::super::shared_data::Consumer;
use super::super::vm::VmState;
use super::host_function;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Linker};

pub(super) fn define_shared_data(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
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
    host_function!(
        linker,
        "proxy_set_shared_data",
        |guest, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32| {
            let (key, value) = (guest.read(key, key_size)?, guest.read(value, value_size)?);
            let vm = guest.vm();
            vm.process
                .with(|process| process.data.set(&vm.vm_id, &key, &value, cas))
        }
    );
    Ok(())
}

pub(super) fn define_queues(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
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
    host_function!(
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
    host_function!(
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
    host_function!(
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

pub(super) fn define_metrics(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
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
    host_function!(
        linker,
        "proxy_increment_metric",
        |guest, id: u32, offset: i64| {
            let vm = guest.vm();
            vm.process
                .with(|process| vm.metric_ids.increment(&mut process.metrics, id, offset))
        }
    );
    host_function!(
        linker,
        "proxy_record_metric",
        |guest, id: u32, value: u64| {
            let vm = guest.vm();
            vm.process
                .with(|process| vm.metric_ids.record(&mut process.metrics, id, value))
        }
    );
    host_function!(
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
