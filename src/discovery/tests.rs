use super::*;
use crate::host::memory::Memory;

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "[fd00::1]:80";

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn discovery() -> Discovery {
    let config = Config::parse(Some(br#"{"cluster": "gpus"}"#)).unwrap();
    Discovery::new(&config, "key")
}

/// Of so many requests, evenly over some seconds from `start` on, those that
/// explore.
fn explorations(discovery: &mut Discovery, requests: u64, start: u64, seconds: u64) -> u64 {
    let mut rng = Rng::new(5);
    let nanos = seconds * 1_000_000_000 / requests;
    let at = |number| Timestamp::from_nanos(start * 1_000_000_000 + number * nanos);
    let explored = (0..requests).filter(|it| discovery.explores("gpus", at(*it), &mut rng));
    explored.count() as u64
}

#[test]
fn the_share_that_explores_falls_with_what_is_known() {
    let mut discovery = discovery();
    assert_eq!(explorations(&mut discovery, 10_000, 1, 1), 10_000);
    for port in 1..=5 {
        assert!(discovery.found("gpus", &format!("10.0.0.1:{port}"), at(1)));
        if port == 2 {
            // Six standard deviations of 33 and of 30.
            let explored = explorations(&mut discovery, 10_000, 2, 1);
            assert!(explored.abs_diff(1_250) < 200, "{explored}");
        }
    }
    let explored = explorations(&mut discovery, 10_000, 2, 1);
    assert!(explored.abs_diff(1_000) < 180, "{explored}");
}

/// Whatever there is to serve, a stable list is looked after at its own pace.
#[test]
fn a_stable_list_is_explored_by_rate() {
    for requests_per_second in [100, 10_000] {
        let mut discovery = discovery();
        discovery.found("gpus", A, at(1));
        discovery.found("gpus", B, at(1));
        let start = 200;
        let requests = 600 * requests_per_second;
        let explored = explorations(&mut discovery, requests, start, 600);
        // Every 10 s, and until one of eight requests is left to the proxy.
        assert!((56..=60).contains(&explored), "{explored}");
    }
    // Where there is little to serve, most requests are still picked.
    let mut discovery = discovery();
    discovery.found("gpus", A, at(1));
    discovery.found("gpus", B, at(1));
    let explored = explorations(&mut discovery, 600, 200, 600);
    // One in 18, and six standard deviations.
    assert!(explored <= 65, "{explored}");
    // What comes or goes makes it look again soon.
    discovery.absent("gpus", B, at(900));
    let explored = explorations(&mut discovery, 6_000, 900, 6);
    assert!((5..=7).contains(&explored), "{explored}");
}

/// A job of 20 minutes is no silence, whoever else answers meanwhile.
#[test]
fn an_endpoint_that_works_is_not_silent() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (discovery(), discovery());
    for address in [A, B] {
        one.found("gpus", address, at(1));
    }
    one.tick(&mut shared, at(1));
    two.tick(&mut shared, at(1));
    for second in 2..1_200 {
        one.works("gpus", A, at(second));
        two.answered("gpus", B, at(second));
        assert!(!one.tick(&mut shared, at(second)));
        assert!(!two.tick(&mut shared, at(second)), "{second}");
    }
    assert_eq!(one.endpoints("gpus"), [A, B]);
    // Nothing is in flight any more, and nothing was answered.
    for second in 1_200..1_800 {
        two.answered("gpus", B, at(second));
        two.tick(&mut shared, at(second));
    }
    assert_eq!(two.endpoints("gpus"), [B]);
}

#[test]
fn workers_tell_each_other_what_comes_and_goes() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (discovery(), discovery());
    assert!(!one.tick(&mut shared, at(1)));
    one.found("gpus", A, at(1));
    two.found("gpus", C, at(1));
    one.tick(&mut shared, at(2));
    assert!(two.tick(&mut shared, at(2)));
    assert!(one.tick(&mut shared, at(3)));
    assert_eq!(one.endpoints("gpus"), [A, C]);
    assert_eq!(two.endpoints("gpus"), [A, C]);
    // One that the other has forgotten is gone, though it answered here.
    assert!(one.absent("gpus", A, at(2)));
    two.answered("gpus", A, at(3));
    one.tick(&mut shared, at(4));
    assert!(two.tick(&mut shared, at(4)));
    assert_eq!(two.endpoints("gpus"), [C]);
    assert!(!two.tick(&mut shared, at(5)));
    let mut later = discovery();
    later.read(&mut shared);
    assert_eq!(later.endpoints("gpus"), [C]);
}

