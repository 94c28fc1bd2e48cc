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

fn share(discovery: &Discovery, now: Timestamp) -> f64 {
    let mut rng = Rng::new(5);
    let explored = (0..10_000).filter(|_| discovery.explores("gpus", now, &mut rng));
    explored.count() as f64 / 10_000.0
}

#[test]
fn the_share_that_explores_falls_with_what_is_known() {
    let mut discovery = discovery();
    assert_eq!(share(&discovery, at(1)), 1.0);
    for port in 1..=100 {
        assert!(discovery.found("gpus", &format!("10.0.0.1:{port}"), at(1)));
        if port == 5 {
            // Six standard deviations of 0.003 and of 0.0022.
            assert!((share(&discovery, at(2)) - 0.1).abs() < 0.018);
            assert!((share(&discovery, at(9)) - 0.05).abs() < 0.0132);
        }
    }
    assert!((share(&discovery, at(9)) - 0.01).abs() < 0.006);
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
    assert!(one.absent("gpus", A));
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
    one.absent("gpus", A);
    one.tell(&mut shared, at(2));
    assert!(two.tick(&mut shared, at(3)));
    assert!(!one.tick(&mut shared, at(3)));
    assert!(two.endpoints("gpus").is_empty());
    // Nor is it forgotten again once it is back.
    two.found("gpus", A, at(4));
    two.absent("gpus", A);
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
    assert!(!discovery.failed("gpus", A));
    assert!(!discovery.failed("gpus", A));
    discovery.answered("gpus", A, at(2));
    assert!(!discovery.failed("gpus", A));
    assert!(!discovery.failed("gpus", A));
    assert!(discovery.failed("gpus", A));
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
        shared.set("key/endpoints/1/gpus", garbage.to_vec());
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
    shared.set("key/endpoints/1/gpus", endpoints::encode(&future));
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
