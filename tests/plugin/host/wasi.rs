//! The few WASI functions that Rust's standard library asks of a VM's host.

use super::abi::{LogLevel, Status};
use super::context::LogLine;
use super::guest::{Guest, answer};
use super::vm::VmState;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Error, Linker};

/// A WASI error number.
struct Errno(u32);

const BAD_FILE: Errno = Errno(8);
const FAULT: Errno = Errno(21);
const INVALID: Errno = Errno(28);
const NOT_SUPPORTED: Errno = Errno(58);

impl From<Errno> for u32 {
    fn from(errno: Errno) -> Self {
        errno.0
    }
}

impl From<Status> for Errno {
    /// Nothing but memory access can fail in these functions.
    fn from(_: Status) -> Self {
        FAULT
    }
}

macro_rules! define {
    ($linker:ident, $name:literal, |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        $linker.func_wrap(
            "wasi_snapshot_preview1",
            $name,
            |caller: Caller<'_, VmState> $(, $argument: $type)*| -> u32 {
                answer(caller, $name, |$guest: &mut Guest<'_, '_>| -> Result<(), Errno> { $body })
            },
        )?
    };
}

/// Defines all of them.
pub(super) fn define(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    define!(
        linker,
        "environ_get",
        |_guest, _pointers_to: u32, _values_to: u32| Ok(())
    );
    define!(
        linker,
        "environ_sizes_get",
        |guest, count_to: u32, size_to: u32| {
            guest.write_u32(count_to, 0)?;
            Ok(guest.write_u32(size_to, 0)?)
        }
    );
    define!(
        linker,
        "fd_write",
        |guest, file: u32, vectors: u32, count: u32, written_to: u32| {
            let level = match file {
                1 => LogLevel::Info,
                2 => LogLevel::Error,
                _ => return Err(BAD_FILE),
            };
            let bytes = gather(guest, vectors, count)?;
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            guest.vm().log.push(LogLine { level, text });
            Ok(guest.write_u32(written_to, bytes.len() as u32)?)
        }
    );
    define!(
        linker,
        "clock_time_get",
        |guest, clock: u32, _precision: u64, time_to: u32| {
            let (realtime, monotonic) = guest.vm().process.with(|p| (p.realtime, p.monotonic));
            match clock {
                0 => Ok(guest.write_u64(time_to, realtime)?),
                1 => Ok(guest.write_u64(time_to, monotonic)?),
                _ => Err(NOT_SUPPORTED),
            }
        }
    );
    define!(linker, "random_get", |guest, bytes_to: u32, size: u32| {
        const MAX_SIZE: u32 = 64 * 1024;
        if size > MAX_SIZE {
            return Err(INVALID);
        }
        let mut bytes = vec![0; size as usize];
        guest
            .vm()
            .process
            .with(|process| process.random.fill(&mut bytes));
        Ok(guest.write(bytes_to, &bytes)?)
    });
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |_: Caller<'_, VmState>, code: u32| -> Result<(), Error> {
            Err(Error::new(format!("the VM called proc_exit({code})")))
        },
    )?;
    Ok(())
}

/// Collects the bytes that an array of (pointer, size) pairs refers to.
fn gather(guest: &mut Guest<'_, '_>, vectors: u32, count: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    for pair in guest
        .read(vectors, count.saturating_mul(8))?
        .as_chunks::<8>()
        .0
    {
        let [a, b, c, d, e, f, g, h] = *pair;
        let pointer = u32::from_le_bytes([a, b, c, d]);
        bytes.extend(guest.read(pointer, u32::from_le_bytes([e, f, g, h]))?);
    }
    Ok(bytes)
}
