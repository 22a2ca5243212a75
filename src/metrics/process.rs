//! The process itself, under the names that every Prometheus client library has for it. What the system does not tell is
//! left out.

use std::fs;

use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};

use super::{Reading, count};
use crate::clock;

pub fn register(registry: &mut Registry) {
    let started = seconds(clock::now().timestamp_millis());
    registry.register("process_cpu_seconds", "User and system CPU time", Reading::counter(|| Some(cpu_seconds())));
    registry.register("process_resident_memory_bytes", "Resident memory", Reading::gauge(|| kilobytes("VmRSS:")));
    registry.register("process_virtual_memory_bytes", "Virtual memory", Reading::gauge(|| kilobytes("VmSize:")));
    registry.register("process_threads", "Threads", Reading::gauge(|| status("Threads:")));
    registry.register("process_open_fds", "Open files", Reading::gauge(open_files));
    registry.register("process_max_fds", "Open files at the most", Reading::gauge(most_open_files));
    let about = "Start of the process, in seconds since 1970";
    registry.register("process_start_time_seconds", about, Reading::gauge(move || Some(started)));
}

/// Milliseconds, as seconds.
#[allow(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    seconds(used.tv_sec * 1000 + used.tv_nsec / 1_000_000)
}

/// A number of /proc/self/status.
fn status(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// An amount of memory of /proc/self/status, which has it in KiB, in bytes.
fn kilobytes(name: &str) -> Option<f64> {
    status(name).map(|kilobytes| kilobytes * 1024.0)
}

fn open_files() -> Option<f64> {
    count(fs::read_dir("/proc/self/fd").ok()?.count())
}

#[allow(clippy::cast_precision_loss, reason = "a limit without end is as large as none other")]
fn most_open_files() -> Option<f64> {
    rlimit::Resource::NOFILE.get_soft().ok().map(|most| most as f64)
}
