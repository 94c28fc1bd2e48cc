//! Where the gateways of these tests run: one suite, two places.

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use lab::gateway::{Network, Place};

/// Says where: `local`, which is the default, or `containers`.
const VARIABLE: &str = "PACELINE_HARNESS";

/// The place that [`VARIABLE`] names. All containers share one network; it goes
/// when this process ends.
pub(crate) fn place() -> Place<'static> {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    match env::var(VARIABLE).as_deref() {
        Err(env::VarError::NotPresent) | Ok("local") => Place::Process,
        Ok("containers") => Place::Container(
            NETWORK.get_or_init(|| Network::create().unwrap_or_else(|error| panic!("{error}"))),
        ),
        other => panic!("{VARIABLE}: {other:?} is not allowed; give local or containers"),
    }
}

/// Where servers must listen to be reached from there.
pub(crate) fn host() -> IpAddr {
    match place() {
        Place::Process => Ipv4Addr::LOCALHOST.into(),
        Place::Container(network) => network.host(),
    }
}
