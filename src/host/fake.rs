//! A proxy in this process's memory, for tests: its clock goes when the test says
//! so, its metrics can be read, and any of its calls fails on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::memory::Memory;
use super::{
    CallId, Calls, Host, HostError, LocalResponse, MetricId, MetricKind, QueueId, SetError,
    SharedData, Version, Versioned,
};
use crate::time::Timestamp;

/// What may be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Now,
    Random,
    /// Reads of shared data.
    Get,
    /// Writes of shared data.
    Set,
    SetRequestHeader,
    RemoveRequestHeader,
    RequestBody,
    Attend,
    ResumeRequest,
    Respond,
    OwnQueue,
    Enqueue,
    Dequeue,
    TickEvery,
    Dispatch,
    AnswerHeader,
    AnswerBody,
    Property,
    SetProperty,
    DefineMetric,
    WriteMetric,
}

/// One process, and the streams of one of its workers.
#[derive(Debug)]
pub(crate) struct Fake {
    memory: Memory,
    now: Timestamp,
    draws: u64,
    /// By their contexts.
    streams: BTreeMap<u32, Stream>,
    /// Which stream calls are about.
    context: u32,
    tick_millis: Option<u32>,
    /// The requests that were sent, in their order; their places are their ids.
    calls: Vec<Sent>,
    /// The answer to one of them that is being told.
    answer: Answer,
    /// What is in each queue, by its number.
    queues: Vec<(String, u32)>,
    metrics: Vec<(MetricKind, String)>,
    /// By name: what counters have reached and gauges show.
    values: BTreeMap<String, u64>,
    samples: BTreeMap<String, Vec<u64>>,
    failing: BTreeSet<Call>,
}

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) cluster: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
}

/// The answer to a request that was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) headers: BTreeMap<String, Vec<u8>>,
    pub(crate) body: Vec<u8>,
}

/// What the proxy has of one stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) request: BTreeMap<String, Vec<u8>>,
    pub(crate) response: BTreeMap<String, Vec<u8>>,
    /// The part of the request's body that is being shown.
    pub(crate) body: Vec<u8>,
    /// How often the request was told to go on.
    pub(crate) resumed: u32,
    /// The status and the headers of the answer in place of an upstream's.
    pub(crate) answered: Option<(u16, BTreeMap<String, Vec<u8>>)>,
    /// The body of that answer.
    pub(crate) answer_body: Vec<u8>,
    properties: BTreeMap<String, Vec<u8>>,
    /// What the access log can tell.
    pub(crate) logged: BTreeMap<String, String>,
}

impl Fake {
    /// A process that has run for an hour, and in which nothing has happened.
    pub(crate) fn new() -> Self {
        Fake {
            memory: Memory::default(),
            now: Timestamp::from_nanos(3_600_000_000_000),
            draws: 0,
            streams: BTreeMap::new(),
            context: 0,
            tick_millis: None,
            calls: Vec::new(),
            answer: Answer::default(),
            queues: Vec::new(),
            metrics: Vec::new(),
            values: BTreeMap::new(),
            samples: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) {
        let nanos = self.now.as_nanos() + time.as_nanos() as u64;
        self.now = Timestamp::from_nanos(nanos);
    }

    /// Begins a stream with these request headers, and turns to it.
    pub(crate) fn begin(&mut self, context: u32, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| header(name, value));
        let stream = Stream {
            request: headers.collect(),
            ..Stream::default()
        };
        self.streams.insert(context, stream);
        self.context = context;
    }

