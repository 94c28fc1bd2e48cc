//! Everything goes wrong at once, for as long as one likes: `make soak`.
//!
//! Clients leave at any moment, servers die and come back, answer late, with errors or not at all, the configuration changes, and VMs
//! trap. Caps, a device's memory, classes and tenants are on. The servers count themselves: a request counts as theirs from its
//! headers until they answer it or its connection is gone; only when its client has left does it no longer count, because Envoy
//! may give its place to another before the server hears of that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use hyper::HeaderMap;
use lab::gateway::{Balancing, Topology};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::client::{Connection, post, request};
use crate::support::fleet::Fleet;
use crate::support::upstream::{Behaviour, Upstream, Watcher};
use crate::support::{SOON, eventually};

/// How many seconds it lasts, if not [`SHORT`].
const DURATION: &str = "PACELINE_SOAK_SECONDS";
const SHORT: Duration = Duration::from_secs(12);
const CLIENTS: u64 = 24;
const CAPS: [(&str, usize); 3] = [("a", 2), ("b", 3), ("c", 1)];
/// The device of the first two, and what a request takes of it.
const MEMORY: u64 = 1_000;
const BASE: u64 = 100;
const LEASE: Duration = Duration::from_secs(4);
/// More than a request may wait and take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Envoy takes a second or two for a new VM, and the places of the old one are taken until its lease ends.
const BETWEEN_TRAPS: Duration = Duration::from_secs(8);

const ID: &str = "x-soak-id";
const SIZE: &str = "x-request-size";

/// Other numbers are other configurations.
fn config(number: u64) -> Value {
    let upstream = |(name, cap): (&str, usize)| match name {
        "c" => json!({ "cluster": name, "max_in_flight": cap }),
        _ => json!({
            "cluster": name,
            "max_in_flight": cap,
            "device": "gpu-0",
            "memory": { "base": BASE, "per_size": 1 },
        }),
    };
    json!({
        "devices": [{ "name": "gpu-0", "memory": MEMORY }],
        "upstreams": CAPS.map(upstream),
        "request_size": { "header": SIZE },
        "lease": format!("{}ms", LEASE.as_millis()),
        "admission": {
            "queue": { "max_requests": 14, "max_wait": format!("{}ms", 2_000 + number) },
            "priority": { "header": "x-priority", "classes": ["high", "low"], "default": "low" },
            "fairness": { "header": "x-tenant" },
        },
    })
}

/// What the servers have, by what they see themselves.
#[derive(Default)]
struct Ledger {
    present: Mutex<Present>,
    /// What should not have been.
    wrong: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Present {
    /// By id: where, and what memory it takes.
    requests: HashMap<u64, (String, u64)>,
    /// Those whose clients have left.
    left: HashSet<u64>,
    most: BTreeMap<String, usize>,
    most_memory: u64,
}

impl Ledger {
    /// Before its client cuts the connection.
    fn client_leaves(&self, id: u64) {
        self.present.lock().unwrap().left.insert(id);
    }

    /// The most that was ever there.
    fn most(&self) -> String {
        let present = self.present.lock().unwrap();
        format!(
            "{:?} at a time and {} bytes",
            present.most, present.most_memory
        )
    }

