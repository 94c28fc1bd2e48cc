//! How many requests a second a fleet can serve.

use crate::model::{Event, EventKind, Fleet, Job, JobId, Refusal, Server, ServerSpec, Time};
use crate::workload::{Arrivals, Request, Workload, WorkloadError};

/// Requests that each server is given. A batching server works at up to some hundred of them at a time.
const SAMPLE: usize = 2000;

/// The seed of the sample: another one would give about the same capacity, this one always the same.
const SEED: u64 = 1;

/// A capacity that cannot be told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CapacityError {
    /// The workload has no requests.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The workload is for another kind of servers.
    #[error(
        "{workload}: its requests are service times, which the batching server {server} cannot work at; allowed are fleets of slot servers such as slots8"
    )]
    NotTokens {
        /// The workload.
        workload: String,
        /// The first server that cannot work at it.
        server: String,
    },
    /// No server can serve any of it.
    #[error("{workload}: no server of the fleet can serve any of its requests: {refusal}")]
    Refused {
        /// The workload.
        workload: String,
        /// Why the last one was refused.
        refusal: Refusal,
    },
}

/// How many requests of the workload the fleet serves a second when every server is always busy: at virtual time, each server's
/// throughput while requests wait for it, summed over the servers. No policy can serve more; devices may let it serve less, which is
/// not part of this.
///
/// # Errors
/// See [`CapacityError`].
pub fn capacity(fleet: &Fleet, workload: &Workload) -> Result<f64, CapacityError> {
    Ok(capacities(fleet, workload)?.iter().sum())
}

/// The same, server by server; 0 for one that can serve none of it.
///
/// # Errors
/// See [`CapacityError`].
pub fn capacities(fleet: &Fleet, workload: &Workload) -> Result<Vec<f64>, CapacityError> {
    let batching = fleet
        .servers()
        .iter()
        .find(|server| server.kind.name() == "batching");
    if let (true, Some(server)) = (workload.has_service_times(), batching) {
        return Err(CapacityError::NotTokens {
            workload: workload.to_string(),
            server: server.name.clone(),
        });
    }
    let sample = workload
        .clone()
        .arriving(Arrivals::Poisson)?
        .requests(SAMPLE, Some(1.0), SEED)?;
    let mut known: Vec<(ServerSpec, Result<f64, Refusal>)> = Vec::new();
    let mut capacities = Vec::with_capacity(fleet.servers().len());
    let mut last_refusal = None;
    for server in fleet.servers() {
        let alike = known.iter().find(|(spec, _)| is_alike(spec, server));
        let throughput = match alike {
            Some((_, throughput)) => *throughput,
            None => {
                let throughput = throughput(server, &sample);
                known.push((server.clone(), throughput));
                throughput
            }
        };
        capacities.push(throughput.unwrap_or(0.0));
        last_refusal = throughput.err().or(last_refusal);
    }
    match last_refusal {
        Some(refusal) if capacities.iter().all(|rate| *rate == 0.0) => {
            Err(CapacityError::Refused {
                workload: workload.to_string(),
                refusal,
            })
        }
        _ => Ok(capacities),
    }
}

/// Whether two servers differ in nothing but what they are called.
fn is_alike(a: &ServerSpec, b: &ServerSpec) -> bool {
    a.kind == b.kind && a.speed == b.speed && a.max_waiting == b.max_waiting
}

/// Requests a second that a server completes while more of them wait: those between the first and the third quarter, so that neither
/// filling up nor running dry counts.
fn throughput(spec: &ServerSpec, sample: &[Request]) -> Result<f64, Refusal> {
    let mut server = Server::new(spec, SEED);
    let mut waiting = sample.iter().cycle().zip(0..).take(SAMPLE).peekable();
    let mut events = Vec::new();
    let mut done = Vec::with_capacity(SAMPLE);
    let mut now = Time::ZERO;
    let mut last_refusal = None;
    loop {
        while let Some(&(request, id)) = waiting.peek() {
            match server.arrive(now, job(request, id), &mut events) {
                Ok(()) => {}
                Err(Refusal::QueueFull { .. }) if server.next_event().is_some() => break,
                Err(refusal) => last_refusal = Some(refusal),
            }
            waiting.next();
        }
        done.extend(events.drain(..).filter(is_done).map(|event| event.at));
        match server.next_event() {
            Some(time) => now = time,
            None => break,
        }
        server.advance(now, &mut events);
    }
    let (first, third) = (done.len() / 4, done.len() * 3 / 4);
    match (done.get(first), done.get(third), last_refusal) {
        (Some(&from), Some(&to), _) if to > from => {
            Ok((third - first) as f64 / to.since(from).as_secs_f64())
        }
        (_, _, Some(refusal)) => Err(refusal),
        // All done at once: there is nothing that a server of infinite speed could be loaded with.
        _ => Ok(f64::INFINITY),
    }
}

fn is_done(event: &Event) -> bool {
    event.kind == EventKind::Done
}

fn job(request: &Request, id: u64) -> Job {
    Job {
        id: JobId(id),
        prompt_tokens: request.prompt_tokens,
        output_tokens: request.output_tokens,
        service: request.service,
        size: request.size,
        stream: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Shape;

    fn of(fleet: &str, shape: Shape) -> Result<f64, CapacityError> {
        capacity(&Fleet::preset(fleet).unwrap(), &Workload::of_shape(shape))
    }

    #[test]
    fn slots_serve_one_over_the_mean_service_time_each() {
        // Eight of speed 1 at a mean of 28.5 s. The sample's mean is within 5 % at odds of more than 99 %.
        let capacity = of("slots8-equal", Shape::Diffusion).unwrap();
        assert!((capacity / (8.0 / 28.5) - 1.0).abs() < 0.05, "{capacity}");
        // Of speeds 2 x 1.7, 4 x 1 and 2 x 0.4 together 8.2.
        let unequal = of("slots8", Shape::Diffusion).unwrap();
        assert!((unequal / capacity - 8.2 / 8.0).abs() < 0.01, "{unequal}");
    }

    #[test]
    fn a_bounded_queue_does_not_lower_the_capacity() {
        let fleet = |max_waiting: &str| {
            Fleet::from_json(&format!(r#"{{ "servers": [ {{ "name": "a", "kind": "batching", "gpu": "a100"{max_waiting} }} ] }}"#)).unwrap()
        };
        let workload = Workload::of_shape(Shape::Conversation);
        let unbounded = capacity(&fleet(""), &workload).unwrap();
        let bounded = capacity(&fleet(r#", "max_waiting": 3"#), &workload).unwrap();
        assert!(
            (bounded / unbounded - 1.0).abs() < 0.05,
            "{bounded} {unbounded}"
        );
    }

    #[test]
    fn what_a_fleet_cannot_serve_is_told() {
        let error = of("unequal8", Shape::Diffusion).unwrap_err().to_string();
        assert!(
            error.contains("diffusion") && error.contains("h100-1") && error.contains("slots8"),
            "{error}"
        );
        let tiny = Fleet::from_json(r#"{ "servers": [ { "name": "a", "kind": "batching", "gpu": "a40", "kv_tokens": 2 } ] }"#).unwrap();
        let error = capacity(&tiny, &Workload::of_shape(Shape::Conversation))
            .unwrap_err()
            .to_string();
        assert!(error.contains("KV memory holds 2"), "{error}");
    }
}
