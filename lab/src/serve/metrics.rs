//! `/metrics` in the Prometheus text format, by vLLM's names where it has one.

use std::fmt::Write;

use super::histogram::Histogram;
use super::replica::Snapshot;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of a server that serves `model`.
pub(super) fn render(model: &str, snapshot: &Snapshot) -> String {
    let Snapshot {
        load,
        counters,
        first_token_seconds,
        latency_seconds,
        ..
    } = snapshot;
    let mut page = Page {
        text: String::with_capacity(8192),
        labels: format!("engine=\"0\",model_name=\"{}\"", escaped(model)),
    };
    page.gauge(
        "vllm:num_requests_running",
        "Requests on a slot or in the batch.",
        load.running as f64,
    );
    page.gauge(
        "vllm:num_requests_waiting",
        "Requests that wait for one.",
        load.waiting as f64,
    );
    page.gauge(
        "vllm:kv_cache_usage_perc",
        "Used part of KV memory, 1 is all of it.",
        load.kv_usage(),
    );
    page.counter(
        "vllm:prompt_tokens_total",
        "Prompt tokens computed.",
        counters.prompt_tokens,
    );
    page.counter(
        "vllm:generation_tokens_total",
        "Tokens generated.",
        counters.generation_tokens,
    );
    page.counter(
        "vllm:num_preemptions_total",
        "Preemptions for want of KV memory.",
        counters.preemptions,
    );
    page.counter(
        "vllm:request_success_total",
        "Requests completed.",
        counters.done,
    );
    page.gauge(
        "lab:device_memory_used_bytes",
        "Memory of the device that requests take.",
        load.device_memory as f64,
    );
    page.counter(
        "lab:out_of_memory_crashes_total",
        "Crashes because the device ran out of memory.",
        counters.crashes,
    );
    page.histogram(
        "vllm:time_to_first_token_seconds",
        "Time to the first token.",
        first_token_seconds,
    );
    page.histogram(
        "vllm:e2e_request_latency_seconds",
        "Time to the last token.",
        latency_seconds,
    );
    page.text
}

struct Page {
    text: String,
    labels: String,
}

// Writing to a String cannot fail.
impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.text, "{name}{{{}}} {value}", self.labels);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        let _ = writeln!(self.text, "{name}{{{}}} {value}", self.labels);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let Self { text, labels } = self;
        for (bound, count) in histogram.cumulative() {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {count}");
        }
        let count = histogram.count();
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum());
        let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"")
}
