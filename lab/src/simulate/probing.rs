//! Paceline's probes: the filter's own prober, with the servers of a run to ask.

use std::time::Duration;

use paceline::config::Config;
use paceline::health::Prober;
use paceline::host::memory::Memory;
use paceline::host::{CallId, Calls, HostError, SetError, SharedData, Version, Versioned};
use paceline::pool::{MemberIndex, Topology};
use paceline::time::Timestamp;

use super::fleet::Fleet;
use super::probed::Probed;
use crate::model::{HealthAnswer, Time};

/// What Envoy says of a call to a cluster that it does not know: a bad argument.
const NO_CLUSTER: HostError = HostError(2);

/// A worker's part in probing: it asks if no other worker of its process does.
///
/// An answer comes at once, or within a tick of the moment from which the server answers again.
pub(super) struct Probing {
    prober: Prober,
    line: Line,
}

/// The calls of one worker.
#[derive(Default)]
struct Line {
    under_way: Vec<UnderWay>,
    last: u32,
    /// The answer that the prober is at.
    answer: Option<HealthAnswer>,
}

struct UnderWay {
    id: CallId,
    server: usize,
    sent: Option<Time>,
    timeout: Duration,
}

impl Probing {
    /// Nothing where no pool has a health check; `id` tells the worker apart from all others.
    pub(super) fn new(config: &Config, topology: &Topology, key: &str, id: u64) -> Option<Self> {
        let prober = Prober::new(config, topology, key, id)?;
        let line = Line::default();
        Some(Self { prober, line })
    }

    /// Asks those that are due, and hears those that answer. Returns who has become ready.
    pub(super) fn tick(
        &mut self,
        shared: &mut Memory,
        fleet: &Fleet,
        (now, at): (Time, Timestamp),
    ) -> Vec<MemberIndex> {
        // In memory nothing fails.
        let _ = self.prober.tick(&mut self.line.at(shared, fleet), at);
        while let Some((ended, answer)) = self.line.next_end(fleet, now) {
            self.line.answer = answer;
            let size = answer.map_or(0, |answer| body(answer).len());
            let call = &mut self.line.at(shared, fleet);
            let _ = self.prober.hear(call, ended, answer.is_some(), size, at);
        }
        self.prober.take_ended();
        self.prober.take_ready()
    }

    /// Leaves probing to the others.
    pub(super) fn leave(mut self, shared: &mut Memory, fleet: &Fleet, at: Timestamp) {
        let _ = self.prober.leave(&mut self.line.at(shared, fleet), at);
    }
}

impl Line {
    fn at<'a>(&'a mut self, shared: &'a mut Memory, fleet: &'a Fleet) -> Host<'a> {
        Host {
            shared,
            fleet,
            line: self,
        }
    }

    /// A call that has ended by now, and its answer if it has one.
    fn next_end(&mut self, fleet: &Fleet, now: Time) -> Option<(CallId, Option<HealthAnswer>)> {
        let mut end = None;
        for (place, call) in self.under_way.iter_mut().enumerate() {
            let sent = *call.sent.get_or_insert(now);
            let replica = fleet.replicas().get(call.server);
            end = match replica.map(|replica| Probed::of(replica, now)) {
                Some(Probed::Answered(answer)) => Some((place, Some(answer))),
                Some(Probed::Nothing) if now.since(sent) < call.timeout => None,
                Some(Probed::Nothing | Probed::Reset) | None => Some((place, None)),
            };
            if end.is_some() {
                break;
            }
        }
        let (place, answer) = end?;
        Some((self.under_way.remove(place).id, answer))
    }
}

fn body(answer: HealthAnswer) -> Vec<u8> {
    format!(r#"{{"status":"{}"}}"#, answer.text()).into_bytes()
}

/// The proxy as the prober sees it.
struct Host<'a> {
    shared: &'a mut Memory,
    fleet: &'a Fleet,
    line: &'a mut Line,
}

impl SharedData for Host<'_> {
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
        self.shared.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError> {
        self.shared.set(key, value)
    }

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        self.shared.compare_and_set(key, value, expected)
    }
}

impl Calls for Host<'_> {
    fn call(
        &mut self,
        cluster: &str,
        _headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<CallId, HostError> {
        let mut servers = self.fleet.replicas().iter();
        let server = servers.position(|it| it.spec.name == cluster);
        let server = server.ok_or(NO_CLUSTER)?;
        self.line.last += 1;
        let id = CallId(self.line.last);
        self.line.under_way.push(UnderWay {
            id,
            server,
            sent: None,
            timeout,
        });
        Ok(id)
    }

    fn call_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        let value = self.line.answer.map(|answer| match name {
            ":status" => answer.status().to_string().into_bytes(),
            // Envoy adds its service time to what a server has answered.
            _ => b"0".to_vec(),
        });
        Ok(value)
    }

    fn call_body(&mut self, _max: usize) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.line.answer.map(body))
    }
}
