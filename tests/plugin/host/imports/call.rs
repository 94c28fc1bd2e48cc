//! Requests that the VM sends itself.

use super::super::abi::{HostResult, Status, decode_pairs};
use super::super::context::CallOut;
use super::super::guest::{Guest, answer};
use super::super::headers::HeaderMap;
use super::super::vm::VmState;
use super::host_function;
use std::time::Duration;
use wasmi::errors::LinkerError;
use wasmi::{Caller, Linker};

pub(super) fn define_call_outs(linker: &mut Linker<VmState>) -> Result<(), LinkerError> {
    host_function!(
        linker,
        "proxy_http_call",
        |guest,
         cluster: u32,
         cluster_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         body_size: u32,
         trailers: u32,
         trailers_size: u32,
         timeout: u32,
         token_to: u32| {
            let cluster = guest.read(cluster, cluster_size)?;
            let cluster = String::from_utf8_lossy(&cluster).into_owned();
            let headers = HeaderMap::new(decode_pairs(&guest.read(headers, headers_size)?));
            guest.read(body, body_size)?;
            guest.read(trailers, trailers_size)?;
            let process = guest.vm().process.clone();
            if process.with(|process| process.missing_clusters.contains(&cluster)) {
                return Err(Status::BadArgument);
            }
            let needed: [&[u8]; 3] = [b":method", b":path", b":authority"];
            if needed.iter().any(|name| headers.get(name).is_none()) {
                return Err(Status::BadArgument);
            }
            let token = guest.vm().next_token();
            let call = CallOut {
                token,
                cluster,
                headers,
                timeout: Duration::from_millis(timeout.into()),
            };
            let root = guest.root().ok_or(Status::InternalFailure)?;
            root.calls.push(call);
            guest.write_u32(token_to, token)
        }
    );
    Ok(())
}
