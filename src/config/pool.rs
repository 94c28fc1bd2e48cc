//! Pools and their upstreams.

use core::ops::RangeInclusive;

use super::admission::{self, Admission};
use super::capacity::{self, MaxInFlight, Placement};
use super::error::Problems;
use super::health_check::{self, HealthCheck};
use super::json::{Json, Quoted};
use super::latency::{self, LatencyConfig};
use super::matcher::{self, Match};
use super::membership;
use super::mode::{self, Mode};
use super::names;
use super::outlier_detection::{self, OutlierDetection};
use super::policy::{self, PolicyConfig};
use super::reader::{FirstUses, Node, Object, Path};
use super::request_size::{self, SizeSource};
use super::size_limits::{self, Accepts, Reserve};
use super::slow_start::{self, SlowStart};

const WEIGHTS: RangeInclusive<u32> = 0..=1000;
const DEFAULT_WEIGHT: u32 = 1;

/// The keys that say what a pool chooses from, and how. They stand in a pool, or
/// at the top for the only one.
pub(super) const CHOICE_KEYS: [&str; 13] = [
    "upstreams",
    "cluster",
    "endpoints",
    "policy",
    "request_size",
    "reserve",
    "latency",
    "health_check",
    "outlier_detection",
    "slow_start",
    "max_in_flight",
    "admission",
    "mode",
];

/// The name of the pool that top-level `upstreams` stand for.
const SHORTHAND_NAME: &str = "default";

/// The upstreams that can serve the same requests, and how to choose among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique in the configuration; can stand in a header and in a metric's name.
    pub name: String,
    /// Which requests belong to the pool.
    pub matcher: Match,
    /// At least one, each cluster once, unless `endpoints` stands for them.
    /// Other pools may name the same clusters.
    pub upstreams: Vec<Upstream>,
    /// The cluster whose endpoints are the pool's upstreams, in place of
    /// `upstreams`.
    pub endpoints: Option<Endpoints>,
    /// Which part of its requests goes where Paceline picks. Unless all do, no limit
    /// holds: `max_in_flight`, `admission` and the upstreams' limits have their defaults.
    pub mode: Mode,
    /// How one of `upstreams` is picked.
    pub policy: PolicyConfig,
    /// How latency is measured.
    pub latency: LatencyConfig,
    /// Where its requests show how large they are.
    pub request_size: SizeSource,
    /// What is kept free for small requests, if anything.
    pub reserve: Option<Reserve>,
    /// How its upstreams are asked whether they are ready, if they are.
    pub health_check: Option<HealthCheck>,
    /// How many of its requests may be in flight, wherever they are.
    pub max_in_flight: MaxInFlight,
    /// What happens to requests that cannot run at once, or not in time.
    pub admission: Admission,
    /// When upstreams are ejected; `None` is never.
    pub outlier_detection: Option<OutlierDetection>,
    /// How the load of new upstreams grows; `None` is at once.
    pub slow_start: Option<SlowStart>,
}

impl Pool {
    /// Takes all limits away unless Paceline decides about every request: the others
    /// would not keep them.
    pub(super) fn lift_limits(&mut self) {
        if self.mode == Mode::Balance {
            return;
        }
        self.max_in_flight = MaxInFlight::Unlimited;
        self.admission = Admission::default();
        for upstream in &mut self.upstreams {
            upstream.max_in_flight = MaxInFlight::Unlimited;
            upstream.placement = None;
        }
        let fixed = self.endpoints.iter_mut().filter_map(|it| it.fixed.as_mut());
        for endpoint in fixed.flatten() {
            endpoint.max_in_flight = MaxInFlight::Unlimited;
        }
    }

    /// The weight of each upstream, or of each listed endpoint.
    #[inline(never)]
    fn weights(&self) -> Vec<u32> {
        let fixed = self.endpoints.iter().filter_map(|it| it.fixed.as_ref());
        let endpoints = fixed.flatten().map(|endpoint| endpoint.weight);
        let upstreams = self.upstreams.iter().map(|upstream| upstream.weight);
        upstreams.chain(endpoints).collect()
    }

    /// Whether its requests may have to wait, because something is full.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        let fixed = self.endpoints.iter().filter_map(|it| it.fixed.as_ref());
        let listed = fixed.flatten().map(|endpoint| endpoint.max_in_flight);
        let mut endpoints = listed.chain(self.endpoints.iter().map(|it| it.each));
        let mut upstreams = self.upstreams.iter();
        let is_limit = |most: MaxInFlight| most != MaxInFlight::Unlimited;
        is_limit(self.max_in_flight)
            || endpoints.any(is_limit)
            || upstreams.any(|it| is_limit(it.max_in_flight) || it.placement.is_some())
    }

    /// Whether anything depends on the size of its requests.
    #[must_use]
    pub fn heeds_size(&self) -> bool {
        let heeds_size = |upstream: &Upstream| {
            let placement = upstream.placement.as_ref();
            upstream.accepts != Accepts::ALL
                || placement.is_some_and(|placement| placement.memory.per_size > 0.0)
        };
        self.policy.heeds_size() || self.reserve.is_some() || self.upstreams.iter().any(heeds_size)
    }
}

