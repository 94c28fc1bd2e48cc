//! Fleets that need no file.

use std::num::NonZeroUsize;

use super::control::service_unavailable;
use super::fleet::{BatchingSpec, Fleet, Kind, ServerSpec, ServiceTime, SlotSpec};
use super::fleet_file::{DEFAULT_MAX_SEQUENCES, DEFAULT_TOKEN_BUDGET, default_model};
use super::step_cost::Gpu;

impl Fleet {
    /// The names of the presets, and what they are.
    pub const PRESETS: [(&'static str, &'static str); 4] = [
        ("unequal8", "eight LLM servers: 2 H100, 4 A100, 2 A40"),
        ("equal8", "eight LLM servers: 8 A100"),
        (
            "slots8",
            "eight servers of one request at a time: 2 of speed 1.7, 4 of 1, 2 of 0.4",
        ),
        (
            "slots8-equal",
            "eight servers of one request at a time, all of speed 1",
        ),
    ];

    /// The preset of that name, if there is one.
    pub fn preset(name: &str) -> Option<Self> {
        let servers: Vec<ServerSpec> = match name {
            "unequal8" => [(Gpu::H100, 2), (Gpu::A100, 4), (Gpu::A40, 2)]
                .into_iter()
                .flat_map(|(gpu, count)| gpus(gpu, count))
                .collect(),
            "equal8" => gpus(Gpu::A100, 8).collect(),
            "slots8" => [("fast", 1.7, 2), ("middle", 1.0, 4), ("slow", 0.4, 2)]
                .into_iter()
                .flat_map(|(name, speed, count)| slots(name, speed, count))
                .collect(),
            "slots8-equal" => slots("slot", 1.0, 8).collect(),
            _ => return None,
        };
        Some(Self::new(servers, Vec::new()))
    }
}

fn gpus(gpu: Gpu, count: usize) -> impl Iterator<Item = ServerSpec> {
    (1..=count).map(move |number| {
        let spec = BatchingSpec {
            cost: gpu.step_cost(),
            kv_tokens: gpu.kv_tokens(),
            max_sequences: DEFAULT_MAX_SEQUENCES,
            token_budget: DEFAULT_TOKEN_BUDGET,
        };
        server(gpu.name(), number, 1.0, Kind::Batching(spec))
    })
}

fn slots(name: &'static str, speed: f64, count: usize) -> impl Iterator<Item = ServerSpec> {
    (1..=count).map(move |number| {
        let spec = SlotSpec {
            slots: NonZeroUsize::MIN,
            service: ServiceTime::default(),
        };
        server(name, number, speed, Kind::Slots(spec))
    })
}

fn server(name: &str, number: usize, speed: f64, kind: Kind) -> ServerSpec {
    ServerSpec {
        name: format!("{name}-{number}"),
        model: default_model(),
        port: None,
        speed,
        max_waiting: None,
        full_status: service_unavailable(),
        placement: None,
        kind,
    }
}
