//! What holds whatever arrives, starts and leaves.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::model::Model;
use super::{admission, at, limited, waiter};
use crate::config::Admission;
use crate::hold::{Fit, Queue, Waiter};
use crate::random::Rng;
use crate::state::Work;

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Offer(Waiter),
    Start,
    /// As `Start`, where only sizes below this fit, and others are of no use.
    StartSmall(u32),
    Remove(u32),
    Expire(u64),
}

fn any_waiter() -> impl Strategy<Value = Waiter> {
    (
        (0..200u32, 0..3usize, 0..5u64),
        (1..40u32, 0..60u32, 0..20u64, 0..40u64),
    )
        .prop_map(
            |((context, class, tenant), (eighths, bytes, arrived, wait))| Waiter {
                class,
                tenant,
                work: Work::of_requests(f64::from(eighths) / 8.0),
                size: Some(f64::from(eighths)),
                bytes,
                arrived: at(arrived),
                until: at(arrived + wait),
                ..waiter(context)
            },
        )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any_waiter().prop_map(Step::Offer),
        3 => Just(Step::Start),
        1 => (1..40u32).prop_map(Step::StartSmall),
        1 => (0..200u32).prop_map(Step::Remove),
        1 => (0..60u64).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..300)
}

fn any_admission() -> impl Strategy<Value = Admission> {
    (any::<bool>(), 0..40u32, 100..1000u32)
        .prop_map(|(is_fair, requests, bytes)| limited(requests, bytes, admission(3, is_fair)))
}

proptest! {
    #[test]
    fn a_queue_does_what_a_list_does(admission in any_admission(), steps in steps()) {
        let (mut queue, mut model) = (Queue::new(&admission), Model::new(&admission));
        for step in steps {
            match step {
                Step::Offer(waiter) => {
                    // Never early: that is drawn.
                    let offered = queue.offer(waiter, 1.0);
                    let gone = model.offer(waiter);
                    let own = gone.iter().flatten().any(|it| *it == waiter.context);
                    prop_assert_eq!(offered.held.is_err(), gone.is_none() || own);
                    let displaced: BTreeSet<u32> =
                        offered.displaced.iter().map(|it| it.waiter.context).collect();
                    let others = gone.into_iter().flatten().filter(|it| *it != waiter.context);
                    prop_assert_eq!(displaced, others.collect::<BTreeSet<u32>>());
                }
                Step::Start => {
                    let first = queue.first().map(|it| it.context);
                    prop_assert_eq!(first, model.first(|_| Fit::Fits));
                    let next = queue.next(|_| Fit::Fits);
                    prop_assert_eq!(next.map(|it| it.context), first);
                    if let Some(context) = first {
                        prop_assert!(queue.start(context).is_some());
                        model.start(context);
                    }
                }
                Step::StartSmall(size) => {
                    let fit = |it: &Waiter| match it.size < Some(f64::from(size)) {
                        true => Fit::Fits,
                        false => Fit::Elsewhere,
                    };
                    let next = queue.next(fit).map(|it| it.context);
                    prop_assert_eq!(next, model.first(fit));
                    if let Some(context) = next {
                        prop_assert!(queue.start(context).is_some());
                        model.start(context);
                    }
                }
                Step::Remove(context) => {
                    prop_assert_eq!(queue.remove(context), model.remove(context));
                }
                Step::Expire(second) => {
                    while let Some(waiter) = queue.expire(at(second)) {
                        prop_assert!(waiter.until <= at(second));
                        prop_assert_eq!(model.remove(waiter.context), Some(waiter));
                    }
                    prop_assert!(model.waiters.iter().all(|it| it.until > at(second)));
                }
            }
            let waiting: BTreeSet<u32> = queue.contexts().collect();
            let expected = model.waiters.iter().map(|it| it.context);
            prop_assert_eq!(waiting, expected.collect::<BTreeSet<u32>>());
            prop_assert_eq!(queue.occupancy().requests() as usize, model.waiters.len());
            let next_expiry = model.waiters.iter().map(|it| it.until).min();
            prop_assert_eq!(queue.next_expiry(), next_expiry);
        }
    }

    /// Whatever their requests cost, two tenants that always have some waiting never
    /// differ in what they have started by more than a request of each.
    #[test]
    fn tenants_that_wait_share_work(seed in any::<u64>(), heavy in 1..40u32) {
        let mut queue = Queue::new(&admission(1, true));
        let mut rng = Rng::new(seed);
        let mut given: HashMap<u64, u64> = HashMap::new();
        let mut largest: HashMap<u64, u64> = HashMap::new();
        let mut context = 0;
        let mut offer = |queue: &mut Queue, tenant: u64| {
            let most = if tenant == 0 { heavy } else { 8 };
            let eighths = 1 + rng.below(most as usize);
            context += 1;
            let work = Work::of_requests(eighths as f64 / 8.0);
            let arrived = at(context.into());
            let waiter = Waiter { tenant, work, arrived, ..waiter(context) };
            assert_eq!(queue.offer(waiter, 0.0).held, Ok(()));
        };
        for tenant in [0, 0, 0, 1, 1] {
            offer(&mut queue, tenant);
        }
        for _ in 0..500 {
            let started = queue.start(queue.first().unwrap().context).unwrap();
            let work = started.work.units();
            *given.entry(started.tenant).or_default() += work;
            let most = largest.entry(started.tenant).or_default();
            *most = work.max(*most);
            offer(&mut queue, started.tenant);
            let of = |map: &HashMap<u64, u64>, tenant| map.get(&tenant).copied().unwrap_or(0);
            let bound = of(&largest, 0) + of(&largest, 1);
            prop_assert!(of(&given, 0).abs_diff(of(&given, 1)) <= bound);
        }
    }
}
