//! The containers of `envoy/docker-compose.yaml`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use lab::docker::{Reaper, docker};
use lab::gateway::{Admin, Stats};

use super::{SOON, eventually};

/// The servers, as services and as upstreams.
pub(crate) const SERVERS: [&str; 4] = ["h100-1", "a100-1", "a100-2", "a40-1"];

/// Lines of each container's log that a failing test shows.
const LOG_TAIL: &str = "40";

/// A compose project of its own. Dropping it removes all its containers and its
/// network, and shows their logs first if the test has failed.
pub(crate) struct Stack {
    project: String,
    _reaper: Reaper,
}

impl Stack {
    /// A project without containers.
    pub(crate) fn new() -> Self {
        // Several tests of this process begin at the same time, but no two of
        // them on the same thread.
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let thread: String = format!("{:?}", std::thread::current().id())
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let project = format!("paceline{}t{thread}n{now}", std::process::id());
        let reaper = Reaper::start(&format!("com.docker.compose.project={project}")).unwrap();
        Self {
            project,
            _reaper: reaper,
        }
    }

    /// Its name.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// Envoy and the servers, accepting requests.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with the services of a profile.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let stack = Self::new();
        stack.compose(&[options, &["up", "--detach"]].concat());
        stack.expect_ready().await;
        stack
    }

    /// Waits for Envoy to reach every server.
    pub(crate) async fn expect_ready(&self) {
        let admin = self.admin();
        eventually("all servers to be known to Envoy", SOON, async || {
            if !admin.is_ready().await {
                return Err("Envoy is not ready".to_owned());
            }
            for server in SERVERS {
                if self.hosts(server).await.is_empty() {
                    return Err(format!("{server} has no address"));
                }
                let labels = [("upstream", server)];
                if self.stats().await.sum("paceline_ready", &labels) == 0 {
                    return Err(format!("{server} is not ready"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Lets compose do something, which must succeed; what it says.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        self.compose_with(&[], arguments)
    }

    /// The same, with these variables.
    pub(crate) fn compose_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let output = self.try_compose(variables, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "compose {arguments:?} ends with {}:\n{said}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    fn try_compose(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/compose");
        Command::new(script)
            .args(["--project-name", &self.project])
            .args(arguments)
            .env("GATEWAY_PORT", "0")
            .env("ADMIN_PORT", "0")
            .env("STATUS_PORT", "0")
            .env("PROMETHEUS_PORT", "0")
            .env("REQUESTS", "200")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The containers of a service, running or not.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let told = docker(&[
            "ps", "--all", "--quiet", "--filter", &project, "--filter", &service,
        ]);
        told.unwrap().lines().map(str::to_owned).collect()
    }

    /// The only container of a service.
    pub(crate) fn container(&self, service: &str) -> String {
        let [container] = <[String; 1]>::try_from(self.containers(service)).unwrap();
        container
    }

    /// The project's network.
    pub(crate) fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// Where a service's port is published.
    pub(crate) fn published(&self, service: &str, port: u16) -> SocketAddr {
        let told = docker(&["port", &self.container(service), &port.to_string()]).unwrap();
        told.lines().next().unwrap().parse().unwrap()
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.published("envoy", 9901))
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.admin().stats().await.unwrap()
    }

    /// The addresses that Envoy has of a server, and the requests it has sent to
    /// each.
    pub(crate) async fn hosts(&self, server: &str) -> Vec<(String, u64)> {
        let clusters = self.admin().get("/clusters").await.unwrap();
        let prefix = format!("{server}-servers::");
        let host = |line: &str| {
            let (address, requests) = line.strip_prefix(&prefix)?.split_once("::rq_total::")?;
            Some((address.to_owned(), requests.parse().unwrap()))
        };
        clusters.lines().filter_map(host).collect()
    }

    /// Waits until all that was picked has ended.
    pub(crate) async fn expect_none_in_flight(&self) {
        eventually("nothing in flight", SOON, async || {
            let gauges = self
                .stats()
                .await
                .by_label("paceline_in_flight", "upstream");
            match gauges.values().all(|gauge| *gauge == 0) {
                true => Ok(()),
                false => Err(format!("{gauges:?}")),
            }
        })
        .await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for arguments in [
                &["ps", "--all"][..],
                &["logs", "--no-color", "--tail", LOG_TAIL],
            ] {
                let output = self.try_compose(&[], arguments);
                eprintln!("{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}