/// One routing target.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The Envoy cluster, as the route header will name it.
    pub cluster: String,
    /// The share of the load relative to its pool's other upstreams: 0 to 1000,
    /// default 1. With 0 it gets no request, whatever the policy.
    pub weight: u32,
    /// Which sizes of requests it takes; all unless given.
    pub accepts: Accepts,
    /// How many requests may be in flight there, from all pools together.
    pub max_in_flight: MaxInFlight,
    /// The device that its requests take memory of, if any.
    pub placement: Option<Placement>,
}

/// A cluster that is balanced endpoint by endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The Envoy cluster.
    pub cluster: String,
    /// At least one, each address once; `None` where they are to be discovered.
    pub fixed: Option<Vec<Endpoint>>,
    /// How many requests may be in flight at each of those that are discovered.
    pub each: MaxInFlight,
}

impl Endpoints {
    fn caps(&mut self) -> impl Iterator<Item = &mut MaxInFlight> {
        let fixed = self.fixed.iter_mut().flatten();
        fixed
            .map(|endpoint| &mut endpoint.max_in_flight)
            .chain([&mut self.each])
    }
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address and a port, as Envoy writes them: `10.0.0.1:8000`,
    /// `[fd00::1]:8000`.
    pub address: String,
    /// As of an [`Upstream`].
    pub weight: u32,
    /// As of an [`Upstream`].
    pub max_in_flight: MaxInFlight,
}

/// Reads the one pool that top-level `upstreams` and its companions stand for.
pub(super) fn read_shorthand(root: &Object<'_>, problems: &mut Problems) -> Option<Pool> {
    let allowed = "the clusters to balance, such as [{\"cluster\": \"gpu-a\"}], or give pools";
    let targets = read_targets(root, allowed, problems);
    let name = SHORTHAND_NAME.to_owned();
    read_choice(root, name, Match::default(), targets, problems)
}

/// Reads `pools`. Pools with problems are left out.
pub(super) fn read_pools(node: Node<'_>, problems: &mut Problems) -> Vec<Pool> {
    let allowed = "an array of at least one pool";
    let items = node.items(allowed, problems).unwrap_or_default();

    let mut names = FirstUses::default();
    let mut pools = Vec::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let path = Path::Index(&node.path, index);
        pools.extend(read_pool(Node { json, path }, index, &mut names, problems));
    }
    // Without all pools and their matches there is no telling which are reached.
    if problems.is_empty() {
        let count = pools.iter().map(|pool| pool.weights().len()).sum();
        membership::refuse_too_many_in_all(count, &node.path, problems);
        refuse_unreachable(&pools, node.path, problems);
    }
    pools
}

fn read_pool(
    node: Node<'_>,
    index: usize,
    names: &mut FirstUses,
    problems: &mut Problems,
) -> Option<Pool> {
    let object = node.object("an object with name and upstreams", problems)?;
    let keys = [["name", "match"].as_slice(), &CHOICE_KEYS].concat();
    object.allow_only(&keys, problems);

    let name = read_pool_name(&object, index, names, problems);
    let matcher = object
        .get("match")
        .and_then(|node| matcher::read(node, problems))
        .unwrap_or_default();
    let targets = read_targets(&object, UPSTREAMS, problems);
    // What is wrong with the rest is told even where the name is.
    let pool = read_choice(&object, String::new(), matcher, targets, problems)?;
    Some(Pool {
        name: name?,
        ..pool
    })
}

fn read_pool_name(
    pool: &Object<'_>,
    index: usize,
    names: &mut FirstUses,
    problems: &mut Problems,
) -> Option<String> {
    let node = pool.require("name", names::NAME, problems)?;
    let name = node.text_that(names::is_name, names::NAME, problems)?;
    if let Some(first) = names.earlier(name, index) {
        problems.add(
            &node.path,
            &format_args!(
                "{} is already the name of pools[{first}]; give every pool its own",
                Quoted(name)
            ),
        );
    }
    Some(name.to_owned())
}

