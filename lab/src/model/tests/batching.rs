//! The batching engine against sums done by hand.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;

fn arrive(server: &mut Server, at: Time, id: u64, prompt: u32, output: u32) -> Vec<Event> {
    let mut events = Vec::new();
    server
        .arrive(at, Job::of_tokens(JobId(id), prompt, output), &mut events)
        .unwrap();
    events
}

#[test]
fn a_lone_request_takes_what_the_formula_says() {
    let mut server = batching_server(427_000, 256, 2048);
    arrive(&mut server, Time::ZERO, 1, 1000, 3);
    let events = run_out(&mut server);
    // Prefill: max(9.8 + 0.02 x 1000, 6.9 + 0.0669 x 1000) + 3 = 76.8 ms.
    assert_eq!(at_of(&events, 1, EventKind::FirstToken), millis(76.8));
    // Two decodes: max(9.8 + 0.02, 6.9 + 0.0669) + 0.00008 x 1001 (then 1002) + 3 ms.
    assert_eq!(
        at_of(&events, 1, EventKind::Done),
        millis(76.8 + 12.900_08 + 12.900_16)
    );
    assert_eq!(server.load().kv_used, 0);
    assert_eq!(server.next_event(), None);
}

#[test]
fn long_prompts_are_computed_in_chunks_of_the_budget() {
    let mut server = batching_server(427_000, 256, 2048);
    arrive(&mut server, Time::ZERO, 1, 5000, 1);
    let events = run_out(&mut server);
    let step = |tokens: f64| 6.9 + 0.0669 * tokens + 3.0;
    let expected = step(2048.0) + step(2048.0) + step(904.0);
    assert_eq!(at_of(&events, 1, EventKind::FirstToken), millis(expected));
    assert_eq!(at_of(&events, 1, EventKind::Done), millis(expected));
}

#[test]
fn a_newcomer_waits_for_the_step_under_way_and_shares_the_next() {
    let mut server = batching_server(427_000, 256, 2048);
    arrive(&mut server, Time::ZERO, 1, 1000, 2);
    arrive(&mut server, millis(10.0), 2, 100, 1);
    let events = run_out(&mut server);
    // The second step: one decode with a context of 1001 tokens, and the 100 tokens of the other's prompt.
    let second = 6.9_f64.max(9.8 + 0.02 * 101.0) + 0.00008 * 1001.0 + 3.0;
    let second = second.max(6.9 + 0.0669 * 101.0 + 0.00008 * 1001.0 + 3.0);
    assert_eq!(at_of(&events, 1, EventKind::Done), millis(76.8 + second));
    assert_eq!(
        at_of(&events, 2, EventKind::FirstToken),
        millis(76.8 + second)
    );
}

#[test]
fn streamed_tokens_come_one_a_step() {
    let mut server = batching_server(427_000, 256, 2048);
    let mut events = Vec::new();
    let job = Job {
        stream: true,
        ..Job::of_tokens(JobId(1), 1000, 3)
    };
    server.arrive(Time::ZERO, job, &mut events).unwrap();
    let events = run_out(&mut server);
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let one = EventKind::Tokens(1);
    assert_eq!(kinds, [EventKind::FirstToken, one, one, EventKind::Done]);
    assert_eq!(events[1].at, millis(76.8 + 12.900_08));
}

#[test]
fn speed_divides_every_duration() {
    let kind = Kind::Batching(a100(427_000, 256, 2048));
    let mut server = Server::new(&spec_of(kind, 2.0, None), 1);
    arrive(&mut server, Time::ZERO, 1, 1000, 1);
    assert_eq!(
        at_of(&run_out(&mut server), 1, EventKind::Done),
        millis(38.4)
    );
}

