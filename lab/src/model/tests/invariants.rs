//! Whatever comes in whatever order, nothing is lost and nothing is counted twice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Arrive(Job),
    Cancel(u64),
    Control(Control),
    Crash,
    Advance,
}

fn job() -> impl Strategy<Value = Op> {
    (
        1..500_u32,
        1..100_u32,
        any::<bool>(),
        prop::option::of(prop_oneof![Just(0), 0..5_000_u64]),
    )
        .prop_map(|(prompt, output, stream, service)| {
            Op::Arrive(Job {
                stream,
                service: service.map(Duration::from_millis),
                ..Job::of_tokens(JobId(0), prompt, output)
            })
        })
}

fn control() -> impl Strategy<Value = Op> {
    let set = |change: fn(&mut Control)| {
        let mut control = Control::default();
        change(&mut control);
        Op::Control(control)
    };
    prop_oneof![
        Just(set(|it| it.normal = true)),
        Just(set(|it| it.speed = Some(0.25))),
        Just(set(|it| it.speed = Some(3.0))),
        Just(set(|it| it.mode = Some(Mode::Stop))),
        Just(set(|it| it.mode = Some(Mode::Normal))),
        Just(set(|it| it.mode = Some(Mode::Drop))),
        Just(set(|it| it.error_rate = Some(0.5))),
        Just(set(|it| it.reload_seconds = Some(0.3))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => job(),
        2 => (0..100_u64).prop_map(Op::Cancel),
        1 => control(),
        1 => Just(Op::Crash),
        1 => Just(Op::Advance),
    ]
}

/// What the events said of one job.
#[derive(Default)]
struct Story {
    first_tokens: u32,
    tokens: u32,
    ends: u32,
    lost: bool,
}

fn check(mut server: Server, ops: &[(u64, Op)]) -> Result<(), TestCaseError> {
    let mut events = Vec::new();
    let mut jobs = BTreeMap::new();
    let mut cancelled = Vec::new();
    let mut now = Time::ZERO;
    for (id, (gap, op)) in (0_u64..).zip(ops) {
        now = now + Duration::from_millis(*gap);
        match op {
            Op::Arrive(job) => {
                let job = Job {
                    id: JobId(id),
                    ..*job
                };
                if server.arrive(now, job, &mut events).is_ok() {
                    jobs.insert(id, job);
                }
            }
            Op::Cancel(id) => {
                if server.cancel(now, JobId(*id), &mut events) {
                    cancelled.push(*id);
                }
            }
            Op::Control(control) => server.control(now, control, &mut events).unwrap(),
            Op::Crash => server.run_out_of_memory(now, Duration::from_millis(300), &mut events),
            Op::Advance => server.advance(now, &mut events),
        }
        let (load, counters) = (server.load(), server.counters());
        prop_assert!(load.kv_used <= load.kv_tokens);
        prop_assert_eq!(load.device_memory, load.running as u64);
        prop_assert!(server.next_event().is_none_or(|next| next >= now));
        let here = (load.running + load.waiting) as u64;
        prop_assert_eq!(
            counters.accepted,
            counters.done + counters.cancelled + counters.lost + here
        );
    }
    let normal = Control {
        normal: true,
        ..Control::default()
    };
    server.control(now, &normal, &mut events).unwrap();
    events.append(&mut run_out(&mut server));
    prop_assert!(events.is_sorted_by_key(|event| event.at));

    let mut stories: BTreeMap<u64, Story> = BTreeMap::new();
    for event in &events {
        let story = stories.entry(event.job.0).or_default();
        prop_assert_eq!(story.ends, 0, "an event after the end");
        match event.kind {
            EventKind::FirstToken => story.first_tokens += 1,
            EventKind::Tokens(count) => story.tokens += count,
            EventKind::Preempted => {}
            EventKind::Done => story.ends += 1,
            EventKind::Lost(_) => {
                story.ends += 1;
                story.lost = true;
            }
        }
    }
    let mut finished_tokens = 0;
    for (id, job) in &jobs {
        let story = stories.remove(id).unwrap_or_default();
        let ended = u32::from(!cancelled.contains(id));
        prop_assert_eq!(story.ends, ended, "job {}", id);
        if ended == 1 && !story.lost {
            prop_assert_eq!(story.first_tokens, 1);
            let rest = if job.stream {
                job.output_tokens.get() - 1
            } else {
                0
            };
            prop_assert_eq!(story.tokens, rest);
            finished_tokens += u64::from(job.output_tokens.get());
        }
    }
    prop_assert!(stories.is_empty(), "events of jobs that never were");
    let load = server.load();
    prop_assert_eq!((load.running, load.waiting, load.kv_used), (0, 0, 0));
    let counters = server.counters();
    prop_assert!(counters.generation_tokens >= finished_tokens);
    if counters.done == counters.accepted {
        prop_assert_eq!(counters.generation_tokens, finished_tokens);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn batching_servers_conserve(
        ops in prop::collection::vec((0..300_u64, op()), 1..100),
        kv_tokens in 600..3000_u32,
        max_sequences in 1..20_usize,
    ) {
        check(batching_server(kv_tokens, max_sequences, 256), &ops)?;
    }

    #[test]
    fn slot_servers_conserve(
        ops in prop::collection::vec((0..2000_u64, op()), 1..100),
        slots in 1..5_usize,
        max_waiting in prop::option::of(0..10_usize),
    ) {
        check(slot_server(slots, 1.0, max_waiting), &ops)?;
    }
}