/// Reads how an upstream is chosen, and the size that this may depend on.
fn read_choice(
    object: &Object<'_>,
    name: String,
    matcher: Match,
    targets: Option<(Vec<Upstream>, Option<Endpoints>)>,
    problems: &mut Problems,
) -> Option<Pool> {
    let mode = mode::read(object, problems);
    let policy = object
        .get("policy")
        .and_then(|node| policy::read(node, problems))
        .unwrap_or_default();
    let reserve = object.get("reserve").and_then(|node| {
        let count = targets.as_ref().map_or(2, |(upstreams, _)| upstreams.len());
        size_limits::read_reserve(node, count, problems)
    });
    let latency = latency::read(object, problems);
    let health_check = object
        .get("health_check")
        .and_then(|node| health_check::read(node, problems));
    let max_in_flight = capacity::read_max_in_flight(object, problems);
    let admission = admission::read(object, problems);
    let outlier_detection = outlier_detection::read(object, problems);
    let slow_start = slow_start::read(object, problems);
    let size = object.get("request_size");
    let request_size = size.and_then(|node| request_size::read(node, problems));
    let (mut upstreams, mut endpoints) = targets?;
    let max_in_flight = match max_in_flight {
        MaxInFlight::Auto => {
            // Of all together there is nothing to be learned that is not true of each.
            let own = upstreams.iter_mut().map(|it| &mut it.max_in_flight);
            let own = own.chain(endpoints.iter_mut().flat_map(Endpoints::caps));
            own.for_each(|cap| *cap = cap.or(MaxInFlight::Auto));
            MaxInFlight::Unlimited
        }
        of_all => of_all,
    };
    let pool = Pool {
        name,
        matcher,
        upstreams,
        endpoints,
        mode,
        policy,
        latency,
        request_size: request_size.unwrap_or_default(),
        reserve,
        health_check,
        max_in_flight,
        admission,
        outlier_detection,
        slow_start,
    };
    if let Some(node) = size
        && !pool.heeds_size()
    {
        problems.add(&node.path, &format_args!(
            "{} does not look at sizes as it is configured; leave this out or choose another policy",
            pool.policy.name()
        ));
    }
    // With one left out, the others have not their places.
    if problems.is_empty() {
        admission::refuse_unheeded(pool.has_limits(), object, problems);
        let key = match pool.endpoints {
            Some(_) => "endpoints",
            None => "upstreams",
        };
        let weights = pool.weights();
        membership::refuse_unheeded_weights(&pool.policy, &weights, (object, key), problems);
    }
    Some(pool)
}

/// Reads what a pool can choose from: `upstreams`, or `cluster` and perhaps
/// `endpoints`.
fn read_targets(
    object: &Object<'_>,
    allowed: &str,
    problems: &mut Problems,
) -> Option<(Vec<Upstream>, Option<Endpoints>)> {
    let endpoints = object.get("endpoints");
    let Some(cluster) = object.get("cluster") else {
        if let Some(endpoints) = endpoints
            && read_endpoints(endpoints, problems).is_some()
        {
            problems.add(
                &endpoints.path,
                &"needs cluster beside it, the cluster whose endpoints these are",
            );
            // One problem is told once.
            object.get("upstreams")?;
        }
        let upstreams = object.require("upstreams", allowed, problems)?;
        return Some((read_upstreams(upstreams, problems)?, None));
    };
    if let Some(upstreams) = object.get("upstreams") {
        problems.add(
            &upstreams.path,
            &"cannot stand beside cluster; \
                       name several clusters here, or one and its endpoints there",
        );
    }
    let (fixed, each) = match endpoints {
        Some(node) => read_endpoints(node, problems)?,
        None => (None, MaxInFlight::Unlimited),
    };
    let cluster = cluster.text_that(names::is_name, names::NAME, problems)?;
    let endpoints = Endpoints {
        cluster: cluster.to_owned(),
        fixed,
        each,
    };
    Some((Vec::new(), Some(endpoints)))
}

const ENDPOINTS: &str = "an array of at least one endpoint, such as [\"10.0.0.1:8000\"], \
                         or {\"max_in_flight\": 8} for each that is discovered";

/// Reads the endpoints that are listed, or else what holds for all that are discovered.
fn read_endpoints(
    node: Node<'_>,
    problems: &mut Problems,
) -> Option<(Option<Vec<Endpoint>>, MaxInFlight)> {
    if let Json::Object(_) = node.json {
        let object = node.object(ENDPOINTS, problems)?;
        object.allow_only(&["max_in_flight"], problems);
        let cap = "how many requests each endpoint may have in flight";
        object.require("max_in_flight", cap, problems)?;
        return Some((None, capacity::read_max_in_flight(&object, problems)));
    }
    let items = node.items(ENDPOINTS, problems)?;
    membership::refuse_too_many(&node, items.len(), problems);
    let mut addresses = FirstUses::default();
    let mut endpoints = Vec::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let path = Path::Index(&node.path, index);
        let item = Node { json, path };
        endpoints.extend(read_endpoint(item, index, &mut addresses, problems));
    }
    Some((Some(endpoints), MaxInFlight::Unlimited))
}

