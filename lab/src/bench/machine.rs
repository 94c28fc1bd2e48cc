//! Where and when something was measured.

use std::fs;

use jiff::Timestamp;

/// One line: the date, the processor, how many of it, the memory and the kernel. What the system does not tell is left out.
#[must_use]
pub fn describe_machine() -> String {
    let cpu = line_of("/proc/cpuinfo", "model name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = line_of("/proc/meminfo", "MemTotal").and_then(|kib| gib(&kib));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let date = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let parts = [
        Some(date),
        cpu,
        Some(format!("{cores} cores")),
        memory,
        kernel.map(|kernel| format!("Linux {}", kernel.trim())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What stands behind the colon in the first line that begins with `key`.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}

fn gib(kib: &str) -> Option<String> {
    let kib: f64 = kib.trim_end_matches(" kB").parse().ok()?;
    Some(format!("{:.0} GiB", kib / (1024.0 * 1024.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_date_and_cores() {
        let machine = describe_machine();
        assert!(
            machine.starts_with("20") && machine.contains(" cores"),
            "{machine}"
        );
        assert_eq!(gib("25165824 kB").unwrap(), "24 GiB");
    }
}
