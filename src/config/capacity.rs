//! How much an upstream, a pool or a device takes at once.

use core::ops::RangeInclusive;

use super::error::Problems;
use super::json::{Json, Quoted};
use super::names;
use super::reader::{FirstUses, Node, Object, Path};

const CAPS: RangeInclusive<u32> = 1..=1_000_000;
/// A petabyte is more than any device has, and far from where numbers lose units.
const BYTES: RangeInclusive<f64> = 0.0..=1e15;
const DEVICE_BYTES: RangeInclusive<f64> = 1.0..=1e15;

/// How many requests may be in flight at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxInFlight {
    /// As many as come.
    #[default]
    Unlimited,
    /// So many, 1 to 1 000 000: never more, over all workers of the proxy.
    Fixed(u32),
    /// As many as the upstream turns out to do well with; see
    /// [`crate::estimate::ConcurrencyLimit`].
    Auto,
}

impl MaxInFlight {
    /// The most requests that may be in flight, where `learned` are as many as were
    /// learned to be right; `None` where nothing limits them.
    #[must_use]
    pub fn most(self, learned: Option<u64>) -> Option<u64> {
        match self {
            MaxInFlight::Unlimited => None,
            MaxInFlight::Fixed(most) => Some(u64::from(most)),
            MaxInFlight::Auto => learned,
        }
    }

    /// This, or `other` where it is no limit.
    pub(super) fn or(self, other: MaxInFlight) -> MaxInFlight {
        match self {
            MaxInFlight::Unlimited => other,
            limit => limit,
        }
    }
}

/// What a request takes of a device's memory, in bytes: `base + per_size x size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Of every request, 0 to 1e15; default 0.
    pub base: f64,
    /// For each unit of its size, 0 to 1e15; default 0. At least one of the two is
    /// above 0.
    pub per_size: f64,
}

impl Memory {
    /// What a request of this size takes, in whole bytes and at least one. One whose
    /// size is not known takes the base.
    #[must_use]
    pub fn of(&self, size: Option<f64>) -> u64 {
        let size = size.filter(|size| *size > 0.0).unwrap_or(0.0);
        // The conversion stops at the greatest number.
        ((self.base + self.per_size * size).ceil() as u64).max(1)
    }
}

/// Where an upstream keeps its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The name of a [`Device`].
    pub device: String,
    /// What a request takes there.
    pub memory: Memory,
}

/// A GPU or a host whose memory upstreams share.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Unique in the configuration.
    pub name: String,
    /// Bytes that requests may take together, 1 to 1e15.
    pub memory: u64,
}

/// Reads `max_in_flight`.
pub(super) fn read_max_in_flight(object: &Object<'_>, problems: &mut Problems) -> MaxInFlight {
    match object.get("max_in_flight") {
        None => MaxInFlight::Unlimited,
        Some(node) if matches!(node.json, Json::String(text) if text == "auto") => {
            MaxInFlight::Auto
        }
        Some(node) if matches!(node.json, Json::Number(_)) => {
            let most = node.whole(CAPS, problems);
            most.map_or(MaxInFlight::Unlimited, MaxInFlight::Fixed)
        }
        Some(node) => {
            node.refuse(&"a whole number from 1 to 1000000, or \"auto\"", problems);
            MaxInFlight::Unlimited
        }
    }
}

/// Reads `device` and `memory` of an upstream, which need each other.
pub(super) fn read_placement(object: &Object<'_>, problems: &mut Problems) -> Option<Placement> {
    const ALLOWED: &str = "an object with base, per_size or both, in bytes, such as \
                           {\"base\": 2e8, \"per_size\": 1.5e5}";
    let (device, memory) = match (object.get("device"), object.get("memory")) {
        (None, None) => return None,
        (Some(device), Some(memory)) => (device, memory),
        (Some(_), None) => {
            object.require("memory", ALLOWED, problems);
            return None;
        }
        (None, Some(_)) => {
            object.require("device", "the name of one of devices", problems);
            return None;
        }
    };
    let name = device.text_that(names::is_name, names::NAME, problems);
    let object = memory.object(ALLOWED, problems)?;
    object.allow_only(&["base", "per_size"], problems);
    let mut bytes = |key| match object.get(key) {
        Some(node) => node.real(BYTES, problems),
        None => Some(0.0),
    };
    let (base, per_size) = (bytes("base")?, bytes("per_size")?);
    if base == 0.0 && per_size == 0.0 {
        memory.refuse(&ALLOWED, problems);
        return None;
    }
    Some(Placement {
        device: name?.to_owned(),
        memory: Memory { base, per_size },
    })
}