fn read_endpoint(
    node: Node<'_>,
    index: usize,
    addresses: &mut FirstUses,
    problems: &mut Problems,
) -> Option<Endpoint> {
    if let Json::String(_) = node.json {
        let address = read_address(&node, index, addresses, problems)?;
        return Some(Endpoint {
            address,
            weight: DEFAULT_WEIGHT,
            max_in_flight: MaxInFlight::Unlimited,
        });
    }
    let allowed = "\"10.0.0.1:8000\", or an object such as \
                   {\"address\": \"10.0.0.1:8000\", \"weight\": 2}";
    let object = node.object(allowed, problems)?;
    object.allow_only(&["address", "weight", "max_in_flight"], problems);
    let weight = object
        .whole("weight", WEIGHTS, problems)
        .unwrap_or(DEFAULT_WEIGHT);
    let max_in_flight = capacity::read_max_in_flight(&object, problems);
    let address = object.require("address", names::ADDRESS, problems)?;
    let address = read_address(&address, index, addresses, problems)?;
    Some(Endpoint {
        address,
        weight,
        max_in_flight,
    })
}

fn read_address(
    node: &Node<'_>,
    index: usize,
    addresses: &mut FirstUses,
    problems: &mut Problems,
) -> Option<String> {
    let is_address = |text: &str| names::endpoint_address(text).is_some();
    let text = node.text_that(is_address, names::ADDRESS, problems)?;
    let address = names::endpoint_address(text)?;
    if let Some(first) = addresses.earlier(&address, index) {
        problems.add(
            &node.path,
            &format_args!(
                "{} is already endpoint {first} of this pool; \
             name an address once, its weight gives its share",
                Quoted(text)
            ),
        );
    }
    Some(address)
}

const UPSTREAMS: &str = "an array of at least one upstream, such as [{\"cluster\": \"gpu-a\"}]";

fn read_upstreams(node: Node<'_>, problems: &mut Problems) -> Option<Vec<Upstream>> {
    let items = node.items(UPSTREAMS, problems)?;
    membership::refuse_too_many(&node, items.len(), problems);
    let mut clusters = FirstUses::default();
    let mut upstreams = Vec::with_capacity(items.len());
    for (index, json) in items.iter().enumerate() {
        let path = Path::Index(&node.path, index);
        let item = Node { json, path };
        upstreams.extend(read_upstream(item, index, &mut clusters, problems));
    }
    Some(upstreams)
}

fn read_upstream(
    node: Node<'_>,
    index: usize,
    clusters: &mut FirstUses,
    problems: &mut Problems,
) -> Option<Upstream> {
    let object = node.object("an object such as {\"cluster\": \"gpu-a\"}", problems)?;
    let keys = [
        "cluster",
        "weight",
        "accepts",
        "max_in_flight",
        "device",
        "memory",
    ];
    object.allow_only(&keys, problems);

    let weight = object
        .whole("weight", WEIGHTS, problems)
        .unwrap_or(DEFAULT_WEIGHT);
    let accepts = object
        .get("accepts")
        .and_then(|node| size_limits::read_accepts(node, problems))
        .unwrap_or_default();
    let max_in_flight = capacity::read_max_in_flight(&object, problems);
    let placement = capacity::read_placement(&object, problems);
    let name = object.require("cluster", "the name of an Envoy cluster", problems)?;
    let cluster = name.text_that(names::is_name, names::NAME, problems)?;
    if let Some(first) = clusters.earlier(cluster, index) {
        problems.add(
            &name.path,
            &format_args!(
                "{} is already upstream {first} of this pool; \
             name a cluster once, its weight gives its share",
                Quoted(cluster)
            ),
        );
    }
    Some(Upstream {
        cluster: cluster.to_owned(),
        weight,
        accepts,
        max_in_flight,
        placement,
    })
}

/// Refuses a pool whose every request an earlier pool takes.
fn refuse_unreachable(pools: &[Pool], path: Path<'_>, problems: &mut Problems) {
    for (index, pool) in pools.iter().enumerate() {
        let earlier = pools.iter().take(index).enumerate();
        let taker = earlier
            .into_iter()
            .find(|(_, earlier)| earlier.matcher.covers(&pool.matcher));
        if let Some((first, taker)) = taker {
            let what = match taker.matcher.is_catch_all() {
                true => "every request",
                false => "every request that this pool matches",
            };
            problems.add(
                &Path::Index(&path, index),
                &format_args!(
                    "pool {} can never be reached: pools[{first}], {}, matches {what}; \
                 put the narrower match first",
                    Quoted(&pool.name),
                    Quoted(&taker.name)
                ),
            );
        }
    }
}
