//! The `log` facade over the proxy's log.

use ::log::{Level, LevelFilter, Log, Metadata, Record};

use super::abi;

struct ProxyLog;

static PROXY_LOG: ProxyLog = ProxyLog;

/// Sends this module's log, and what a panic has to say, to the proxy.
pub(super) fn install() {
    // Fails only where a logger is installed already, and then it serves.
    if ::log::set_logger(&PROXY_LOG).is_ok() {
        ::log::set_max_level(LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|info| write(5, &info.to_string())));
}

impl Log for ProxyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Trace => 0,
            Level::Debug => 1,
            Level::Info => 2,
            Level::Warn => 3,
            Level::Error => 4,
        };
        if self.enabled(record.metadata()) {
            write(level, &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn write(level: u32, message: &str) {
    // SAFETY: the message outlives the call. A log that cannot be written is
    // lost: there is nowhere to say so.
    let _ = unsafe { abi::proxy_log(level, message.as_ptr(), message.len()) };
}
