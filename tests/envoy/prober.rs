//! The VM that sends the probes traps, and another takes over.

use std::time::Duration;

use lab::gateway::Balancing;

use crate::health::checked;
use crate::support::fleet::Fleet;
use crate::support::trap::trapping_where;
use crate::support::upstream::{Behaviour, Health};
use crate::support::{SOON, eventually};

/// So many bytes in an answer to a probe make the VM trap that reads it.
const POISON: usize = 4242;
/// The parameter of `proxy_on_http_call_response` that has the size of the body.
const BODY_SIZE: u8 = 3;
/// The lease of two seconds, the next tick, and a probe; and as much for a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(6);

/// Only the prober is told of answers, so the trap is its own, whichever thread it runs on:
/// a worker's or the main one.
#[tokio::test]
async fn another_vm_asks_when_that_of_the_prober_traps() {
    let module = trapping_where("proxy_on_http_call_response", BODY_SIZE, POISON);
    let balancing = Balancing::Filter {
        module: module.path().to_owned(),
        config: checked(3, "least_request").to_string(),
    };
    let fleet = Fleet::start_with(3, Behaviour::OK, balancing, |topology| {
        topology.workers = 2;
    })
    .await;
    fleet.expect_ready(&["a", "b", "c"]).await;

    let poison = format!("{:<POISON$}", r#"{"status": "ready"}"#);
    let asked = fleet.upstreams[0].probes().len();
    fleet.upstreams[0].set_health(Health::Says {
        status: 200,
        body: poison.leak(),
    });
    eventually("the trap", SOON, async || {
        let log = fleet.gateway.logs().unwrap();
        let trapped = log.contains("proxy_on_http_call_response");
        trapped.then_some(()).ok_or(log)
    })
    .await;
    fleet.upstreams[0].set_health(Health::READY);
    assert!(fleet.upstreams[0].probes().len() > asked);

    // The next prober goes on: it asks, and sees what changes.
    fleet.upstreams[1].set_health(Health::UNAVAILABLE);
    let counts: Vec<_> = fleet.upstreams.iter().map(|it| it.probes().len()).collect();
    eventually("all to be asked again", TAKEN_OVER, async || {
        let now: Vec<_> = fleet.upstreams.iter().map(|it| it.probes().len()).collect();
        let all = now
            .iter()
            .zip(&counts)
            .all(|(now, before)| now >= &(before + 2));
        all.then_some(()).ok_or(format!("{now:?} after {counts:?}"))
    })
    .await;
    fleet.expect_ready(&["a", "c"]).await;
    // A worker whose VM has trapped gets another with its next requests.
    eventually("all requests to be served", SOON, async || {
        let before = fleet.counts()[1];
        let statuses = fleet.load(4, 25).await;
        let all = statuses.iter().all(|status| *status == 200);
        (all && fleet.counts()[1] == before)
            .then_some(())
            .ok_or(format!("{statuses:?}"))
    })
    .await;
}
