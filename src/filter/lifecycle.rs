//! What begins and ends: the module, its contexts, and the memory that the host gives
//! values in.

use std::alloc::{Layout, alloc};
use std::ptr::{NonNull, null_mut};

use super::streams::{self, Stream};
use super::{log, root};

#[cfg(target_os = "wasi")]
unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// The first call, once for each VM.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the linker makes this function, for a reactor to call once.
    #[cfg(target_os = "wasi")]
    unsafe {
        __wasm_call_ctors();
    }
    log::install();
}

/// The version of the ABI is the name of this function.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Room for a value of so many bytes, which belongs to this module from then on; see
/// `receive` in [`host`](super::host). Null where there is none.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        Ok(layout) if size > 0 => {
            // SAFETY: the layout's size is not zero.
            unsafe { alloc(layout) }
        }
        Ok(_) => NonNull::dangling().as_ptr(),
        Err(_) => null_mut(),
    }
}

/// A stream of the root context `parent`, or a root context where that is 0.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    if parent == 0 {
        root::begin(context);
    } else {
        streams::begin(context, Stream::new(context, root::worker_of(parent)));
    }
}

/// The context is gone. For a stream this is an end like any other, in case the proxy has
/// told no other; for a root context it is the only one. There is no callback for
/// `proxy_on_done`, which would come between, so that the proxy saves the call.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    match streams::end(context) {
        Some(stream) => stream.end(),
        None => root::end(context),
    }
}