/// Tokens a second that a server generates which has `jobs` jobs to do, while its batch is full.
fn saturated_throughput(jobs: u64) -> f64 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let mut server = batching_server(427_000, 256, 2048);
    let mut events = Vec::new();
    for id in 0..jobs {
        let output = random.random_range(100..=300);
        let job = Job::of_tokens(JobId(id), 100, output);
        server.arrive(Time::ZERO, job, &mut events).unwrap();
    }
    let mut now = Time::ZERO;
    let mut warm = None;
    while server.load().waiting > 0 {
        now = server.next_event().unwrap();
        server.advance(now, &mut events);
        if warm.is_none() && server.counters().done > 512 {
            warm = Some((now, server.counters().generation_tokens));
        }
    }
    let (since, before) = warm.unwrap();
    (server.counters().generation_tokens - before) as f64 / now.since(since).as_secs_f64()
}

#[test]
fn throughput_saturates_at_what_full_steps_give() {
    // A full batch: of 256 sequences of 200 tokens on average, 256 / 200 are in their prefill of 100 tokens.
    let prefills = 256.0 / 200.0;
    let tokens = 256.0 - prefills + 100.0 * prefills;
    // A long answer is in the batch for longer: the mean context is that of a token, not of a request.
    let mean_context = 100.0 + (200.0_f64.powi(2) + 100.0_f64.powi(2) / 3.0) / (2.0 * 200.0);
    let step = 6.9 + 0.0669 * tokens + 0.00008 * 256.0 * mean_context + 3.0;
    let expected = 256.0 / step * 1e3;
    for jobs in [4_000, 8_000] {
        let measured = saturated_throughput(jobs);
        let error = measured / expected - 1.0;
        assert!(error.abs() < 0.02, "{measured} against {expected}");
    }
}

#[test]
fn overflow_preempts_the_newest_and_keeps_its_tokens() {
    // Ten sequences of 250 tokens where 1000 fit: all start, four at most can end together.
    let mut server = batching_server(1000, 256, 2048);
    let mut events = Vec::new();
    for id in 0..10 {
        events.extend(arrive(&mut server, Time::ZERO, id, 50, 200));
    }
    events.extend(run_out(&mut server));
    let preempted: Vec<u64> = events
        .iter()
        .filter(|event| event.kind == EventKind::Preempted)
        .map(|event| event.job.0)
        .collect();
    assert_eq!(preempted[0], 9);
    assert!(!preempted.contains(&0), "the oldest is never preempted");
    for id in 0..10 {
        at_of(&events, id, EventKind::FirstToken);
        at_of(&events, id, EventKind::Done);
    }
    let counters = server.counters();
    assert_eq!(counters.preemptions, preempted.len() as u64);
    assert_eq!(counters.generation_tokens, 10 * 200);
    assert_eq!(counters.prompt_tokens, 10 * 50);
    assert!(counters.recomputed_tokens > 0);
    assert_eq!(
        server.load(),
        Load {
            kv_tokens: 1000,
            ..Load::default()
        }
    );
}

#[test]
fn a_cancelled_sequence_frees_its_memory_at_once() {
    let mut server = batching_server(1000, 256, 2048);
    arrive(&mut server, Time::ZERO, 1, 600, 300);
    arrive(&mut server, millis(1.0), 2, 600, 300);
    let mut events = Vec::new();
    server.advance(millis(1000.0), &mut events);
    let load = server.load();
    assert_eq!((load.running, load.waiting), (1, 1));
    assert!(load.kv_used > 600);
    assert!(server.cancel(millis(1000.0), JobId(1), &mut events));
    assert_eq!(server.load().kv_used, 0);
    events.extend(run_out(&mut server));
    at_of(&events, 2, EventKind::Done);
    assert!(
        events
            .iter()
            .all(|event| event.job != JobId(1) || event.kind != EventKind::Done)
    );
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut server = batching_server(1000, 256, 2048);
    let mut events = Vec::new();
    let refused = server.arrive(Time::ZERO, Job::of_tokens(JobId(1), 900, 101), &mut events);
    let expected = Refusal::TooLong {
        tokens: 1001,
        kv_tokens: 1000,
    };
    assert_eq!(refused, Err(expected));
    let fits = server.arrive(Time::ZERO, Job::of_tokens(JobId(2), 900, 100), &mut events);
    assert_eq!(fits, Ok(()));
    at_of(&run_out(&mut server), 2, EventKind::Done);
}
