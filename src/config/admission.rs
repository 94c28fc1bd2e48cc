//! What happens to requests that cannot run at once, or not in time.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::json::{Json, Quoted};
use super::names;
use super::reader::{FirstUses, Node, Object, Path};
use super::request_size::read_header;
use super::suggestion;

const MAX_REQUESTS: RangeInclusive<u32> = 0..=10_000;
const DEFAULT_MAX_REQUESTS: u32 = 1000;
const MAX_BYTES: RangeInclusive<u32> = 0..=1 << 30;
const DEFAULT_MAX_BYTES: u32 = 64 << 20;
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60 * 60);
const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(30);
const DEADLINES: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
const MODES: [&str; 3] = ["enforce", "prefer", "off"];

/// The most priority classes of a pool: each has metrics of its own, and each but
/// the first a guaranteed share.
pub const MAX_CLASSES: usize = 8;

/// What happens to requests that cannot run at once, or not in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// How many requests may wait, and how long.
    pub queue: QueueLimits,
    /// Which of them come first; all are of one class unless given.
    pub priority: Option<Priority>,
    /// Who shares what is free; all are one tenant unless given.
    pub fairness: Option<Fairness>,
    /// By when requests must be done; at any time unless given.
    pub deadline: Option<Deadline>,
}

impl Admission {
    /// The request headers that are read, each with the key that names it.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let priority = self.priority.as_ref().map(|it| ("priority", &it.header));
        let fairness = self.fairness.as_ref().map(|it| ("fairness", &it.header));
        let deadline = self.deadline.as_ref().and_then(|it| it.header.as_ref());
        let deadline = deadline.map(|header| ("deadline", header));
        priority.into_iter().chain(fairness).chain(deadline)
    }

    /// What deadlines do; nothing where none are configured.
    #[must_use]
    pub fn deadline_mode(&self) -> DeadlineMode {
        let deadline = self.deadline.as_ref();
        deadline.map_or(DeadlineMode::Off, |deadline| deadline.mode)
    }

    /// How many priority classes there are: at least one.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.priority.as_ref().map_or(1, |it| it.classes.len())
    }
}

/// How much may wait, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests: 0 to 10000, default 1000. With 0 none waits.
    pub max_requests: u32,
    /// How long each waits at most: 1 millisecond to 1 hour, default 30 seconds.
    pub max_wait: Duration,
    /// Bytes of their bodies: 0 to 1 GiB, default 64 MiB.
    pub max_bytes: u32,
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits {
            max_requests: DEFAULT_MAX_REQUESTS,
            max_wait: DEFAULT_MAX_WAIT,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

/// The classes of requests, and which header names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority {
    /// The request header that names the class, in lower case.
    pub header: String,
    /// The classes, the most important first: 2 to 8, each once.
    pub classes: Vec<String>,
    /// The place in `classes` of the class of a request that names none of them.
    pub default: usize,
}

/// Tenants, and which header names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fairness {
    /// The request header that names the tenant, in lower case.
    pub header: String,
}

/// By when a request must be done, counted from its arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// A request header with milliseconds, in lower case, which counts before the
    /// headers that mean a deadline to everybody.
    pub header: Option<String>,
    /// What counts where no header says anything: 1 millisecond to 24 hours. Such
    /// requests have no deadline unless given.
    pub default: Option<Duration>,
    /// What a deadline does.
    pub mode: DeadlineMode,
}

/// What a deadline does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadlineMode {
    /// A request that no upstream can serve in time is rejected.
    #[default]
    Enforce,
    /// Upstreams that can serve the request in time are preferred, if there are any.
    Prefer,
    /// Nothing, and no header is read.
    Off,
}

/// Reads `admission` of a pool.
pub(super) fn read(pool: &Object<'_>, problems: &mut Problems) -> Admission {
    let admission = pool.get("admission");
    let allowed = "an object such as {\"queue\": {\"max_wait\": \"10s\"}}";
    let Some(object) = admission.and_then(|node| node.object(allowed, problems)) else {
        return Admission::default();
    };
    object.allow_only(&["queue", "priority", "fairness", "deadline"], problems);
    Admission {
        queue: object
            .get("queue")
            .and_then(|node| read_queue(node, problems))
            .unwrap_or_default(),
        priority: object
            .get("priority")
            .and_then(|node| read_priority(node, problems)),
        fairness: object
            .get("fairness")
            .and_then(|node| read_fairness(node, problems)),
        deadline: object
            .get("deadline")
            .and_then(|node| read_deadline(node, problems)),
    }
}

/// Refuses what only those heed that wait, in a pool in which none does.
pub(super) fn refuse_unheeded(has_limits: bool, pool: &Object<'_>, problems: &mut Problems) {
    let path = Path::Key(&pool.path, "admission");
    let Some(Json::Object(entries)) = pool.get("admission").map(|node| node.json) else {
        return;
    };
    let unheeded = entries
        .iter()
        .filter(|(key, _)| key != "deadline" && !has_limits);
    for (key, _) in unheeded {
        problems.add(
            &Path::Key(&path, key),
            &"no request of this pool ever waits; give the pool or an upstream \
                       max_in_flight, or leave this out",
        );
    }
}

