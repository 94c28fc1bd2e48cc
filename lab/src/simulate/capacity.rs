//! How much a fleet can do at most.

use crate::model::{EventKind, Job, JobId, Server, ServerSpec, Time};
use crate::workload::{Workload, WorkloadError};

/// Requests of a saturated run. Enough that their mean work is within some 1 % of the workload's.
const REQUESTS: usize = 20_000;
/// The seed of the requests that all servers are measured with.
const SEED: u64 = 0xCAFE;

/// Requests per second that each of these servers can do of a workload, with a queue that is never empty.
///
/// The requests are those of one seed, all sent at once; counted is the middle of the run, from when a fifth have ended until
/// four fifths have, so that neither the filling of the batch nor its emptying counts.
///
/// # Errors
/// The workload cannot be made.
pub fn capacities(servers: &[ServerSpec], workload: &Workload) -> Result<Vec<f64>, WorkloadError> {
    let requests = workload.requests(REQUESTS, Some(1.0), SEED)?;
    let jobs: Vec<Job> = requests
        .iter()
        .zip(0..)
        .map(|(request, id)| Job {
            id: JobId(id),
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            service: request.service,
            stream: false,
        })
        .collect();
    let mut known: Vec<(ServerSpec, f64)> = Vec::new();
    let mut of_server = |server: &ServerSpec| {
        let mut nameless = server.clone();
        nameless.name.clear();
        nameless.max_waiting = None;
        let found = known.iter().find(|(spec, _)| *spec == nameless);
        if let Some((_, capacity)) = found {
            return *capacity;
        }
        let capacity = throughput(&nameless, &jobs);
        known.push((nameless, capacity));
        capacity
    };
    Ok(servers.iter().map(&mut of_server).collect())
}

fn throughput(spec: &ServerSpec, jobs: &[Job]) -> f64 {
    let mut server = Server::new(spec, SEED);
    let mut events = Vec::new();
    let mut sent = 0;
    for job in jobs {
        // What does not fit into this server's memory is no work that it could do.
        sent += usize::from(server.arrive(Time::ZERO, *job, &mut events).is_ok());
    }
    let (first, last) = (sent / 5, sent * 4 / 5);
    let (mut ended, mut from, mut to) = (0, Time::ZERO, Time::ZERO);
    while ended < last
        && let Some(next) = server.next_event()
    {
        server.advance(next, &mut events);
        for event in events.drain(..) {
            if event.kind == EventKind::Done {
                ended += 1;
                if ended == first {
                    from = event.at;
                }
                if ended == last {
                    to = event.at;
                }
            }
        }
    }
    let seconds = to.since(from).as_secs_f64();
    if seconds > 0.0 {
        (last - first) as f64 / seconds
    } else {
        0.0
    }
}