/// Reads `devices`.
pub(super) fn read_devices(node: Node<'_>, problems: &mut Problems) -> Vec<Device> {
    let allowed = "an array of at least one device, such as \
                   [{\"name\": \"gpu-0\", \"memory\": 4e10}]";
    let items = node.items(allowed, problems).unwrap_or_default();
    let mut names = FirstUses::default();
    let mut devices = Vec::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let path = Path::Index(&node.path, index);
        devices.extend(read_device(
            Node { json, path },
            index,
            &mut names,
            problems,
        ));
    }
    devices
}

fn read_device(
    node: Node<'_>,
    index: usize,
    names: &mut FirstUses,
    problems: &mut Problems,
) -> Option<Device> {
    let object = node.object("an object with name and memory", problems)?;
    object.allow_only(&["name", "memory"], problems);
    let memory = object
        .require("memory", "the bytes that requests may take", problems)
        .and_then(|node| node.real(DEVICE_BYTES, problems));
    let node = object.require("name", names::NAME, problems)?;
    let name = node.text_that(names::is_name, names::NAME, problems)?;
    if let Some(first) = names.earlier(name, index) {
        problems.add(
            &node.path,
            &format_args!(
                "{} is already the name of devices[{first}]; give every device its own",
                Quoted(name)
            ),
        );
    }
    Some(Device {
        name: name.to_owned(),
        memory: memory? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(json: &str) -> Result<Config, String> {
        Config::parse(Some(json.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn caps_and_devices_are_read() {
        let config = parse(
            r#"{"max_in_flight": 9,
                "upstreams": [
                    {"cluster": "a", "max_in_flight": 8, "device": "gpu", "memory": {"base": 2e8}},
                    {"cluster": "b", "device": "gpu", "memory": {"per_size": 1.5}}],
                "devices": [{"name": "gpu", "memory": 4.0e10}]}"#,
        )
        .unwrap();
        let pool = &config.pools[0];
        assert_eq!(pool.max_in_flight, MaxInFlight::Fixed(9));
        let caps: Vec<_> = pool.upstreams.iter().map(|it| it.max_in_flight).collect();
        assert_eq!(caps, [MaxInFlight::Fixed(8), MaxInFlight::Unlimited]);
        let memory = |index: usize| pool.upstreams[index].placement.as_ref().unwrap().memory;
        assert_eq!(memory(0).of(Some(1e9)), 200_000_000);
        assert_eq!(memory(1).of(Some(3.0)), 5, "4.5, in whole bytes");
        assert_eq!(memory(1).of(None), 1);
        assert_eq!(config.devices[0].memory, 40_000_000_000);
        assert!(pool.heeds_size(), "the second upstream does");
    }

    #[test]
    fn endpoints_have_caps_too() {
        let config = parse(
            r#"{"cluster": "gpus", "endpoints": [
                {"address": "10.0.0.1:80", "max_in_flight": 2}, "10.0.0.2:80"]}"#,
        )
        .unwrap();
        let endpoints = config.pools[0].endpoints.as_ref().unwrap();
        let caps = endpoints.fixed.iter().flatten().map(|it| it.max_in_flight);
        let expected = [MaxInFlight::Fixed(2), MaxInFlight::Unlimited];
        assert_eq!(caps.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn caps_may_be_learned() {
        let config = parse(
            r#"{"pools": [
                {"name": "a", "match": {"path_prefix": "/a"}, "upstreams": [
                    {"cluster": "a", "max_in_flight": "auto"}, {"cluster": "b"}]},
                {"name": "b", "match": {"path_prefix": "/b"}, "max_in_flight": "auto", "upstreams": [
                    {"cluster": "c", "max_in_flight": 4}, {"cluster": "d"}]},
                {"name": "c", "match": {"path_prefix": "/c"}, "max_in_flight": "auto",
                    "cluster": "e", "endpoints": ["10.0.0.1:80"]},
                {"name": "d", "cluster": "f", "max_in_flight": 9,
                    "endpoints": {"max_in_flight": 8}, "admission": {"queue": {}}}]}"#,
        )
        .unwrap();
        let caps = |index: usize| -> Vec<_> {
            let pool = &config.pools[index];
            let listed = pool
                .endpoints
                .iter()
                .flat_map(|it| it.fixed.iter().flatten());
            let upstreams = pool.upstreams.iter().map(|it| it.max_in_flight);
            upstreams.chain(listed.map(|it| it.max_in_flight)).collect()
        };
        use MaxInFlight::{Auto, Fixed, Unlimited};
        assert_eq!(caps(0), [Auto, Unlimited]);
        assert_eq!(
            caps(1),
            [Fixed(4), Auto],
            "for those without one of their own"
        );
        assert_eq!(caps(2), [Auto]);
        let each = |index: usize| config.pools[index].endpoints.as_ref().unwrap().each;
        assert_eq!(each(3), Fixed(8));
        let all: Vec<_> = config.pools.iter().map(|it| it.max_in_flight).collect();
        assert_eq!(all, [Unlimited, Unlimited, Unlimited, Fixed(9)]);
        let config = parse(r#"{"cluster": "gpus", "max_in_flight": "auto"}"#).unwrap();
        assert!(config.pools[0].has_limits());
        assert_eq!(config.pools[0].endpoints.as_ref().unwrap().each, Auto);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let gpu = r#""devices": [{"name": "gpu", "memory": 100}]"#;
        let with = |upstream: &str| format!(r#"{{"upstreams": [{upstream}], {gpu}}}"#);
        let used = r#"{"cluster": "u", "device": "gpu", "memory": {"base": 1}}"#;
        for (json, said) in [
            (
                r#"{"upstreams": [{"cluster": "a", "max_in_flight": 0}]}"#.to_owned(),
                "upstreams[0].max_in_flight: 0 is not allowed; give a whole number from 1 to 1000000",
            ),
            (
                r#"{"upstreams": [{"cluster": "a"}], "max_in_flight": 2.5}"#.to_owned(),
                "max_in_flight: 2.5 is not allowed; give a whole number from 1 to 1000000",
            ),
            (
                r#"{"upstreams": [{"cluster": "a", "max_in_flight": "Auto"}]}"#.to_owned(),
                "upstreams[0].max_in_flight: \"Auto\" is not allowed; \
                 give a whole number from 1 to 1000000, or \"auto\"",
            ),
            (
                r#"{"cluster": "a", "endpoints": {}}"#.to_owned(),
                "endpoints.max_in_flight: missing; give how many requests each endpoint",
            ),
            (
                with(r#"{"cluster": "a", "device": "gpu"}"#),
                "upstreams[0].memory: missing; give an object with base, per_size or both",
            ),
            (
                with(r#"{"cluster": "a", "memory": {"base": 1}}"#),
                "upstreams[0].device: missing; give the name of one of devices",
            ),
            (
                with(r#"{"cluster": "a", "device": "gpu", "memory": {}}"#),
                "upstreams[0].memory: an empty object is not allowed; give an object with base",
            ),
            (
                with(r#"{"cluster": "a", "device": "gpu", "memory": {"base": -1}}"#),
                "upstreams[0].memory.base: -1 is not allowed; give a number from 0.0 to",
            ),
            (
                with(r#"{"cluster": "a", "device": "gpu-1", "memory": {"base": 1}}"#),
                r#"upstreams[0].device: "gpu-1" is none of devices; add it there"#,
            ),
            (
                with(r#"{"cluster": "a"}"#),
                r#"devices[0]: no upstream is on "gpu"; give one this device, or leave it out"#,
            ),
            (
                format!(r#"{{"upstreams": [{used}], "devices": [{{"name": "gpu"}}]}}"#),
                "devices[0].memory: missing; give the bytes that requests may take",
            ),
            (
                format!(
                    r#"{{"upstreams": [{used}], "devices": [{{"name": "gpu", "memory": 1}},
                        {{"name": "gpu", "memory": 2}}]}}"#
                ),
                r#"devices[1].name: "gpu" is already the name of devices[0]"#,
            ),
            (
                r#"{"pools": [
                    {"name": "x", "match": {"path_prefix": "/x"}, "upstreams": [{"cluster": "a", "max_in_flight": 2}]},
                    {"name": "y", "upstreams": [{"cluster": "a"}]}]}"#
                    .to_owned(),
                r#"pools[1].upstreams[0].max_in_flight: "a" is also in pools[0], where this is different"#,
            ),
        ] {
            let found = parse(&json).unwrap_err();
            assert!(found.contains(said), "{found}");
        }
    }
}