#[test]
fn pools_of_one_cluster_share_what_is_known_of_it() {
    let pool = |name| {
        format!(r#"{{"name": "{name}", "cluster": "gpus", "match": {{"path_prefix": "/{name}"}}}}"#)
    };
    let config = format!(r#"{{"pools": [{}, {}]}}"#, pool("a"), pool("b"));
    let config = Config::parse(Some(config.as_bytes())).unwrap();
    assert_eq!(Discovery::new(&config, "key").clusters.len(), 1);
}

#[test]
fn news_is_told_once_and_at_once() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (discovery(), discovery());
    // Both find and tell the same.
    for worker in [&mut one, &mut two] {
        worker.found("gpus", A, at(1));
        worker.tell(&mut shared, at(1));
    }
    let mut next = discovery();
    next.read(&mut shared);
    assert_eq!(next.endpoints("gpus"), [A]);
    // What one forgets later is no news of the other's to be told again.
    one.absent("gpus", A, at(2));
    one.tell(&mut shared, at(2));
    assert!(two.tick(&mut shared, at(3)));
    assert!(!one.tick(&mut shared, at(3)));
    assert!(two.endpoints("gpus").is_empty());
    // Nor is it forgotten again once it is back.
    two.found("gpus", A, at(4));
    two.absent("gpus", A, at(2));
    two.tell(&mut shared, at(4));
    one.found("gpus", A, at(5));
    one.tell(&mut shared, at(5));
    assert!(two.tick(&mut shared, at(6)));
    assert_eq!(two.endpoints("gpus"), [A]);
}

#[test]
fn failures_in_a_row_without_an_answer_end_an_endpoint() {
    let mut discovery = discovery();
    discovery.found("gpus", A, at(1));
    assert!(!discovery.failed("gpus", A, at(2)));
    assert!(!discovery.failed("gpus", A, at(2)));
    discovery.answered("gpus", A, at(2));
    assert!(!discovery.failed("gpus", A, at(2)));
    assert!(!discovery.failed("gpus", A, at(2)));
    assert!(discovery.failed("gpus", A, at(2)));
    assert!(discovery.endpoints("gpus").is_empty());
    assert!(discovery.found("gpus", A, at(3)));
}

#[test]
fn silence_counts_only_while_others_answer() {
    let mut shared = Memory::default();
    let mut discovery = discovery();
    discovery.found("gpus", A, at(1));
    discovery.found("gpus", B, at(1));
    discovery.tick(&mut shared, at(1));
    // All are silent at night.
    assert!(!discovery.tick(&mut shared, at(10_000)));
    discovery.answered("gpus", B, at(10_000));
    assert!(discovery.tick(&mut shared, at(10_000)));
    assert_eq!(discovery.endpoints("gpus"), [B]);
}

#[test]
fn a_list_that_is_lost_or_damaged_is_written_again() {
    let mut shared = Memory::default();
    let mut discovery = discovery();
    discovery.found("gpus", A, at(1));
    discovery.tick(&mut shared, at(1));
    for garbage in [&b""[..], b"garbage", &[0xff; 300]] {
        shared.set("key/endpoints/1/gpus", garbage).unwrap();
        assert!(!discovery.tick(&mut shared, at(2)));
        let stored = shared.get("key/endpoints/1/gpus").unwrap().unwrap().value;
        let listed = endpoints::decode(&stored).unwrap();
        assert_eq!(listed[0].address, A);
    }
    // A time that has not come yet makes nobody look silent.
    let future = [
        Known {
            address: A.to_owned(),
            seen_at: at(u32::MAX.into()),
        },
        Known {
            address: B.to_owned(),
            seen_at: at(2),
        },
    ];
    shared
        .set("key/endpoints/1/gpus", &endpoints::encode(&future))
        .unwrap();
    discovery.tick(&mut shared, at(3));
    assert_eq!(discovery.endpoints("gpus"), [A, B]);
}

#[test]
fn what_is_no_address_and_what_is_too_much_is_not_taken_in() {
    let mut discovery = discovery();
    for address in ["", "/tmp/socket", "gpu:80", "10.0.0.1", "\u{fffd}"] {
        assert!(!discovery.found("gpus", address, at(1)), "{address}");
    }
    assert!(!discovery.found("others", A, at(1)));
    for port in 1..=CAPACITY + 10 {
        discovery.found("gpus", &format!("10.0.0.1:{port}"), at(1));
    }
    assert_eq!(discovery.endpoints("gpus").len(), CAPACITY);
}
