//! The way of an upstream out of its pool and back.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{OutlierDetection, SlowStart};
use crate::time::Timestamp;

/// An upstream, and the time there.
#[derive(Clone, Copy, Debug)]
struct Life {
    health: Health,
    now: Timestamp,
    /// The latest that it ever was.
    latest: Timestamp,
}

/// What may happen to an upstream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    /// The clock goes back.
    Back(u64),
    Succeed,
    Answer,
    Fail,
    Eject(usize),
    Restart,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Life {
    fn new() -> Self {
        let now = Timestamp::ZERO.after(seconds(100_000));
        Life {
            health: Health::new(now),
            now,
            latest: now,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.latest = self.latest.max(self.now);
    }

    /// A request that has just been sent ends.
    fn ended<'a>(&self, detection: &'a OutlierDetection) -> Ended<'a> {
        Ended {
            picked_at: self.now,
            now: self.now,
            elapsed: 0.1,
            detection: Some(detection),
        }
    }

    fn take(&mut self, step: Step, detection: &OutlierDetection) -> Option<Event> {
        let ended = self.ended(detection);
        match step {
            Step::Wait(time) => self.wait(seconds(time)),
            Step::Back(time) => {
                let nanos = self.now.as_nanos();
                let back = seconds(time).as_nanos() as u64;
                self.now = Timestamp::from_nanos(nanos.saturating_sub(back));
            }
            Step::Succeed => return self.health.succeed(&ended),
            Step::Answer => self.health.answer(&ended),
            Step::Fail => return self.health.fail(&ended),
            Step::Eject(reason) => {
                let reason = Reason::ALL[reason];
                return Some(self.health.eject(reason, self.now, detection));
            }
            Step::Restart => self.health.restart(self.now),
        }
        None
    }

    fn phase(&self) -> Phase {
        self.health.phase(self.now)
    }

    /// How long it stays ejected from now on.
    fn ejected_for(&self) -> Duration {
        self.health.out_until().since(self.now)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0u64..400).prop_map(Step::Wait),
        1 => (0u64..20_000).prop_map(Step::Back),
        4 => Just(Step::Succeed),
        1 => Just(Step::Answer),
        3 => Just(Step::Fail),
        2 => (0..Reason::ALL.len()).prop_map(Step::Eject),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn no_ejection_is_longer_than_configured_and_everyone_comes_back(steps in steps()) {
        let detection = OutlierDetection::default();
        let longest = detection.max_ejection_time.max(detection.base_ejection_time);
        let mut life = Life::new();
        for step in steps {
            if let Some(Event::Ejected(reason)) = life.take(step, &detection) {
                prop_assert_eq!(life.phase(), Phase::Ejected(reason));
                let time = life.ejected_for();
                prop_assert!(time >= detection.base_ejection_time, "{:?}", time);
                prop_assert!(time <= longest + Duration::from_millis(68), "{:?}", time);
            }
        }
        life.now = life.latest;
        life.wait(longest + seconds(1));
        let is_ejected = matches!(life.phase(), Phase::Ejected(_));
        prop_assert!(!is_ejected, "{:?}", life.phase());
        for _ in 0..3 {
            life.take(Step::Succeed, &detection);
        }
        prop_assert_eq!(life.phase(), Phase::In);
        // In time it is warm, whatever was.
        for _ in 0..WARM_REQUESTS {
            life.take(Step::Succeed, &detection);
        }
        life.wait(seconds(30));
        prop_assert!(life.health.is_warm(&SlowStart::default(), life.now));
        life.health.settle(Some(&SlowStart::default()), life.now);
        life.wait(seconds(400));
        prop_assert_eq!(life.health.warmth(&SlowStart::default(), life.now), 1.0);
    }

    #[test]
    fn what_is_stored_is_what_is_read(steps in steps()) {
        let detection = OutlierDetection::default();
        let mut life = Life::new();
        for step in steps {
            life.take(step, &detection);
            let bytes = life.health.encode();
            let words = bytes.as_chunks::<4>().0.try_into().unwrap();
            prop_assert_eq!(Health::decode(words), life.health);
        }
    }

    #[test]
    fn any_bytes_are_some_health(bytes in any::<[[u8; 4]; Health::SIZE / 4]>(), at in any::<u64>()) {
        let health = Health::decode(bytes);
        let now = Timestamp::from_nanos(at);
        let _ = health.phase(now);
        let warmth = health.warmth(&SlowStart::default(), now);
        prop_assert!(warmth > 0.0 && warmth <= 1.0, "{}", warmth);
    }
}

#[test]
fn ejections_double_up_to_a_limit_and_are_forgiven() {
    let detection = OutlierDetection::default();
    let mut life = Life::new();
    let mut lasted = Vec::new();
    life.take(Step::Eject(0), &detection);
    for _ in 0..7 {
        lasted.push(life.ejected_for().as_secs());
        let rest = life.ejected_for();
        life.wait(rest);
        // A failure while it is half-open.
        life.take(Step::Fail, &detection);
    }
    assert_eq!(lasted, [10, 20, 40, 80, 160, 300, 300]);
    // It comes back, and is well for as long as two ejections took.
    let rest = life.ejected_for();
    life.wait(rest);
    for _ in 0..3 {
        life.take(Step::Succeed, &detection);
    }
    assert_eq!(life.phase(), Phase::In);
    life.wait(seconds(160 + 80 + 1));
    life.take(Step::Eject(0), &detection);
    assert_eq!(life.ejected_for().as_secs(), 80);
}

#[test]
fn where_the_clock_goes_far_back_no_ejection_is_believed() {
    let detection = OutlierDetection::default();
    let mut life = Life::new();
    life.take(Step::Eject(0), &detection);
    life.take(Step::Back(3 * 60 * 60), &detection);
    assert_eq!(life.phase(), Phase::HalfOpen(Reason::ConsecutiveFailures));
}

#[test]
fn the_end_of_a_request_from_before_an_ejection_says_nothing() {
    let detection = OutlierDetection::default();
    let mut life = Life::new();
    let before = life.now;
    life.take(Step::Eject(0), &detection);
    life.wait(detection.base_ejection_time + seconds(1));
    let half_open = life.phase();
    assert!(matches!(half_open, Phase::HalfOpen(_)));
    let old = Ended {
        picked_at: before,
        ..life.ended(&detection)
    };
    assert_eq!(life.health.fail(&old), None);
    for _ in 0..9 {
        assert_eq!(life.health.succeed(&old), None);
    }
    assert_eq!(life.phase(), half_open);
}

#[test]
fn who_starts_anew_is_in_and_cold() {
    let detection = OutlierDetection::default();
    let mut life = Life::new();
    life.take(Step::Eject(0), &detection);
    life.take(Step::Restart, &detection);
    assert_eq!(life.phase(), Phase::In);
    let slow_start = SlowStart::default();
    assert_eq!(life.health.warmth(&slow_start, life.now), 0.1);
}
