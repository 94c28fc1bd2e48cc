//! What the status page tells beyond Envoy's metrics.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::gateway_options::address;

/// Where the page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) address: SocketAddr,
    path: String,
}

/// What the page tells, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pools: Vec<Pool>,
    /// The latest first.
    decisions: Vec<Decision>,
}

#[derive(Debug, Deserialize)]
struct Pool {
    name: String,
    upstreams: Vec<Upstream>,
}

#[derive(Debug, Deserialize)]
struct Upstream {
    name: String,
    pace: Pace,
}

/// Seconds per unit of work and load.
#[derive(Debug, Deserialize)]
struct Pace {
    measured: Option<f64>,
    /// With 95 % confidence it lies between this and `high`.
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Decision {
    /// Seconds.
    age: f64,
    lane: u64,
    pool: Option<String>,
    decision: String,
}

impl Page {
    /// Reads `http://ADDRESS:PORT/PATH`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts = text
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'));
        let (socket, path) = parts.ok_or("give http://ADDRESS:PORT/PATH")?;
        Ok(Self {
            address: address(socket)?,
            path: format!("/{path}"),
        })
    }

    /// The path of what programs read.
    pub(super) fn json(&self) -> String {
        format!("{}?format=json", self.path)
    }
}

impl Told {
    /// The measured pace of an upstream and its 95 % range; a dash where nothing was measured.
    pub(super) fn pace(&self, pool: &str, upstream: &str) -> String {
        let pool = self.pools.iter().find(|it| it.name == pool);
        let upstreams = pool.map_or(&[][..], |it| &it.upstreams);
        let upstream = upstreams.iter().find(|it| it.name == upstream);
        match upstream.map(|it| (it.pace.measured, it.pace.low, it.pace.high)) {
            Some((Some(measured), Some(low), Some(high))) => {
                format!(
                    "{} ({} to {})",
                    seconds(measured),
                    seconds(low),
                    seconds(high)
                )
            }
            _ => "-".to_owned(),
        }
    }

    /// The last decisions, a line each.
    pub(super) fn decisions(&self) -> impl Iterator<Item = String> {
        self.decisions.iter().map(|it| {
            let pool = it.pool.as_deref().unwrap_or("no pool");
            format!(
                "{:.1} s ago, worker {}, {pool}: {}",
                it.age, it.lane, it.decision
            )
        })
    }
}

/// Three figures or so, in milliseconds below a second.
fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.1 => format!("{:.1} ms", seconds * 1000.0),
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_an_address_and_a_path() {
        let page = Page::parse("http://127.0.0.1:9902/paceline").unwrap();
        assert_eq!(page.address, ([127, 0, 0, 1], 9902).into());
        assert_eq!(page.json(), "/paceline?format=json");
        for wrong in [
            "127.0.0.1:9902/paceline",
            "http://127.0.0.1:9902",
            "https://x/",
        ] {
            assert!(Page::parse(wrong).is_err(), "{wrong}");
        }
    }
}
