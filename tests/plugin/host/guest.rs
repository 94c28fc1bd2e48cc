//! The way into a VM's memory during a host call.

use super::abi::{HostResult, Status};
use super::calls::Call;
use super::context::{Context, RootState, StreamState};
use super::vm::VmState;
use wasmi::{AsContext, AsContextMut, Caller, Memory};

/// A VM that is waiting for the answer to a host call.
pub(super) struct Guest<'a, 'vm> {
    caller: &'a mut Caller<'vm, VmState>,
    bytes_in: usize,
    bytes_out: usize,
}

/// Runs a host call: plans first, then the call itself, then the ledger's entry.
/// Returns the code that the VM gets, 0 for success.
pub(super) fn answer<E: Into<u32>>(
    mut caller: Caller<'_, VmState>,
    function: &'static str,
    body: impl FnOnce(&mut Guest<'_, '_>) -> Result<(), E>,
) -> u32 {
    let plan = caller.data_mut().ledger.begin(function);
    if let Some(interruption) = plan.interruption {
        interruption();
    }
    if let Some(watcher) = plan.watcher {
        watcher(function);
    }
    let mut guest = Guest {
        caller: &mut caller,
        bytes_in: 0,
        bytes_out: 0,
    };
    let code = match plan.fault {
        Some(code) => code,
        None => body(&mut guest).err().map_or(0, Into::into),
    };
    let Guest {
        bytes_in,
        bytes_out,
        ..
    } = guest;
    let state = caller.data_mut();
    state.ledger.record(Call {
        function,
        callback: state.callback,
        bytes_in,
        bytes_out,
        code,
    });
    if plan.traps {
        // Without fuel, the next instruction traps.
        let emptied = caller.set_fuel(0);
        emptied.expect("the engine meters fuel");
    }
    code
}

impl From<Status> for u32 {
    fn from(status: Status) -> Self {
        status as Self
    }
}

impl Guest<'_, '_> {
    pub(super) fn vm(&mut self) -> &mut VmState {
        self.caller.data_mut()
    }

    /// The stream that the call is about.
    pub(super) fn stream(&mut self) -> Option<&mut StreamState> {
        match self.vm().context() {
            Some(Context::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    /// The root context that the call is about, be it made from a stream of its.
    pub(super) fn root(&mut self) -> Option<&mut RootState> {
        self.vm().root()
    }

    pub(super) fn read(&mut self, pointer: u32, size: u32) -> HostResult<Vec<u8>> {
        let mut bytes = vec![0; self.checked_size(pointer, size)?];
        let memory = self.memory()?;
        let read = memory.read(self.caller.as_context(), pointer as usize, &mut bytes);
        read.map_err(|_| Status::InvalidMemoryAccess)?;
        self.bytes_in += bytes.len();
        Ok(bytes)
    }

    pub(super) fn write(&mut self, pointer: u32, bytes: &[u8]) -> HostResult {
        let memory = self.memory()?;
        let written = memory.write(self.caller.as_context_mut(), pointer as usize, bytes);
        written.map_err(|_| Status::InvalidMemoryAccess)?;
        self.bytes_out += bytes.len();
        Ok(())
    }

    pub(super) fn write_u32(&mut self, pointer: u32, value: u32) -> HostResult {
        self.write(pointer, &value.to_le_bytes())
    }

    pub(super) fn write_u64(&mut self, pointer: u32, value: u64) -> HostResult {
        self.write(pointer, &value.to_le_bytes())
    }

    /// Copies `bytes` to memory that the VM allocates, and writes where they are.
    /// Of no bytes the address is 0.
    pub(super) fn give(&mut self, bytes: &[u8], pointer_to: u32, size_to: u32) -> HostResult {
        let size = bytes.len() as u32;
        let pointer = if bytes.is_empty() {
            0
        } else {
            self.allocate(size)?
        };
        self.write(pointer, bytes)?;
        self.write_u32(pointer_to, pointer)?;
        self.write_u32(size_to, size)
    }

    fn allocate(&mut self, size: u32) -> HostResult<u32> {
        let function = self.caller.get_export("proxy_on_memory_allocate");
        let function = function.and_then(wasmi::Extern::into_func);
        let function = function.ok_or(Status::InvalidMemoryAccess)?;
        let typed = function.typed::<u32, u32>(self.caller.as_context());
        let typed = typed.map_err(|_| Status::InvalidMemoryAccess)?;
        let pointer = typed.call(self.caller.as_context_mut(), size);
        pointer.map_err(|_| Status::InvalidMemoryAccess)
    }

    fn memory(&self) -> HostResult<Memory> {
        let memory = self.caller.get_export("memory");
        let memory = memory.and_then(wasmi::Extern::into_memory);
        memory.ok_or(Status::InvalidMemoryAccess)
    }

    /// Refuses a size beyond the VM's memory before the host allocates as much.
    fn checked_size(&self, pointer: u32, size: u32) -> HostResult<usize> {
        let end = pointer as usize + size as usize;
        if end > self.memory()?.data_size(self.caller.as_context()) {
            return Err(Status::InvalidMemoryAccess);
        }
        Ok(size as usize)
    }
}
