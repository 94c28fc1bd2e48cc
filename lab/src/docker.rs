//! The container engine's client, and what removes all that a run left behind.

use std::io;
use std::process::{Child, Command, Stdio};

/// The client's program.
pub const DOCKER: &str = "docker";

/// Waits until its owner is gone, however that ended, and removes what it left.
/// A network cannot be removed while a container is joining it, so it tries
/// for a while.
const REAPER: &str = r#"
    trap '' HUP INT TERM
    cat >/dev/null
    for second in 0 1 2 3 4 5 6 7 8 9; do
        containers=$(docker ps --all --quiet --filter "label=$1")
        [ -z "$containers" ] || docker rm --force --volumes $containers
        networks=$(docker network ls --quiet --filter "label=$1")
        [ -z "$networks" ] || docker network rm $networks
        [ -n "$containers$networks" ] || exit 0
        sleep 0.2
    done
"#;

/// The engine, or its client, did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("docker {command}: {problem}")]
pub struct DockerError {
    command: String,
    problem: String,
}

/// What a command of the client says on standard output, trimmed.
///
/// # Errors
/// With what it says on standard error, if it cannot be run or fails.
pub fn docker(arguments: &[&str]) -> Result<String, DockerError> {
    let failed = |problem: String| DockerError {
        command: arguments.join(" "),
        problem,
    };
    let output = Command::new(DOCKER)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(said.trim().to_owned()))
    }
}

/// Removes all containers and networks that carry a label, when it is dropped or
/// this process ends in any way.
#[derive(Debug)]
pub struct Reaper {
    /// Acts once its standard input is closed.
    child: Child,
}

impl Reaper {
    /// For what carries `label`, as `key=value`, by then.
    ///
    /// # Errors
    /// If the system gives no process.
    pub fn start(label: &str) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", REAPER, "sh", label])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A Ctrl-C is for the owner; the reaper hears of its end.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self {
            child: command.spawn()?,
        })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Fails only if somebody else has waited for it.
        let _ = self.child.wait();
    }
}
