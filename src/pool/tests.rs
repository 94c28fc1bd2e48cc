use super::*;
use crate::config::Config;

#[test]
fn pools_that_share_an_upstream_have_a_member_each() {
    let config = Config::parse(Some(
        br#"{"pools": [
            {"name": "small", "match": {"path_prefix": "/s"}, "upstreams": [{"cluster": "a", "weight": 2}, {"cluster": "b"}]},
            {"name": "large", "upstreams": [{"cluster": "b"}]}
        ]}"#,
    ))
    .unwrap();
    let topology = Topology::new(&config);
    assert_eq!(topology.members.len(), 3);
    assert_eq!(topology.upstreams.len(), 2);
    assert_eq!(topology.pools[1].members, 2..3);
    assert_eq!(topology.members[1].upstream, topology.members[2].upstream);
    assert_eq!(topology.upstream_of(MemberIndex(2)).unwrap().cluster, "b");
    assert_ne!(topology.members[1].identity, topology.members[2].identity);
    assert_eq!(topology.upstream_of(MemberIndex(9)), None);
}

#[test]
fn what_is_held_outlives_the_pool_that_picked_it() {
    let config = Config::parse(Some(br#"{"cluster": "gpus"}"#)).unwrap();
    let with = |addresses: &[&str]| {
        let found: Vec<_> = addresses.iter().map(|it| (*it).to_owned()).collect();
        Topology::with_endpoints(&config, |_| found.clone())
    };
    let old = with(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let handles = |index| {
        (
            old.member_handle(MemberIndex(index)).unwrap(),
            old.upstream_handle(UpstreamIndex(index)).unwrap(),
        )
    };
    let ((gone, gone_there), (stays, stays_there)) = (handles(1), handles(2));
    assert_eq!(old.find_member(gone), Some(MemberIndex(1)));

    let mut new = with(&["10.0.0.3:80", "10.0.0.4:80"]);
    assert_eq!(new.find_member(gone), None);
    new.retain(&old, [1, 2].map(UpstreamIndex).into_iter());
    assert_eq!(new.pools[0].members, 0..2);
    assert_eq!(
        (new.find_member(stays), new.find_upstream(stays_there)),
        (Some(MemberIndex(0)), Some(UpstreamIndex(0)))
    );
    let (member, upstream) = (
        new.find_member(gone).unwrap(),
        new.find_upstream(gone_there).unwrap(),
    );
    assert_eq!((member.0, upstream.0), (2, 2));
    assert_eq!(new.upstream_of(member).unwrap().name(), "10.0.0.2:80");
    assert_eq!((new.members.len(), new.upstreams.len()), (3, 3));
    assert_eq!(
        new.endpoint(PoolIndex(0), "10.0.0.4:80"),
        Some(MemberIndex(1))
    );
    assert_eq!(new.endpoint(PoolIndex(0), "10.0.0.2:80"), None);
}

#[test]
fn what_is_learned_from_other_sizes_or_another_signal_is_kept_apart() {
    let identities = [
        "",
        r#""latency": {"signal": "first_byte"},"#,
        r#""request_size": "openai","#,
        r#""request_size": "openai", "latency": {"signal": "first_byte"},"#,
        r#""request_size": {"header": "x-steps"},"#,
        r#""request_size": {"header": "x-images"},"#,
        r#""request_size": {"json_pointer": "/steps"},"#,
        r#""request_size": {"json_pointer": "/steps/0"},"#,
    ]
    .map(|keys| {
        let json = format!(r#"{{{keys} "upstreams": [{{"cluster": "a"}}]}}"#);
        let topology = Topology::new(&Config::parse(Some(json.as_bytes())).unwrap());
        // What is in flight there is, whatever is learned of it.
        assert_eq!(topology.upstreams[0].identity, identity(&["a"]), "{keys}");
        (topology.pools[0].identity, topology.members[0].identity)
    });
    let all = identities.iter().enumerate();
    for (place, one) in all {
        for other in &identities[..place] {
            assert_ne!(one.0, other.0);
            assert_ne!(one.1, other.1);
        }
    }
    assert_eq!(identities[0].0, identity(&["default"]));
}

#[test]
fn identities_do_not_run_names_together() {
    assert_ne!(identity(&["ab", "c"]), identity(&["a", "bc"]));
    assert_ne!(identity(&["a"]), identity(&["a", ""]));
}
