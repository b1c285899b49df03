//! What the figures depend on: cores, kernel, and how fast the disk says that something is safe.

use super::figures::quantile;
use nix::sys::utsname::uname;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the disk is measured.
const TIME: Duration = Duration::from_millis(500);

/// What a commit of a small transaction writes at least.
const BLOCK: [u8; 4096] = [1; 4096];

/// Returns what the machine is.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let kernel = uname().map(|uname| uname.release().to_string_lossy().into_owned());
    let kernel = kernel.unwrap_or_default();
    format!("{cores} cores ({model}), Linux {kernel}")
}

/// Returns how much memory the machine has.
pub fn memory() -> String {
    let about = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = about
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    format!("{:.0} GiB", kib.unwrap_or(0.0) / f64::from(1 << 20))
}

/// Returns the load average of the last minute: what else the machine did.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Writes and syncs one block again and again in a folder; says how often in a second, and how long it took.
pub fn describe_disk(folder: &Path) -> io::Result<String> {
    let file = File::create(folder.join("disk"))?;
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < TIME {
        let begin = Instant::now();
        file.write_all_at(&BLOCK, 0)?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let ms = |part| quantile(&times, part).unwrap_or_default().as_secs_f64() * 1e3;
    Ok(format!(
        "{rate:.0} × (4 KiB pwrite + fdatasync)/s, p50 {:.2} ms, p99 {:.2} ms",
        ms(0.5),
        ms(0.99)
    ))
}
