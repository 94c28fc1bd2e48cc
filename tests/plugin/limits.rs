//! Random schedules of sixteen VMs in which another VM may run at every host call of
//! one: no server ever has more than its cap and no device less memory than is taken,
//! nobody who waits is forgotten, and nothing remains.

use crate::fleet::{LEASE, picked};
use crate::host::Which;
use crate::limited::{Limited, Scene, VMS, limit};

const STEPS: usize = 24;
const SCHEDULES: usize = 48;

const CAPS: Scene = Scene {
    config: r#"{ "max_in_flight": 9, "policy": "least_request", "upstreams": [
        { "cluster": "gpu-0", "max_in_flight": 1 }, { "cluster": "gpu-1", "max_in_flight": 2 },
        { "cluster": "gpu-2", "max_in_flight": 4 }, { "cluster": "gpu-3", "max_in_flight": 3 } ] }"#,
    limits: &[
        limit([1, 0, 0, 0], 1),
        limit([0, 1, 0, 0], 2),
        limit([0, 0, 1, 0], 4),
        limit([0, 0, 0, 1], 3),
        limit([1, 1, 1, 1], 9),
    ],
    is_restless: false,
};

/// Two pools, each with an upstream on each of two devices.
const DEVICES: Scene = Scene {
    config: r#"{ "devices": [ { "name": "left", "memory": 12 }, { "name": "right", "memory": 14 } ],
        "pools": [
            { "name": "a", "match": { "path_prefix": "/a/" }, "policy": "least_request", "upstreams": [
                { "cluster": "gpu-0", "device": "left", "memory": { "base": 3 } },
                { "cluster": "gpu-1", "device": "right", "memory": { "base": 5 }, "max_in_flight": 2 } ] },
            { "name": "b", "policy": "least_request", "upstreams": [
                { "cluster": "gpu-2", "device": "left", "memory": { "base": 4 } },
                { "cluster": "gpu-3", "device": "right", "memory": { "base": 7 } } ] } ] }"#,
    limits: &[
        limit([3, 0, 4, 0], 12),
        limit([0, 5, 0, 7], 14),
        limit([0, 1, 0, 0], 2),
    ],
    is_restless: true,
};

/// Schedules of the scene; how many requests were answered elsewhere, and how often a
/// configuration came.
fn exercise(scene: &'static Scene, first_seed: u64) -> (u64, u64) {
    let (mut waited, mut inner, mut ticks) = (0, 0, 0);
    let (mut moved, mut reloads) = (0, 0);
    for seed in 0..3 {
        let fleet = Limited::start(scene, first_seed + seed);
        for _ in 0..SCHEDULES / 3 {
            fleet.steps(STEPS);
            ticks += fleet.drain();
            fleet.check_rest();
        }
        let all: Vec<u64> = scene.limits.iter().map(|limit| limit.at_most).collect();
        assert_eq!(*fleet.most.borrow(), all, "all of it was used");
        waited += fleet.waited.get();
        inner += fleet.turns.inner_steps();
        moved += fleet.moved.get();
        reloads += fleet.reloads.get();
    }
    println!("{waited} waited, {inner} steps in the middle of others, {ticks} ticks needed");
    assert!(waited > 500, "{waited} waited");
    assert!(inner > 1_500, "{inner} in the middle of others");
    (moved, reloads)
}

#[test]
fn sixteen_vms_interleaved_at_every_host_call_never_exceed_a_cap() {
    exercise(&CAPS, 5_000);
}

#[test]
fn pools_never_take_more_memory_of_a_device_than_there_is() {
    let (moved, reloads) = exercise(&DEVICES, 7_000);
    println!("{moved} answered elsewhere, {reloads} configurations");
    assert!(moved > 20, "{moved} answered elsewhere");
    assert!(reloads > 20, "{reloads} configurations");
}

#[test]
fn what_vms_that_trap_had_is_free_after_their_lease() {
    let mut trapped = 0;
    for seed in 0..12 {
        let fleet = Limited::start(&CAPS, 6_000 + seed);
        fleet.steps(2 * STEPS);
        let victim = fleet.draw(VMS);
        fleet.turns.doom(victim);
        fleet.root(victim).vm.trap(Which::At(fleet.draw(40)));
        for _ in 0..4 {
            if !fleet.turns.is_busy(victim) {
                fleet.run(victim, || fleet.step(victim));
            }
        }
        trapped += usize::from(fleet.turns.is_busy(victim));
        fleet.turns.kill(victim);
        // Envoy ends its streams.
        for stream in fleet.open[victim].take() {
            if let Some(upstream) = picked(&stream) {
                *fleet.ended.borrow_mut().entry(upstream).or_default() += 1;
            }
        }
        fleet.steps(2 * STEPS);
        fleet.drain();
        for _ in 0..5 {
            fleet.process.advance(LEASE / 4);
            fleet.tick_all();
        }
        fleet.steps(STEPS);
        fleet.drain();
        fleet.check_rest();
    }
    assert!(trapped > 4, "{trapped} trapped in a callback");
}
