use super::*;

const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

/// An answer at the first try.
fn answer(owners: &mut Owners, address: &str, picked: u64) -> Owner {
    if owners.confirm(address, picked) {
        Owner::Picked
    } else {
        owners.attribute(address, picked, true)
    }
}

/// Each of the three has answered from its own address.
fn healthy() -> Owners {
    let mut owners = Owners::default();
    for _ in 0..3 {
        for (address, upstream) in [("a", A), ("b", B), ("c", C)] {
            assert_eq!(answer(&mut owners, address, upstream), Owner::Picked);
        }
    }
    owners
}

#[test]
fn an_upstream_that_was_seen_at_its_own_address_does_not_serve_from_anothers() {
    let mut owners = healthy();
    for _ in 0..1_000 {
        assert_eq!(answer(&mut owners, "b", A), Owner::Other(B));
        assert_eq!(answer(&mut owners, "b", B), Owner::Picked);
    }
    assert_eq!(owners.attribute("c", A, false), Owner::Other(C));
    assert_eq!(answer(&mut owners, "a", A), Owner::Picked);
}

#[test]
fn upstreams_behind_one_address_are_believed() {
    let mut owners = Owners::default();
    for upstream in [A, B, C, A, B, C] {
        assert_eq!(answer(&mut owners, "proxy", upstream), Owner::Picked);
    }
    assert_eq!(owners.attribute("proxy", 9, false), Owner::Unknown);
}

/// Nothing tells at first which of two is dead; once it has been seen alive, its
/// next death is understood.
#[test]
fn one_that_is_dead_at_first_is_known_once_it_has_lived() {
    let mut owners = Owners::default();
    for upstream in [A, B, A, B] {
        assert_eq!(answer(&mut owners, "b", upstream), Owner::Picked);
    }
    for _ in 0..40 {
        assert_eq!(answer(&mut owners, "a", A), Owner::Picked);
        assert_eq!(answer(&mut owners, "b", B), Owner::Picked);
    }
    assert_eq!(answer(&mut owners, "b", A), Owner::Other(B));
    assert_eq!(answer(&mut owners, "b", B), Owner::Picked);
}

#[test]
fn an_address_that_goes_to_another_upstream_is_the_others() {
    // Its old upstream is elsewhere now.
    let mut owners = healthy();
    for _ in 0..40 {
        assert_eq!(answer(&mut owners, "a2", A), Owner::Picked);
    }
    assert_eq!(answer(&mut owners, "a", B), Owner::Picked);
    // Its old upstream is gone.
    let mut owners = healthy();
    for _ in 0..1_000 {
        answer(&mut owners, "b", B);
        answer(&mut owners, "c", C);
    }
    assert_eq!(answer(&mut owners, "a", B), Owner::Picked);
}

#[test]
fn a_declaration_is_believed_before_what_was_seen() {
    let mut owners = healthy();
    owners.declare("a", B);
    assert!(!owners.confirm("a", A));
    assert!(owners.confirm("a", B));
    assert!(owners.is_claimed_by_others("a", A));
    // Without one address of its own, A is believed again.
    assert_eq!(owners.attribute("new", A, false), Owner::Unknown);
    assert_eq!(owners.attribute("new", A, true), Owner::Picked);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut owners = Owners::default();
    for address in 0..10_000 {
        owners.attribute(&address.to_string(), A, true);
    }
    assert!(owners.len() <= 4096);
}

#[test]
fn another_route_is_known_by_the_name_of_its_cluster() {
    let mut serving = Serving::default();
    let mut route = |picked, cluster| serving.route(PoolIndex(1), picked, cluster, false);
    // Any name may do until the right one is seen.
    assert_eq!(route("h100", "app"), Route::Unclear);
    assert_eq!(
        route("h100", "outbound|80|h100|llama.models.svc"),
        Route::Picked
    );
    assert_eq!(route("h100", "app"), Route::Other);
    assert_eq!(
        route("h100", "outbound|80|l4|llama.models.svc"),
        Route::Other
    );
    assert_eq!(route("h100", "outbound|80||h100"), Route::Other);
    assert_eq!(route("", "outbound|80||h100"), Route::Picked);
    // Endpoints are those of one cluster.
    assert_eq!(
        serving.route(PoolIndex(0), "gpus", "app", true),
        Route::Other
    );
    assert_eq!(
        serving.route(PoolIndex(0), "gpus", "gpus", true),
        Route::Picked
    );
}
