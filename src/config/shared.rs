//! What several pools say about the same upstreams and devices.

use super::capacity::Device;
use super::error::Problems;
use super::json::Quoted;
use super::pool::{Pool, Upstream};
use super::reader::{Object, Path};

/// Refuses devices that are not there or that nobody uses, and upstreams of which two
/// pools say different things: what a server takes does not depend on who asks.
pub(super) fn refuse_contradictions(
    pools: &[Pool],
    devices: &[Device],
    root: &Object<'_>,
    problems: &mut Problems,
) {
    let all = Path::Key(&root.path, "pools");
    let mut seen: Vec<(&Upstream, usize)> = Vec::new();
    for (number, pool) in pools.iter().enumerate() {
        let place = match root.get("pools") {
            Some(_) => Path::Index(&all, number),
            None => root.path,
        };
        let upstreams = Path::Key(&place, "upstreams");
        for (index, upstream) in pool.upstreams.iter().enumerate() {
            let path = Path::Index(&upstreams, index);
            let device = upstream.placement.as_ref().map(|it| &it.device);
            if let Some(name) = device
                && !devices.iter().any(|it| it.name == *name)
            {
                problems.add(
                    &Path::Key(&path, "device"),
                    &format_args!("{} is none of devices; add it there", Quoted(name)),
                );
            }
            let Some((first, of)) = seen.iter().find(|(it, _)| it.cluster == upstream.cluster)
            else {
                seen.push((upstream, number));
                continue;
            };
            let differ = [
                (
                    "max_in_flight",
                    first.max_in_flight != upstream.max_in_flight,
                ),
                (
                    "device",
                    first.placement.as_ref().map(|it| &it.device) != device,
                ),
            ];
            for (key, _) in differ.iter().filter(|(_, differs)| *differs) {
                problems.add(
                    &Path::Key(&path, key),
                    &format_args!(
                        "{} is also in pools[{of}], where this is different; say the same in both",
                        Quoted(&upstream.cluster)
                    ),
                );
            }
        }
    }
    let list = Path::Key(&root.path, "devices");
    for (index, device) in devices.iter().enumerate() {
        let mut placements = seen.iter().filter_map(|(it, _)| it.placement.as_ref());
        if !placements.any(|it| it.device == device.name) {
            problems.add(
                &Path::Index(&list, index),
                &format_args!(
                    "no upstream is on {}; give one this device, or leave it out",
                    Quoted(&device.name)
                ),
            );
        }
    }
}