    fn note(&self, wrong: String) {
        self.wrong.lock().unwrap().push(wrong);
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

impl Watcher for Ledger {
    fn came(&self, upstream: &str, headers: &HeaderMap) {
        let Some(id) = number(headers, ID) else {
            return;
        };
        let memory = match upstream {
            "c" => 0,
            _ => BASE + number(headers, SIZE).unwrap(),
        };
        let mut present = self.present.lock().unwrap();
        let before = present.requests.insert(id, (upstream.to_owned(), memory));
        if let Some((other, _)) = before {
            self.note(format!("{id} came to {upstream} and was at {other}"));
        }
        let Present { requests, left, .. } = &*present;
        let counted = || requests.iter().filter(|(id, _)| !left.contains(*id));
        let here = counted().filter(|(_, (at, _))| at == upstream).count();
        let used: u64 = counted().map(|(_, (_, memory))| memory).sum();
        let (_, cap) = CAPS.iter().find(|(name, _)| *name == upstream).unwrap();
        if here > *cap {
            self.note(format!("{here} at {upstream}, whose cap is {cap}"));
        }
        if used > MEMORY {
            self.note(format!("{used} bytes in use, {MEMORY} are there"));
        }
        let most = present.most.entry(upstream.to_owned()).or_default();
        *most = here.max(*most);
        present.most_memory = used.max(present.most_memory);
    }

    fn left(&self, _: &str, headers: &HeaderMap) {
        if let Some(id) = number(headers, ID) {
            let mut present = self.present.lock().unwrap();
            present.requests.remove(&id);
            present.left.remove(&id);
        }
    }
}

/// What the clients have seen.
struct Seen {
    ledger: Arc<Ledger>,
    next: AtomicU64,
    over: AtomicBool,
    /// When VMs trapped.
    traps: Mutex<Vec<Instant>>,
    statuses: Mutex<BTreeMap<u16, u64>>,
    cut: AtomicU64,
    /// Requests that waited on a worker whose VM trapped: nobody can answer those.
    lost: AtomicU64,
}

async fn client(gateway: SocketAddr, seed: u64, seen: Arc<Seen>) {
    let mut rng = Rng::with_seed(seed);
    while !seen.over.load(Ordering::SeqCst) {
        let id = seen.next.fetch_add(1, Ordering::SeqCst);
        let (id_text, size) = (id.to_string(), rng.u64(50..400).to_string());
        let headers = [
            (ID, id_text.as_str()),
            (SIZE, &size),
            ("x-priority", if rng.bool() { "high" } else { "low" }),
            ("x-tenant", if rng.u8(..4) == 0 { "few" } else { "many" }),
        ];
        let began = Instant::now();
        let mut connection = Connection::open(gateway).await;
        let response = connection.start(request("GET", "/infer", &headers));
        if rng.u8(..4) == 0 {
            sleep(Duration::from_millis(rng.u64(..40))).await;
            seen.ledger.client_leaves(id);
            connection.cut();
            seen.cut.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        match response.status_within(PATIENCE).await {
            Ok(status) => {
                *seen.statuses.lock().unwrap().entry(status).or_default() += 1;
                if status != 200 {
                    // As clients do, or refusals would be nearly all that happens.
                    sleep(Duration::from_millis(rng.u64(..40))).await;
                }
            }
            Err(why) => {
                seen.ledger.client_leaves(id);
                let traps = seen.traps.lock().unwrap();
                if traps.iter().any(|trap| *trap >= began) {
                    seen.lost.fetch_add(1, Ordering::SeqCst);
                } else {
                    seen.ledger.note(format!("{id} was not answered: {why}"));
                }
            }
        }
    }
}

/// Makes the VM of some worker trap.
async fn trap(gateway: SocketAddr, seen: &Seen) {
    // Whoever asked before the trap may have waited there, and whoever asked until now as well.
    let mut connection = Connection::open(gateway).await;
    let (mut body, request) = post();
    let response = connection.start(request);
    // Fails where there is no VM yet again.
    let _ = body.send_data("some".into()).await;
    let _ = response.status_within(PATIENCE).await;
    seen.traps.lock().unwrap().push(Instant::now());
}

async fn kill(fleet: &mut Fleet, place: usize, rng: &mut Rng, ledger: &Arc<Ledger>) {
    let upstream = &fleet.upstreams[place];
    upstream.stop();
    sleep(Duration::from_millis(rng.u64(50..600))).await;
    let behaviour = Behaviour::after(Duration::from_millis(5));
    let (name, address) = (upstream.name.clone(), upstream.address);
    let again = Upstream::start_on(&name, address, behaviour).await;
    again.watch(Arc::<Ledger>::clone(ledger));
    fleet.upstreams[place] = again;
}

fn misbehave(fleet: &Fleet, rng: &mut Rng) {
    let behaviour = match rng.u8(..6) {
        0 => Behaviour::failing(500),
        1 => Behaviour::failing(503),
        2 => Behaviour::Reset,
        _ => Behaviour::after(Duration::from_millis(rng.u64(1..40))),
    };
    fleet.upstreams[rng.usize(..CAPS.len())].set(behaviour);
}

async fn expect_rest(fleet: &Fleet) {
    fleet.expect_in_flight(0, LEASE + SOON).await;
    eventually("nothing to be left", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let left = [
            "paceline_held",
            "paceline_pool_in_flight",
            "paceline_device_memory_used_bytes",
        ]
        .map(|name| (name, stats.total(name)));
        match left.iter().all(|(_, value)| *value == 0) {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_goes_wrong_caps_hold_all_is_answered_and_nothing_is_left() {
    let duration = env::var(DURATION).map_or(SHORT, |text| {
        Duration::from_secs(
            text.parse()
                .unwrap_or_else(|_| panic!("{DURATION}: {text}")),
        )
    });
    let module = crate::support::trap::trapping_in("proxy_on_request_body");
    let balancing = |number| Balancing::Filter {
        module: module.path().to_owned(),
        config: config(number).to_string(),
    };
    let adjust = |topology: &mut Topology| {
        topology.workers = 2;
        topology.reloadable = true;
        // Ends what waits on a VM that is gone.
        topology.drain_time = PATIENCE + SOON;
    };
    let behaviour = Behaviour::after(Duration::from_millis(5));
    let mut fleet = Fleet::start_with(CAPS.len(), behaviour, balancing(0), adjust).await;
    let gateway = fleet.gateway.address();
    let ledger = Arc::<Ledger>::default();
    for upstream in &fleet.upstreams {
        upstream.watch(Arc::<Ledger>::clone(&ledger));
    }
    let seen = Arc::new(Seen {
        ledger: Arc::clone(&ledger),
        next: AtomicU64::new(0),
        over: AtomicBool::new(false),
        traps: Mutex::default(),
        statuses: Mutex::default(),
        cut: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| tokio::spawn(client(gateway, seed, Arc::clone(&seen))))
        .collect();

    let mut rng = Rng::with_seed(1);
    let end = Instant::now() + duration;
    let mut next_trap = Instant::now() + BETWEEN_TRAPS / 2;
    let (mut kills, mut reloads) = (0, 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(20..200))).await;
        match rng.u8(..10) {
            0..2 => {
                kill(&mut fleet, rng.usize(..CAPS.len()), &mut rng, &ledger).await;
                kills += 1;
            }
            2 => {
                reloads += 1;
                fleet.topology.balancing = balancing(reloads);
                fleet.gateway.reconfigure(&fleet.topology).await.unwrap();
            }
            _ => misbehave(&fleet, &mut rng),
        }
        if Instant::now() >= next_trap {
            trap(gateway, &seen).await;
            next_trap = Instant::now() + BETWEEN_TRAPS;
        }
    }

    fleet.set(Behaviour::after(Duration::from_millis(5)));
    seen.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let traps = seen.traps.lock().unwrap().len();
    let statuses = seen.statuses.lock().unwrap().clone();
    println!(
        "{duration:?}: {statuses:?}, {} clients left, {} lost to {traps} traps; {kills} servers killed, {reloads} reloads; at most {}",
        seen.cut.load(Ordering::SeqCst),
        seen.lost.load(Ordering::SeqCst),
        ledger.most(),
    );
    let wrong = ledger.wrong.lock().unwrap().clone();
    assert!(
        wrong.is_empty(),
        "{} things: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    assert!(statuses[&200] > 100, "{statuses:?}");
    assert!(traps > 0 && kills > 0 && reloads > 0);
    let allowed = [200, 429, 500, 503];
    assert!(
        statuses.keys().all(|it| allowed.contains(it)),
        "{statuses:?}"
    );
    expect_rest(&fleet).await;
    eventually("everyone to be served again", SOON, async || {
        let statuses = fleet.load(8, 5).await;
        match statuses.iter().all(|status| *status == 200) {
            true => Ok(()),
            false => Err(format!("{statuses:?}")),
        }
    })
    .await;
    expect_rest(&fleet).await;
}
