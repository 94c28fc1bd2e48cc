use crate::model::{DeviceSpec, Devices, Server, ServerSpec};

/// The servers of a run, as they are at this moment.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(super) replicas: Vec<Replica>,
    pub(super) devices: Devices,
}

/// One server of a run.
#[derive(Clone, Debug)]
pub struct Replica {
    /// What it is.
    pub spec: ServerSpec,
    /// How it does. Time stands where it was last told.
    pub server: Server,
    /// Whether gateways may choose it.
    pub present: bool,
    /// Calls sent there that have not ended.
    pub outstanding: usize,
}

impl Fleet {
    /// Idle servers; `seed` decides what is random about them.
    pub(super) fn new(
        specs: &[ServerSpec],
        devices: &[DeviceSpec],
        present: &[bool],
        seed: u64,
    ) -> Self {
        let replicas = specs.iter().zip(present).zip(0..);
        let replicas = replicas.map(|((spec, present), number)| Replica {
            spec: spec.clone(),
            server: Server::new(spec, seed.wrapping_mul(0x1_0001).wrapping_add(number)),
            present: *present,
            outstanding: 0,
        });
        Self {
            replicas: replicas.collect(),
            devices: Devices::new(devices, specs.iter().map(|spec| spec.placement)),
        }
    }

    /// All servers, those that are not present too: a server's number is its place here.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The servers that may be chosen, by number.
    pub fn present(&self) -> impl Iterator<Item = (usize, &Replica)> {
        let all = self.replicas.iter().enumerate();
        all.filter(|(_, replica)| replica.present)
    }
}
