//! A second batching engine, written for plainness: it looks at every sequence in every step. The
//! real one must tell the same story to the nanosecond.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Plain {
    id: u64,
    prompt: u64,
    output: u64,
    generated: u64,
    computed: u64,
    chunk: u64,
    decodes: bool,
}

struct Reference {
    spec: BatchingSpec,
    step_ends: Option<u64>,
    waiting: VecDeque<Plain>,
    running: Vec<Plain>,
    events: Vec<(u64, u64, EventKind)>,
}

impl Plain {
    fn target(&self) -> u64 {
        self.prompt + self.generated
    }
}

impl Reference {
    fn kv_used(&self) -> u64 {
        // A prefill holds all of its memory from the start, a decode what is computed and the token at hand.
        self.running.iter().map(Plain::target).sum()
    }

    fn arrive(&mut self, now: u64, id: u64, prompt: u64, output: u64) {
        self.advance(now);
        self.waiting.push_back(Plain {
            id,
            prompt,
            output,
            generated: 0,
            computed: 0,
            chunk: 0,
            decodes: false,
        });
        if self.step_ends.is_none() {
            self.begin(now);
        }
    }

    fn cancel(&mut self, now: u64, id: u64) {
        self.advance(now);
        self.waiting.retain(|it| it.id != id);
        self.running.retain(|it| it.id != id);
    }

    fn advance(&mut self, limit: u64) {
        while let Some(now) = self.step_ends
            && now <= limit
        {
            let mut ended = Vec::new();
            // Decodes report before prefills, as they are older.
            for sequence in &mut self.running {
                sequence.computed += sequence.chunk;
                sequence.chunk = 0;
                if sequence.computed < sequence.target() {
                    continue;
                }
                sequence.generated += 1;
                sequence.decodes = true;
                let kind = if sequence.generated == 1 {
                    EventKind::FirstToken
                } else {
                    EventKind::Tokens(1)
                };
                self.events.push((now, sequence.id, kind));
                if sequence.generated == sequence.output {
                    self.events.push((now, sequence.id, EventKind::Done));
                    ended.push(sequence.id);
                }
            }
            self.running.retain(|it| !ended.contains(&it.id));
            self.begin(now);
        }
    }

    fn begin(&mut self, now: u64) {
        let kv = u64::from(self.spec.kv_tokens.get());
        let mut preempted = false;
        while self.kv_used() > kv {
            let mut newest = self.running.pop().unwrap();
            newest.computed = 0;
            newest.decodes = false;
            self.events.push((now, newest.id, EventKind::Preempted));
            self.waiting.push_front(newest);
            preempted = true;
        }
        let decodes = self.running.iter().filter(|it| it.decodes).count() as u64;
        let context: u64 = self
            .running
            .iter()
            .filter(|it| it.decodes)
            .map(Plain::target)
            .sum();
        let mut budget = self.spec.token_budget.get() as u64 - decodes;
        for sequence in &mut self.running {
            if sequence.decodes {
                sequence.chunk = 1;
            } else {
                sequence.chunk = (sequence.target() - sequence.computed).min(budget);
                budget -= sequence.chunk;
            }
        }
        while !preempted
            && budget > 0
            && self.running.len() < self.spec.max_sequences.get()
            && let Some(first) = self.waiting.front()
            && self.kv_used() + first.target() <= kv
        {
            let mut admitted = self.waiting.pop_front().unwrap();
            admitted.chunk = admitted.target().min(budget);
            budget -= admitted.chunk;
            self.running.push(admitted);
        }
        let tokens: u64 = self.running.iter().map(|it| it.chunk).sum();
        self.step_ends = (tokens > 0).then(|| now + self.spec.cost.nanos(tokens, context));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arrive { prompt: u32, output: u32 },
    Cancel { id: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..300_u32, 1..80_u32).prop_map(|(prompt, output)| Op::Arrive { prompt, output }),
        1 => (0..60_u64).prop_map(|id| Op::Cancel { id }),
    ]
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn tells_the_same_story_as_the_plain_engine(
        ops in prop::collection::vec((0..400_000_000_u64, op()), 1..60),
        kv_tokens in 400..2000_u32,
        max_sequences in 1..12_usize,
        spare_budget in 0..200_usize,
        streamed: bool,
    ) {
        let spec = a100(kv_tokens, max_sequences, max_sequences + spare_budget);
        let mut plain = Reference {
            spec: spec.clone(),
            step_ends: None,
            waiting: VecDeque::new(),
            running: Vec::new(),
            events: Vec::new(),
        };
        let mut server = Server::new(&spec_of(Kind::Batching(spec), 1.0, None), 1);
        let mut events = Vec::new();
        let mut now = 0;
        for (id, (gap, op)) in (0_u64..).zip(&ops) {
            now += gap;
            // The driver's way: only as far as something may happen, then the step from outside.
            while let Some(next) = server.next_event() && next.as_nanos() < now {
                let before = events.len();
                server.advance(Time::from_nanos(next.as_nanos() - 1), &mut events);
                prop_assert_eq!(events.len(), before, "an event before next_event");
                server.advance(next, &mut events);
            }
            match *op {
                Op::Arrive { prompt, output } => {
                    plain.arrive(now, id, u64::from(prompt), u64::from(output));
                    let job = Job { stream: streamed, ..Job::of_tokens(JobId(id), prompt, output) };
                    server.arrive(Time::from_nanos(now), job, &mut events).unwrap();
                }
                Op::Cancel { id } => {
                    plain.cancel(now, id);
                    server.cancel(Time::from_nanos(now), JobId(id), &mut events);
                }
            }
            prop_assert_eq!(server.load().running, plain.running.len());
            prop_assert_eq!(server.load().waiting, plain.waiting.len());
            prop_assert_eq!(server.load().kv_used, plain.kv_used());
        }
        events.append(&mut run_out(&mut server));
        plain.advance(u64::MAX);
        let told: Vec<_> = events.iter().map(|it| (it.at.as_nanos(), it.job.0, it.kind)).collect();
        let mut expected = plain.events;
        expected.retain(|it| streamed || !matches!(it.2, EventKind::Tokens(_)));
        // Within one instant each tells in its own order.
        let sorted = |mut story: Vec<(u64, u64, EventKind)>| {
            story.sort_by_key(|it| (it.0, it.1, format!("{:?}", it.2)));
            story
        };
        prop_assert_eq!(sorted(told), sorted(expected));
    }
}
