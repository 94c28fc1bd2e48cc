//! What holds for a queue, against a model that is a list.

mod model;
mod properties;

use std::time::Duration;

use super::*;
use crate::config::{Admission, Fairness, Priority, QueueLimits};
use crate::state::Work;
use crate::time::Timestamp;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// So many classes; with tenants or without.
fn admission(classes: usize, is_fair: bool) -> Admission {
    let priority = Priority {
        header: "x-priority".to_owned(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        default: 0,
    };
    Admission {
        priority: (classes > 1).then_some(priority),
        fairness: is_fair.then(|| Fairness {
            header: "x-tenant".to_owned(),
        }),
        ..Admission::default()
    }
}

fn limited(max_requests: u32, max_bytes: u32, admission: Admission) -> Admission {
    Admission {
        queue: QueueLimits {
            max_requests,
            max_bytes,
            max_wait: Duration::from_secs(30),
        },
        ..admission
    }
}

/// A mean request of the most important class that arrives in second `context` and waits
/// for 30 seconds.
fn waiter(context: u32) -> Waiter {
    let arrived = at(context.into());
    Waiter {
        context,
        class: 0,
        tenant: 0,
        work: Work::MEAN,
        size: None,
        bytes: 0,
        arrived,
        until: arrived.after(Duration::from_secs(30)),
    }
}

/// Takes in a waiter for which there is room.
fn hold(queue: &mut Queue, waiter: Waiter) {
    let offered = queue.offer(waiter, 0.999);
    assert_eq!(offered.held, Ok(()));
    assert_eq!(offered.displaced, []);
}

/// Starts the first waiter.
fn start(queue: &mut Queue) -> Waiter {
    let first = queue.first().unwrap();
    queue.start(first.context).unwrap()
}

fn start_all(queue: &mut Queue) -> Vec<u32> {
    let mut started = Vec::new();
    while !queue.is_empty() {
        started.push(start(queue).context);
    }
    started
}

fn contexts(refused: &[Refused]) -> Vec<(u32, Cause)> {
    let pairs = refused.iter().map(|it| (it.waiter.context, it.cause));
    pairs.collect()
}

#[test]
fn the_earliest_deadline_comes_first_and_then_the_first_to_arrive() {
    let mut queue = Queue::new(&admission(1, false));
    for context in [3, 1, 2] {
        hold(&mut queue, waiter(context));
    }
    let urgent = Waiter {
        until: at(9),
        ..waiter(8)
    };
    hold(&mut queue, urgent);
    assert_eq!(start_all(&mut queue), [8, 1, 2, 3]);
}

#[test]
fn who_leaves_is_forgotten_and_who_has_waited_enough_is_told() {
    let mut queue = Queue::new(&admission(2, true));
    for context in 0..4 {
        let class = usize::from(context % 2 == 1);
        hold(
            &mut queue,
            Waiter {
                class,
                ..waiter(context)
            },
        );
    }
    assert_eq!(queue.remove(0).map(|it| it.context), Some(0));
    assert_eq!(queue.remove(0), None);
    assert_eq!(queue.start(0), None);
    assert_eq!(queue.next_expiry(), Some(at(31)));
    assert_eq!(queue.expire(at(30)), None);
    let mut expired: Vec<u32> = (0..2)
        .map(|_| queue.expire(at(32)).unwrap().context)
        .collect();
    expired.sort_unstable();
    assert_eq!(expired, [1, 2]);
    assert_eq!(queue.expire(at(32)), None);
    assert_eq!(queue.contexts().collect::<Vec<_>>(), [3]);
    assert_eq!(queue.occupancy().requests_of(1), 1);
    assert_eq!(start_all(&mut queue), [3]);
    assert_eq!(queue.next_expiry(), None);
    assert_eq!(*queue.occupancy(), Occupancy::default());
}

#[test]
fn one_name_waits_once() {
    let mut queue = Queue::new(&admission(1, false));
    hold(&mut queue, waiter(1));
    let twice = queue.offer(
        Waiter {
            class: 7,
            ..waiter(1)
        },
        0.0,
    );
    assert_eq!(
        twice,
        Offered {
            held: Err(Cause::Full),
            displaced: Vec::new()
        }
    );
    assert_eq!(start_all(&mut queue), [1]);
}

#[test]
fn higher_classes_go_first_and_lower_ones_get_a_tenth() {
    let mut queue = Queue::new(&admission(3, false));
    for context in 0..300 {
        let class = context as usize % 3;
        hold(
            &mut queue,
            Waiter {
                class,
                ..waiter(context)
            },
        );
    }
    let first: Vec<usize> = (0..100).map(|_| start(&mut queue).class).collect();
    let of = |class| first.iter().filter(|it| **it == class).count();
    assert_eq!([of(0), of(1), of(2)], [91, 5, 4], "{first:?}");
    // The highest is done soon, then the next is the highest.
    let rest: Vec<usize> = (0..100).map(|_| start(&mut queue).class).collect();
    let of = |class| rest.iter().filter(|it| **it == class).count();
    assert_eq!(of(0), 9);
    assert!((5..=6).contains(&of(2)), "{rest:?}");
}

#[test]
fn what_is_guaranteed_is_work() {
    let mut queue = Queue::new(&admission(2, false));
    for context in 0..20 {
        let work = Work::of_requests(5.0);
        hold(
            &mut queue,
            Waiter {
                class: 1,
                work,
                ..waiter(context)
            },
        );
    }
    for context in 100..500 {
        hold(&mut queue, waiter(context));
    }
    let first: Vec<usize> = (0..200).map(|_| start(&mut queue).class).collect();
    let low = first.iter().filter(|class| **class == 1).count();
    // Five times the work: for 45 of the others one.
    assert!((4..=5).contains(&low), "{low}");
}

#[test]
fn a_class_is_owed_nothing_for_the_time_in_which_it_had_no_waiter() {
    let mut queue = Queue::new(&admission(2, false));
    for context in 0..100 {
        hold(&mut queue, waiter(context));
    }
    for _ in 0..50 {
        start(&mut queue);
    }
    hold(
        &mut queue,
        Waiter {
            class: 1,
            ..waiter(200)
        },
    );
    let next: Vec<usize> = (0..10).map(|_| start(&mut queue).class).collect();
    assert_eq!(next, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn tenants_share_work_whatever_they_send() {
    let mut queue = Queue::new(&admission(1, true));
    for context in 0..100 {
        hold(
            &mut queue,
            Waiter {
                tenant: 1,
                ..waiter(context)
            },
        );
    }
    for context in 100..200 {
        let work = Work::of_requests(3.0);
        hold(
            &mut queue,
            Waiter {
                tenant: 2,
                work,
                ..waiter(context)
            },
        );
    }
    let first: Vec<u64> = (0..80).map(|_| start(&mut queue).tenant).collect();
    let of = |tenant| first.iter().filter(|it| **it == tenant).count();
    assert_eq!([of(1), of(2)], [60, 20]);
}

#[test]
fn a_tenant_that_did_not_use_its_share_has_no_claim_to_it() {
    let mut queue = Queue::new(&admission(1, true));
    for context in 0..100 {
        hold(
            &mut queue,
            Waiter {
                tenant: 1,
                ..waiter(context)
            },
        );
    }
    for _ in 0..50 {
        start(&mut queue);
    }
    for context in 100..150 {
        hold(
            &mut queue,
            Waiter {
                tenant: 2,
                ..waiter(context)
            },
        );
    }
    let next: Vec<u64> = (0..20).map(|_| start(&mut queue).tenant).collect();
    let second = next.iter().filter(|tenant| **tenant == 2).count();
    assert!((10..=11).contains(&second), "{next:?}");
}

#[test]
fn without_fairness_nobody_asks_whose_a_request_is() {
    let mut queue = Queue::new(&admission(1, false));
    for context in 0..10 {
        let tenant = u64::from(context < 8);
        hold(
            &mut queue,
            Waiter {
                tenant,
                ..waiter(context)
            },
        );
    }
    assert_eq!(start_all(&mut queue), (0..10).collect::<Vec<_>>());
}

#[test]
fn many_tenants_take_turns_and_are_forgotten() {
    let mut queue = Queue::new(&limited(10_000, 0, admission(1, true)));
    for context in 0..3_000 {
        let tenant = u64::from(context % 1_000) << 32 | 1 << 20;
        hold(
            &mut queue,
            Waiter {
                tenant,
                ..waiter(context)
            },
        );
    }
    let started = start_all(&mut queue);
    assert_eq!(started.len(), 3_000);
    assert!(queue.notice(None).encode().len() < 100, "all is settled");
}

#[test]
fn a_large_request_is_overtaken_sixteen_times() {
    let mut queue = Queue::new(&admission(1, false));
    let fit = |waiter: &Waiter| match waiter.size {
        Some(_) => Fit::Short,
        None => Fit::Fits,
    };
    hold(
        &mut queue,
        Waiter {
            size: Some(9.0),
            ..waiter(0)
        },
    );
    for context in 1..40 {
        hold(&mut queue, waiter(context));
    }
    for context in 1..=16 {
        let next = queue.next(fit).unwrap();
        assert_eq!((next.context, next.fits), (context, true));
        queue.start(context).unwrap();
    }
    let next = queue.next(fit).unwrap();
    assert_eq!((next.context, next.fits), (0, false));
    assert_eq!(queue.first(), Some(next));
    // Once there is enough for it, the line moves on, and so it does if it leaves.
    queue.remove(0).unwrap();
    let next = queue.next(fit).unwrap();
    assert_eq!((next.context, next.fits), (17, true));
}

#[test]
fn who_wants_something_else_is_in_nobodys_way() {
    let mut queue = Queue::new(&admission(1, false));
    let fit = |waiter: &Waiter| match waiter.size {
        Some(_) => Fit::Elsewhere,
        None => Fit::Fits,
    };
    for context in 0..10 {
        hold(
            &mut queue,
            Waiter {
                size: Some(9.0),
                ..waiter(context)
            },
        );
    }
    assert_eq!(queue.next(fit), None);
    for context in 10..40 {
        hold(&mut queue, waiter(context));
    }
    for context in 10..40 {
        let next = queue.next(fit).unwrap();
        assert_eq!((next.context, next.fits), (context, true));
        queue.start(context).unwrap();
    }
}

#[test]
fn of_too_many_the_last_of_the_lowest_class_goes() {
    let mut queue = Queue::new(&limited(4, 100, admission(2, false)));
    for context in 0..4 {
        let class = usize::from(context < 2);
        let offered = queue.offer(
            Waiter {
                class,
                ..waiter(context)
            },
            0.999,
        );
        assert_eq!(offered.held, Ok(()));
    }
    let offered = queue.offer(waiter(4), 0.0);
    assert_eq!(contexts(&offered.displaced), [(1, Cause::Full)]);
    let offered = queue.offer(waiter(5), 0.0);
    assert_eq!(contexts(&offered.displaced), [(0, Cause::Full)]);
    let offered = queue.offer(waiter(6), 0.0);
    assert_eq!(
        (offered.held, offered.displaced),
        (Err(Cause::Full), Vec::new())
    );
    assert_eq!(start_all(&mut queue), [2, 3, 4, 5]);
}

#[test]
fn bytes_are_bounded_and_nobody_goes_in_vain() {
    let mut queue = Queue::new(&limited(10, 100, admission(2, false)));
    let bytes = |class, context, bytes| Waiter {
        class,
        bytes,
        ..waiter(context)
    };
    assert_eq!(queue.offer(bytes(1, 0, 40), 0.999).held, Ok(()));
    hold(&mut queue, bytes(0, 1, 50));
    let too_large = queue.offer(bytes(0, 2, 51), 0.0);
    assert_eq!(
        (too_large.held, too_large.displaced),
        (Err(Cause::Full), Vec::new())
    );
    let offered = queue.offer(bytes(0, 3, 50), 0.0);
    assert_eq!(offered.held, Ok(()));
    assert_eq!(contexts(&offered.displaced), [(0, Cause::Full)]);
    let none = Queue::new(&limited(0, 100, admission(1, false))).offer(waiter(1), 0.0);
    assert_eq!(none.held, Err(Cause::Full));
}

#[test]
fn who_has_more_than_its_share_of_the_places_goes_first() {
    let mut queue = Queue::new(&limited(8, 0, admission(1, true)));
    for context in 0..8 {
        hold(
            &mut queue,
            Waiter {
                tenant: 1,
                ..waiter(context)
            },
        );
    }
    let offered = queue.offer(
        Waiter {
            tenant: 1,
            ..waiter(8)
        },
        0.0,
    );
    assert_eq!(offered.held, Err(Cause::Full), "there is no other");
    for (context, displaced) in [(10, 7), (11, 6), (12, 5), (13, 4)] {
        let offered = queue.offer(
            Waiter {
                tenant: 2,
                ..waiter(context)
            },
            0.0,
        );
        assert_eq!(offered.held, Ok(()));
        assert_eq!(contexts(&offered.displaced), [(displaced, Cause::Share)]);
    }
    let offered = queue.offer(
        Waiter {
            tenant: 2,
            ..waiter(14)
        },
        0.0,
    );
    assert_eq!(offered.held, Err(Cause::Share), "four each");
}

#[test]
fn lower_classes_are_refused_early_the_more_the_fuller_it_is() {
    let mut queue = Queue::new(&limited(100, 0, admission(3, false)));
    let refused = |queue: &mut Queue, class: usize| {
        let draws = (0..100).map(|percent| f64::from(percent) / 100.0 + 0.005);
        let mut refused = 0;
        for draw in draws {
            match queue
                .offer(
                    Waiter {
                        class,
                        ..waiter(1000)
                    },
                    draw,
                )
                .held
            {
                Err(Cause::Early) => refused += 1,
                Err(other) => panic!("{other:?}"),
                Ok(()) => drop(queue.remove(1000)),
            }
        }
        refused
    };
    let mut seen = Vec::new();
    for context in 0..90 {
        if context % 30 == 0 {
            seen.push([0, 1, 2].map(|class| refused(&mut queue, class)));
        }
        hold(&mut queue, waiter(context));
    }
    seen.push([0, 1, 2].map(|class| refused(&mut queue, class)));
    assert_eq!(seen, [[0, 0, 0], [0, 0, 0], [0, 0, 20], [0, 60, 80]]);
}

#[test]
fn workers_start_in_one_order_and_share_by_what_all_have_started() {
    let mut queues = [0, 1].map(|_| Queue::new(&admission(2, true)));
    // One tenant's requests all come to one worker, the other's to both.
    for context in 0..60 {
        hold(
            &mut queues[0],
            Waiter {
                tenant: 1,
                ..waiter(context)
            },
        );
        let tenant = 2;
        let place = context as usize % 2;
        hold(
            &mut queues[place],
            Waiter {
                tenant,
                ..waiter(100 + context)
            },
        );
        hold(
            &mut queues[1],
            Waiter {
                class: 1,
                ..waiter(200 + context)
            },
        );
    }
    let mut started = Vec::new();
    for _ in 0..60 {
        // Twice: what one hears can change its own rank.
        for (own, other) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
            let notice = queues[other].notice(queues[other].first().map(|it| it.rank));
            let notice = Notice::decode(&notice.encode()).unwrap();
            queues[own].hear([&notice].into_iter());
        }
        let next = queues.each_ref().map(|queue| queue.first().unwrap());
        let yields = [0, 1].map(|place| queues[place].yields(next[place].rank));
        assert!(!yields[0] || !yields[1], "{next:?}");
        let place = usize::from(yields[0]);
        let waiter = queues[place].start(next[place].context).unwrap();
        started.push((waiter.class, waiter.tenant));
    }
    let of = |class, tenant| started.iter().filter(|it| **it == (class, tenant)).count();
    assert_eq!(of(1, 0), 6, "a tenth");
    assert_eq!([of(0, 1), of(0, 2)], [27, 27]);
}

#[test]
fn what_arrives_on_one_worker_displaces_what_waits_on_another() {
    let mut queues = [0, 1].map(|_| Queue::new(&limited(4, 0, admission(2, false))));
    let tell = |queues: &mut [Queue; 2]| {
        let notices = queues.each_ref().map(|queue| queue.notice(None));
        queues[0].hear([&notices[1]].into_iter());
        queues[1].hear([&notices[0]].into_iter());
    };
    for context in 0..4 {
        let offered = queues[1].offer(
            Waiter {
                class: 1,
                ..waiter(context)
            },
            0.999,
        );
        assert_eq!(offered.held, Ok(()));
    }
    tell(&mut queues);
    hold(&mut queues[0], waiter(10));
    tell(&mut queues);
    assert_eq!(contexts(&queues[0].trim()), []);
    assert_eq!(contexts(&queues[1].trim()), [(3, Cause::Full)]);
    // Its own class does not go for it.
    tell(&mut queues);
    let offered = queues[0].offer(
        Waiter {
            class: 1,
            ..waiter(11)
        },
        0.999,
    );
    assert_eq!(offered.held, Err(Cause::Early));
    assert_eq!(queues[1].trim(), []);
}