fn read_queue(node: Node<'_>, problems: &mut Problems) -> Option<QueueLimits> {
    let object = node.object("an object such as {\"max_wait\": \"10s\"}", problems)?;
    object.allow_only(&["max_requests", "max_wait", "max_bytes"], problems);
    let mut whole = |key, range| {
        let node = object.get(key);
        node.and_then(|node| node.whole(range, problems))
    };
    let max_requests = whole("max_requests", MAX_REQUESTS).unwrap_or(DEFAULT_MAX_REQUESTS);
    let max_bytes = whole("max_bytes", MAX_BYTES).unwrap_or(DEFAULT_MAX_BYTES);
    let max_wait = object
        .duration("max_wait", WAITS, problems)
        .unwrap_or(DEFAULT_MAX_WAIT);
    Some(QueueLimits {
        max_requests,
        max_wait,
        max_bytes,
    })
}

fn read_priority(node: Node<'_>, problems: &mut Problems) -> Option<Priority> {
    let object = node.object("an object with header, classes and default", problems)?;
    object.allow_only(&["header", "classes", "default"], problems);
    let header = require_header(&object, "x-priority", problems);
    let classes = object
        .require("classes", CLASSES, problems)
        .and_then(|node| read_classes(node, problems))?;
    let allowed = format!("one of the classes: {}", classes.join(", "));
    let node = object.require("default", &allowed, problems)?;
    let text = node.text(&allowed, problems)?;
    let default = classes.iter().position(|class| class == text);
    if default.is_none() {
        node.refuse(&allowed, problems);
    }
    Some(Priority {
        header: header?,
        classes,
        default: default?,
    })
}

const CLASSES: &str = "an array of 2 to 8 names, the most important first, \
     such as [\"high\", \"normal\", \"low\"]";

fn read_classes(node: Node<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let items = node.items(CLASSES, problems)?;
    if !(2..=MAX_CLASSES).contains(&items.len()) {
        problems.add(
            &node.path,
            &format_args!("{} classes are not allowed; give {CLASSES}", items.len()),
        );
        return None;
    }
    let mut names = FirstUses::default();
    let mut classes = Vec::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let path = Path::Index(&node.path, index);
        let item = Node { json, path };
        let name = item.text_that(names::is_name, names::NAME, problems)?;
        if let Some(first) = names.earlier(name, index) {
            problems.add(
                &item.path,
                &format_args!("{} is already class {first}; name it once", Quoted(name)),
            );
        }
        classes.push(name.to_owned());
    }
    Some(classes)
}

fn read_fairness(node: Node<'_>, problems: &mut Problems) -> Option<Fairness> {
    let object = node.object("an object with header", problems)?;
    object.allow_only(&["header"], problems);
    let header = require_header(&object, "x-tenant", problems)?;
    Some(Fairness { header })
}

fn require_header(object: &Object<'_>, such_as: &str, problems: &mut Problems) -> Option<String> {
    let allowed = format!("the name of a request header, such as {}", Quoted(such_as));
    let node = object.require("header", &allowed, problems)?;
    read_header(node, problems)
}

fn read_deadline(node: Node<'_>, problems: &mut Problems) -> Option<Deadline> {
    let object = node.object("an object such as {\"default\": \"60s\"}", problems)?;
    object.allow_only(&["header", "default", "mode"], problems);
    let header = object
        .get("header")
        .and_then(|node| read_header(node, problems));
    let default = object.duration("default", DEADLINES, problems);
    let mode = object
        .get("mode")
        .and_then(|node| read_mode(node, problems))
        .unwrap_or_default();
    Some(Deadline {
        header,
        default,
        mode,
    })
}

