//! Devices: memory that several servers share, and what happens when they take more of it than there is.

use std::time::Duration;

use super::job::Job;

/// A GPU, or a host, with memory for the requests of its servers. What their models themselves take is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// Its name, unique in the fleet.
    pub name: String,
    /// Bytes that the requests of all its servers may take together.
    pub memory: u64,
    /// How long its servers load their models again after they ran out of memory.
    pub reload: Duration,
}

/// What a request takes of a device while it runs, in bytes: `base + per_size x size`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryCost {
    /// Of every request.
    pub base: f64,
    /// For each unit of its size.
    pub per_size: f64,
}

impl MemoryCost {
    /// What this job takes, in whole bytes.
    pub fn of(&self, job: &Job) -> u64 {
        // No more than the filter counts for it, which rounds up.
        (self.base + self.per_size * job.size() as f64) as u64
    }
}

/// Where a server keeps its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The place of the device in its [`Fleet`](super::Fleet).
    pub device: usize,
    /// What a request takes there.
    pub memory: MemoryCost,
}

/// The devices of a fleet while it runs: who takes how much, and who has run out of memory.
///
/// A driver says after everything that happens to a server what its requests take now ([`take`](Self::take)), and asks whether the
/// server has to crash ([`crash`](Self::crash)).
#[derive(Clone, Debug)]
pub struct Devices {
    devices: Vec<Device>,
    servers: Vec<Tenant>,
}

#[derive(Clone, Debug)]
struct Device {
    spec: DeviceSpec,
    servers: Vec<usize>,
    crashes: u64,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    device: Option<usize>,
    taken: u64,
    /// Its device ran out of memory, and it has not heard of that.
    doomed: bool,
}

impl Devices {
    /// Empty devices, and where each server is.
    pub fn new(devices: &[DeviceSpec], servers: impl Iterator<Item = Option<Placement>>) -> Self {
        let tenant = |placement: Option<Placement>| Tenant {
            device: placement.map(|placement| placement.device),
            ..Tenant::default()
        };
        let servers: Vec<Tenant> = servers.map(tenant).collect();
        let device = |(number, spec): (usize, &DeviceSpec)| {
            let here = servers.iter().enumerate();
            let here = here.filter(|(_, server)| server.device == Some(number));
            Device {
                spec: spec.clone(),
                servers: here.map(|(place, _)| place).collect(),
                crashes: 0,
            }
        };
        Self {
            devices: devices.iter().enumerate().map(device).collect(),
            servers,
        }
    }

    /// The requests that run at this server take so many bytes now. If that is more than its device has left, all servers of the device
    /// run out of memory: their numbers.
    pub fn take(&mut self, server: usize, bytes: u64) -> Vec<usize> {
        let Some(tenant) = self.servers.get_mut(server) else {
            return Vec::new();
        };
        // What it has is lost already; it will say so when it knows.
        if !tenant.doomed {
            tenant.taken = bytes;
        }
        let device = tenant.device.and_then(|it| self.devices.get_mut(it));
        let Some(device) = device else {
            return Vec::new();
        };
        let taken = device.servers.iter().filter_map(|it| self.servers.get(*it));
        let taken = taken.fold(0, |sum: u64, it| sum.saturating_add(it.taken));
        if taken <= device.spec.memory {
            return Vec::new();
        }
        device.crashes += 1;
        for server in &device.servers {
            if let Some(tenant) = self.servers.get_mut(*server) {
                tenant.taken = 0;
                tenant.doomed = true;
            }
        }
        device.servers.clone()
    }

    /// Whether this server has run out of memory and was not told yet: how long it is to load then. Asking is telling.
    pub fn crash(&mut self, server: usize) -> Option<Duration> {
        let tenant = self.servers.get_mut(server)?;
        std::mem::take(&mut tenant.doomed)
            .then_some(tenant.device)
            .flatten()
            .and_then(|device| self.devices.get(device))
            .map(|device| device.spec.reload)
    }

    /// How often each device has run out of memory.
    pub fn crashes(&self) -> impl Iterator<Item = (&str, u64)> {
        let devices = self.devices.iter();
        devices.map(|device| (device.spec.name.as_str(), device.crashes))
    }
}
