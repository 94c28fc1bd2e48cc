//! The status page in a real browser.
//!
//! With `PACELINE_SCREENSHOTS` set (`make screenshots`) it takes the pictures of the
//! documentation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Look};
use crate::support::client::Connection;
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::Behaviour;

const DESK: Look = Look {
    width: 1000,
    height: 640,
    is_dark: false,
};
const NIGHT: Look = Look {
    is_dark: true,
    ..DESK
};
const PHONE: Look = Look {
    width: 390,
    height: 844,
    is_dark: true,
};

/// Where the documentation has its pictures.
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

/// Upstreams behind two workers that tell their state.
async fn fleet(count: usize, config: &Value) -> Fleet {
    let behaviour = Behaviour::after(Duration::from_millis(20));
    Fleet::start_with(count, behaviour, paceline(config), |topology| {
        topology.workers = 2;
        topology.status = true;
    })
    .await
}

async fn url(fleet: &Fleet) -> String {
    let address = fleet.gateway.status_address().await.unwrap();
    format!("http://{address}/paceline")
}

/// Clients that send requests until this is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start(fleet: &Fleet, clients: usize) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..clients {
            let (gateway, goes_on) = (fleet.gateway.address(), Arc::clone(&goes_on));
            tokio::spawn(async move {
                let mut connection = Connection::open(gateway).await;
                while goes_on.load(Ordering::Relaxed) {
                    connection.get().await;
                }
            });
        }
        Self(goes_on)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn picture(browser: &mut Browser, name: &str) {
    if std::env::var_os("PACELINE_SCREENSHOTS").is_some() {
        browser.picture(&Path::new(PICTURES).join(name)).await;
    }
}

const TEXT: &str = "document.body.innerText";
const FITS: &str = "document.documentElement.scrollWidth <= innerWidth";

/// The text of a column of the table.
fn column(number: usize) -> String {
    format!(
        "[...document.querySelectorAll('tbody tr td:nth-child({number})')].map(it => it.textContent)"
    )
}

#[tokio::test]
async fn the_page_shows_traffic_and_a_failing_server() {
    let config = json!({ "upstreams": [ { "cluster": "a", "max_in_flight": 8 }, { "cluster": "b" },
        { "cluster": "c" }, { "cluster": "d" } ], "slow_start": {} });
    let fleet = fleet(4, &config).await;
    for (place, millis) in [(0, 15), (1, 30), (2, 60)] {
        fleet.upstreams[place].set(Behaviour::after(Duration::from_millis(millis)));
    }
    let mut browser = Browser::start().await;
    browser.open(&url(&fleet).await, DESK).await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 4", TEXT)
        .await;
    assert_eq!(
        browser.evaluate(&column(1)).await,
        json!(["a", "b", "c", "d"])
    );
    let quiet = "document.getElementById('quiet').hidden";
    assert_eq!(browser.evaluate(quiet).await, false);

    let load = Load::start(&fleet, 16);
    let in_flight = "Number(document.querySelector('#tiles b').textContent) > 0";
    browser.until(in_flight, TEXT).await;
    let points = "document.querySelector('.chart polyline').getAttribute('points')";
    let before = browser.evaluate(points).await;
    browser.until(&format!("{points} !== {before}"), TEXT).await;
    browser
        .until(
            "document.querySelectorAll('#decisions li').length > 4",
            TEXT,
        )
        .await;
    browser
        .until(&format!("{}.every(it => / ms$/.test(it))", column(6)), TEXT)
        .await;
    browser
        .until(&format!("{}.every(it => it !== '–')", column(10)), TEXT)
        .await;

    fleet.upstreams[3].set(Behaviour::failing(503));
    let states = column(2);
    browser
        .until(&format!("{states}[3].startsWith('ejected: ')"), TEXT)
        .await;
    assert_eq!(
        browser
            .evaluate("document.querySelectorAll('td.bad').length")
            .await,
        1
    );
    // A minute of history makes a picture; a test needs none.
    if std::env::var_os("PACELINE_SCREENSHOTS").is_some() {
        tokio::time::sleep(Duration::from_secs(50)).await;
    }
    for (look, name) in [
        (DESK, "status.png"),
        (NIGHT, "status-dark.png"),
        (PHONE, "status-phone.png"),
    ] {
        browser.look(look).await;
        assert_eq!(browser.evaluate(FITS).await, true, "{look:?}");
        let ground = "getComputedStyle(document.body).backgroundColor";
        let is_dark = browser.evaluate(ground).await == "rgb(18, 21, 26)";
        assert_eq!(is_dark, look.is_dark);
        picture(&mut browser, name).await;
    }
    drop(load);
    browser.expect_no_complaint();
}

#[tokio::test]
async fn the_page_stays_usable_with_256_upstreams() {
    let hostile = "<img src=x onerror=console.error(1)>";
    let mut upstreams: Vec<Value> = (0..255)
        .map(|number| json!({ "cluster": format!("gpu-{number}"), "weight": 0 }))
        .collect();
    upstreams.push(json!({ "cluster": hostile }));
    let fleet = fleet(
        1,
        &json!({ "upstreams": upstreams, "policy": "least_request" }),
    )
    .await;
    let mut browser = Browser::start().await;
    browser.open(&url(&fleet).await, DESK).await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 256", TEXT)
        .await;
    assert_eq!(
        browser.evaluate(&format!("{}[255]", column(1))).await,
        hostile
    );
    assert_eq!(browser.evaluate("document.images.length").await, 0);
    let millis = browser.evaluate(
        "(() => { const at = performance.now(); show(last); return performance.now() - at; })()",
    );
    let millis = millis.await.as_f64().unwrap();
    println!("256 upstreams are shown in {millis} ms");
    assert!(millis < 900.0, "as often as it asks: {millis} ms");

    // Without a mouse: the first stop is the filter, and columns are buttons.
    browser.press("Tab", "").await;
    browser.type_text("gpu-25").await;
    let shown = "document.querySelectorAll('tbody tr:not([hidden])').length";
    browser.until(&format!("{shown} === 6"), TEXT).await;
    for _ in 0..3 {
        browser.press("Tab", "").await;
    }
    browser.press("Enter", "\r").await;
    browser.press("Enter", "\r").await;
    let sorted = "document.querySelector('th').getAttribute('aria-sort')";
    assert_eq!(browser.evaluate(sorted).await, "descending");
    let first = format!("{}.slice(0, 2)", column(1));
    assert_eq!(
        browser.evaluate(&first).await,
        json!(["gpu-254", "gpu-253"])
    );
    browser.look(PHONE).await;
    assert_eq!(browser.evaluate(FITS).await, true);
    browser.expect_no_complaint();
}
