//! Models that share GPUs: with Envoy's own balancing they run out of memory and
//! crash, behind the filter they do not.

use std::time::Duration;

use lab::bench::{Chooser, SharedGpus};

/// Four seconds of requests that take nine tenths of the memory on average, so that
/// who does not look takes all of it soon. Loading again after a crash takes 0.7 s.
const SETTING: SharedGpus = SharedGpus {
    gpus: 2,
    span: Duration::from_secs(120),
    used: 0.9,
    time_scale: 30.0,
    workers: 2,
    seed: 1,
};

#[tokio::test]
async fn least_request_runs_gpus_out_of_memory_and_paceline_does_not() {
    let envoys = SETTING.run(Chooser::LeastRequest).await.unwrap();
    let own = SETTING.run(Chooser::Paceline).await.unwrap();
    let (tally, others) = (own.requests(), envoys.requests());
    println!("{} crashes, {}", envoys.crashes, others.failures());
    assert!(envoys.crashes > 0);
    assert_eq!(own.crashes, 0);
    assert_eq!(tally.successes(), tally.total(), "{}", tally.failures());
    assert_eq!(tally.total(), others.total());
    assert!(others.successes() < others.total(), "crashes lose requests");
}