    /// The requests that were sent, each with its id.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (CallId, &Sent)> {
        (0..).map(CallId).zip(&self.calls)
    }

    /// Turns to the answer of an upstream to a request that was sent.
    pub(crate) fn answer(&mut self, status: u16, body: &[u8]) {
        let headers = [
            (":status", status.to_string()),
            (super::attributes::SERVICE_TIME_HEADER, "1".to_owned()),
        ];
        self.answer = Answer {
            headers: headers
                .iter()
                .map(|(name, value)| header(name, value))
                .collect(),
            body: body.to_vec(),
        };
    }

    /// Turns to the answer that the proxy gives itself to a request that was sent.
    pub(crate) fn answer_locally(&mut self, status: u16) {
        self.answer(status, b"the proxy says why");
        self.answer
            .headers
            .remove(super::attributes::SERVICE_TIME_HEADER);
    }

    /// Forgets a stream.
    pub(crate) fn forget(&mut self, context: u32) {
        self.streams.remove(&context);
    }

    /// Turns to a stream that was begun.
    pub(crate) fn stream(&mut self, context: u32) -> &mut Stream {
        self.context = context;
        self.streams.get_mut(&context).expect("it has begun")
    }

    /// Makes all calls of this kind fail from now on.
    pub(crate) fn fail(&mut self, call: Call) {
        self.failing.insert(call);
    }

    /// Lets all calls go well again.
    pub(crate) fn heal(&mut self) {
        self.failing.clear();
    }

    /// The period of the ticks that were asked for.
    pub(crate) fn tick_millis(&self) -> Option<u32> {
        self.tick_millis
    }

    /// What a counter has reached or a gauge shows; 0 for what is not there.
    pub(crate) fn value(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }

    /// The counters and gauges whose names begin like this and that are not 0, by
    /// the rest of their names.
    pub(crate) fn values(&self, prefix: &str) -> BTreeMap<String, u64> {
        let values = self.values.iter().filter(|(_, value)| **value > 0);
        values
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), *value)))
            .collect()
    }

    /// The samples of all histograms whose names begin like this.
    pub(crate) fn samples(&self, prefix: &str) -> Vec<u64> {
        let samples = self.samples.iter();
        let samples = samples.filter(|(name, _)| name.starts_with(prefix));
        samples.flat_map(|(_, samples)| samples.clone()).collect()
    }

    /// The names of all metrics that were defined, each as often as it was.
    pub(crate) fn defined(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(|(_, name)| name.as_str())
    }

    fn attempt(&self, call: Call) -> Result<(), HostError> {
        match self.failing.contains(&call) {
            true => Err(HostError(10)),
            false => Ok(()),
        }
    }

    fn attended(&mut self) -> Result<&mut Stream, HostError> {
        self.streams.get_mut(&self.context).ok_or(HostError(2))
    }
}

impl Stream {
    /// Sets a property that is a number.
    pub(crate) fn set_number(&mut self, path: &[&str], value: u64) {
        let value = value.to_le_bytes().to_vec();
        self.properties.insert(path.join("."), value);
    }

    /// Sets a property that is text.
    pub(crate) fn set_text(&mut self, path: &[&str], value: &str) {
        self.properties.insert(path.join("."), value.into());
    }

    /// A request header as text; empty where there is none.
    pub(crate) fn request_header(&self, name: &str) -> &str {
        let value = self.request.get(name).map_or(&b""[..], Vec::as_slice);
        std::str::from_utf8(value).unwrap()
    }
}

fn header(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

impl SharedData for Fake {
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
        self.attempt(Call::Get)?;
        self.memory.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError> {
        self.attempt(Call::Set)?;
        self.memory.set(key, value)
    }

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        self.attempt(Call::Set).map_err(SetError::Host)?;
        self.memory.compare_and_set(key, value, expected)
    }
}

impl Calls for Fake {
    fn call(
        &mut self,
        cluster: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<CallId, HostError> {
        self.attempt(Call::Dispatch)?;
        let headers = headers.iter();
        self.calls.push(Sent {
            cluster: cluster.to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            timeout,
        });
        Ok(CallId(self.calls.len() as u32 - 1))
    }

    fn call_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.attempt(Call::AnswerHeader)?;
        Ok(self.answer.headers.get(name).cloned())
    }

    fn call_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.attempt(Call::AnswerBody)?;
        let body = &self.answer.body;
        Ok((!body.is_empty()).then(|| body.iter().take(max).copied().collect()))
    }
}

impl Host for Fake {
    fn now(&mut self) -> Result<Timestamp, HostError> {
        self.attempt(Call::Now)?;
        Ok(self.now)
    }

    fn random(&mut self) -> Result<u64, HostError> {
        self.attempt(Call::Random)?;
        self.draws += 1;
        Ok(crate::random::mix(self.draws))
    }

