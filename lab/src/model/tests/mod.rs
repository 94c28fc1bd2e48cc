//! What the servers are held to: queueing theory, sums done by hand, a second and simpler engine, and
//! invariants under random steps.

mod batching;
mod control;
mod device;
mod fleet_file;
mod invariants;
mod queueing;
mod reference;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

use super::*;

/// So many cases, the same in every run.
pub(super) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(17),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn slot_server(slots: usize, speed: f64, max_waiting: Option<usize>) -> Server {
    let kind = Kind::Slots(SlotSpec {
        slots: NonZeroUsize::new(slots).unwrap(),
        service: ServiceTime::default(),
    });
    Server::new(&spec_of(kind, speed, max_waiting), 1)
}

fn batching_server(kv_tokens: u32, max_sequences: usize, token_budget: usize) -> Server {
    let kind = Kind::Batching(a100(kv_tokens, max_sequences, token_budget));
    Server::new(&spec_of(kind, 1.0, None), 1)
}

fn a100(kv_tokens: u32, max_sequences: usize, token_budget: usize) -> BatchingSpec {
    BatchingSpec {
        cost: Gpu::A100.step_cost(),
        kv_tokens: NonZeroU32::new(kv_tokens).unwrap(),
        max_sequences: NonZeroUsize::new(max_sequences).unwrap(),
        token_budget: NonZeroUsize::new(token_budget).unwrap(),
    }
}

fn spec_of(kind: Kind, speed: f64, max_waiting: Option<usize>) -> ServerSpec {
    ServerSpec {
        name: "tested".to_owned(),
        model: "model".to_owned(),
        port: None,
        speed,
        max_waiting,
        full_status: 503,
        // A byte for each job that runs.
        placement: Some(Placement {
            device: 0,
            memory: MemoryCost {
                base: 1.0,
                per_size: 0.0,
            },
        }),
        kind,
    }
}

/// Lets the server run until nothing more will happen; its events.
fn run_out(server: &mut Server) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(time) = server.next_event() {
        server.advance(time, &mut events);
    }
    events
}

fn at_of(events: &[Event], job: u64, kind: EventKind) -> Time {
    let mut found = events
        .iter()
        .filter(|event| event.job == JobId(job) && event.kind == kind);
    let event = found
        .next()
        .unwrap_or_else(|| panic!("no {kind:?} of job {job} in {events:?}"));
    assert_eq!(found.next(), None, "a second {kind:?} of job {job}");
    event.at
}

fn millis(millis: f64) -> Time {
    Time::from_secs_f64(millis / 1e3)
}

const SECOND: Duration = Duration::from_secs(1);