fn read_mode(node: Node<'_>, problems: &mut Problems) -> Option<DeadlineMode> {
    const ALLOWED: &str = "\"enforce\", \"prefer\" or \"off\"";
    let Json::String(text) = node.json else {
        node.refuse(&ALLOWED, problems);
        return None;
    };
    match text.as_str() {
        "enforce" => Some(DeadlineMode::Enforce),
        "prefer" => Some(DeadlineMode::Prefer),
        "off" => Some(DeadlineMode::Off),
        _ => {
            let allowed = suggestion::allowed(text, &MODES);
            problems.add(
                &node.path,
                &format_args!("{} is not a mode; {allowed}", Quoted(text)),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(json: &str) -> Result<Admission, String> {
        let json: Json = serde_json::from_str(&format!("{{\"admission\": {json}}}")).unwrap();
        let mut problems = Problems::default();
        let object = Node::root(&json)
            .object("an object", &mut problems)
            .unwrap();
        let admission = read(&object, &mut problems);
        match problems.is_empty() {
            true => Ok(admission),
            false => Err(problems.to_string()),
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let defaults = Admission {
            queue: QueueLimits {
                max_requests: 1000,
                max_wait: Duration::from_secs(30),
                max_bytes: 67_108_864,
            },
            priority: None,
            fairness: None,
            deadline: None,
        };
        assert_eq!(admission("{}"), Ok(defaults.clone()));
        assert_eq!(admission(r#"{"queue": {}}"#), Ok(defaults));
        let deadline = admission(r#"{"deadline": {}}"#).unwrap().deadline;
        let none = Deadline {
            header: None,
            default: None,
            mode: DeadlineMode::Enforce,
        };
        assert_eq!(deadline, Some(none));
    }

    #[test]
    fn every_key_is_read() {
        let read = admission(
            r#"{"queue": {"max_requests": 0, "max_wait": "1h", "max_bytes": 1073741824},
                "priority": {"header": "X-Priority", "classes": ["high", "low"],
                             "default": "low"},
                "fairness": {"header": "Authorization"},
                "deadline": {"header": "X-Timeout", "default": "60s", "mode": "prefer"}}"#,
        )
        .unwrap();
        assert_eq!(read.class_count(), 2);
        let expected = Admission {
            queue: QueueLimits {
                max_requests: 0,
                max_wait: Duration::from_secs(3600),
                max_bytes: 1 << 30,
            },
            priority: Some(Priority {
                header: "x-priority".to_owned(),
                classes: vec!["high".to_owned(), "low".to_owned()],
                default: 1,
            }),
            fairness: Some(Fairness {
                header: "authorization".to_owned(),
            }),
            deadline: Some(Deadline {
                header: Some("x-timeout".to_owned()),
                default: Some(Duration::from_secs(60)),
                mode: DeadlineMode::Prefer,
            }),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let classes = |classes: &str| {
            format!(r#"{{"priority": {{"header": "x", "default": "a", "classes": {classes}}}}}"#)
        };
        let nine = classes(r#"["a", "b", "c", "d", "e", "f", "g", "h", "i"]"#);
        for (json, said) in [
            (
                "[]",
                "admission: an empty array is not allowed; \
                 give an object such as {\"queue\": {\"max_wait\": \"10s\"}}",
            ),
            (
                r#"{"priorty": {}}"#,
                "admission.priorty: unknown key; did you mean priority? \
                 allowed: queue, priority, fairness, deadline",
            ),
            (
                r#"{"queue": {"max_requests": 10001}}"#,
                "admission.queue.max_requests: 10001 is not allowed; \
                 give a whole number from 0 to 10000",
            ),
            (
                r#"{"queue": {"max_wait": "0s"}}"#,
                "admission.queue.max_wait: \"0s\" is not allowed; \
                 give a duration from \"1ms\" to \"1h\", such as \"1.5s\"",
            ),
            (
                r#"{"queue": {"max_bytes": -1}}"#,
                "admission.queue.max_bytes: -1 is not allowed; \
                 give a whole number from 0 to 1073741824",
            ),
            (
                r#"{"priority": {"classes": ["a", "b"], "default": "b"}}"#,
                "admission.priority.header: missing; \
                 give the name of a request header, such as \"x-priority\"",
            ),
            (
                r#"{"priority": {"header": "x", "classes": ["a", "b"]}}"#,
                "admission.priority.default: missing; give one of the classes: a, b",
            ),
            (
                r#"{"priority": {"header": "x", "classes": ["a", "b"], "default": "c"}}"#,
                "admission.priority.default: \"c\" is not allowed; \
                 give one of the classes: a, b",
            ),
            (
                &classes(r#"["a"]"#),
                "admission.priority.classes: 1 classes are not allowed; give an array of 2 to 8 \
                 names, the most important first, such as [\"high\", \"normal\", \"low\"]",
            ),
            (
                &nine,
                "admission.priority.classes: 9 classes are not allowed; give an array of 2 to 8 \
                 names, the most important first, such as [\"high\", \"normal\", \"low\"]",
            ),
            (
                &classes(r#"["a", "b", "a"]"#),
                "admission.priority.classes[2]: \"a\" is already class 0; name it once",
            ),
            (
                &classes(r#"["a", ""]"#),
                "admission.priority.classes[1]: \"\" is not allowed; give a name of 1 to 512 \
                 visible ASCII characters, without a semicolon and without a space at either end",
            ),
            (
                r#"{"fairness": {}}"#,
                "admission.fairness.header: missing; \
                 give the name of a request header, such as \"x-tenant\"",
            ),
            (
                r#"{"fairness": {"header": "x tenant"}}"#,
                "admission.fairness.header: \"x tenant\" is not allowed; \
                 give the name of a header, such as \"x-steps\"",
            ),
            (
                r#"{"deadline": {"default": "0ms"}}"#,
                "admission.deadline.default: \"0ms\" is not allowed; \
                 give a duration from \"1ms\" to \"24h\", such as \"1.5s\"",
            ),
            (
                r#"{"deadline": {"mode": "enforced"}}"#,
                "admission.deadline.mode: \"enforced\" is not a mode; \
                 did you mean enforce? allowed: enforce, prefer, off",
            ),
            (
                r#"{"deadline": {"mode": true}}"#,
                "admission.deadline.mode: true is not allowed; \
                 give \"enforce\", \"prefer\" or \"off\"",
            ),
        ] {
            assert_eq!(admission(json).unwrap_err(), said);
        }
    }
}