    fn request_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.attended()?.request.get(name).cloned())
    }

    fn set_request_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
        self.attempt(Call::SetRequestHeader)?;
        self.attended()?.request.extend([header(name, value)]);
        Ok(())
    }

    fn remove_request_header(&mut self, name: &str) -> Result<(), HostError> {
        self.attempt(Call::RemoveRequestHeader)?;
        self.attended()?.request.remove(name);
        Ok(())
    }

    fn request_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.attempt(Call::RequestBody)?;
        let body = &self.attended()?.body;
        Ok((!body.is_empty()).then(|| body.iter().take(max).copied().collect()))
    }

    fn attend(&mut self, context: u32) -> Result<(), HostError> {
        self.attempt(Call::Attend)?;
        if !self.streams.contains_key(&context) {
            return Err(HostError(2));
        }
        self.context = context;
        Ok(())
    }

    fn resume_request(&mut self) -> Result<(), HostError> {
        self.attempt(Call::ResumeRequest)?;
        self.attended()?.resumed += 1;
        Ok(())
    }

    fn respond(&mut self, response: &LocalResponse<'_>) -> Result<(), HostError> {
        self.attempt(Call::Respond)?;
        let headers = response.headers.iter();
        let headers = headers.map(|(name, value)| header(name, value)).collect();
        let stream = self.attended()?;
        stream.answered = Some((response.status, headers));
        stream.answer_body = response.body.to_vec();
        Ok(())
    }

    fn own_queue(&mut self, name: &str) -> Result<QueueId, HostError> {
        self.attempt(Call::OwnQueue)?;
        let known = self.queues.iter().position(|(it, _)| it == name);
        let number = known.unwrap_or(self.queues.len());
        if known.is_none() {
            self.queues.push((name.to_owned(), 0));
        }
        Ok(QueueId(number as u32))
    }

    fn enqueue(&mut self, queue: QueueId) -> Result<(), HostError> {
        self.attempt(Call::Enqueue)?;
        let queue = self.queues.get_mut(queue.0 as usize).ok_or(HostError(1))?;
        queue.1 += 1;
        Ok(())
    }

    fn dequeue(&mut self, queue: QueueId) -> Result<bool, HostError> {
        self.attempt(Call::Dequeue)?;
        let queue = self.queues.get_mut(queue.0 as usize).ok_or(HostError(1))?;
        let was_there = queue.1 > 0;
        queue.1 = queue.1.saturating_sub(1);
        Ok(was_there)
    }

    fn tick_every(&mut self, millis: u32) -> Result<(), HostError> {
        self.attempt(Call::TickEvery)?;
        self.tick_millis = Some(millis);
        Ok(())
    }

    fn response_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.attended()?.response.get(name).cloned())
    }

    fn set_response_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
        self.attended()?.response.extend([header(name, value)]);
        Ok(())
    }

    fn property(&mut self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        self.attempt(Call::Property)?;
        if path == super::attributes::PLUGIN_NAME {
            return Ok(Some(b"test".to_vec()));
        }
        Ok(self.attended()?.properties.get(&path.join(".")).cloned())
    }

    fn set_property(&mut self, path: &str, value: &str) -> Result<(), HostError> {
        self.attempt(Call::SetProperty)?;
        self.attended()?
            .logged
            .insert(path.to_owned(), value.to_owned());
        Ok(())
    }

    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Result<MetricId, HostError> {
        self.attempt(Call::DefineMetric)?;
        self.metrics.push((kind, name.to_owned()));
        Ok(MetricId(self.metrics.len() as u32 - 1))
    }

    fn increment_metric(&mut self, id: MetricId, by: i64) -> Result<(), HostError> {
        self.attempt(Call::WriteMetric)?;
        let (kind, name) = self.metrics.get(id.0 as usize).ok_or(HostError(2))?;
        assert_eq!(*kind, MetricKind::Counter, "{name}");
        let by = u64::try_from(by).expect("a counter only grows");
        *self.values.entry(name.clone()).or_default() += by;
        Ok(())
    }

    fn record_metric(&mut self, id: MetricId, value: u64) -> Result<(), HostError> {
        self.attempt(Call::WriteMetric)?;
        let (kind, name) = self.metrics.get(id.0 as usize).ok_or(HostError(2))?;
        match kind {
            MetricKind::Counter => panic!("{name} is a counter"),
            MetricKind::Gauge => drop(self.values.insert(name.clone(), value)),
            MetricKind::Histogram => self.samples.entry(name.clone()).or_default().push(value),
        }
        Ok(())
    }
}
