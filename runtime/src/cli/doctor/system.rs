//! The kernel, and what it lets a process have.

use super::super::table::bytes;
use super::{Finding, Status};
use crate::sandbox::kernel;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::fs;
use std::path::Path;

/// The oldest kernel that has what the supervisor is made of: pidfds, and closing a range of descriptors.
const KERNEL_MIN: (u32, u32) = (5, 9);

/// Descriptors that a busy worker needs.
const DESCRIPTORS_MIN: u64 = 2048;

/// Connections that wrun lets wait to be accepted.
const BACKLOG: u64 = 4096;

pub(super) fn look() -> Vec<Finding> {
    vec![
        kernel(),
        cores(),
        memory(),
        open_files(),
        address_space(),
        overcommit(),
        backlog(),
        huge_pages(),
        page_map(),
    ]
}

fn kernel() -> Finding {
    let (release, version) = kernel::release();
    let status = match version {
        Some(version) if version >= KERNEL_MIN => Status::Ok,
        _ => Status::Missing,
    };
    let finding = Finding::new("kernel", status, format!("Linux {release}"));
    match status {
        Status::Ok => finding,
        _ => finding.next("wrun needs Linux 5.9 or newer"),
    }
}

fn cores() -> Finding {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let quota = own_cgroup("cpu.max").filter(|quota| !quota.starts_with("max"));
    let found = match quota {
        Some(quota) => format!("{usable} usable (cgroup cpu.max {quota})"),
        None => format!("{usable} usable"),
    };
    Finding::new("cores", Status::Info, found)
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let shown = |kib: Option<u64>| kib.map_or("?".to_owned(), |kib| bytes(kib << 10));
    let limit = own_cgroup("memory.max").and_then(|limit| limit.parse().ok());
    let limit = limit.map_or("no limit by cgroup".to_owned(), |limit| {
        format!("cgroup memory.max {}", bytes(limit))
    });
    let found = format!(
        "{} of {} available, {limit}",
        shown(field("MemAvailable:")),
        shown(field("MemTotal:"))
    );
    Finding::new("memory", Status::Info, found)
}

fn open_files() -> Finding {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    match hard >= DESCRIPTORS_MIN {
        true => Finding::new(
            "open files",
            Status::Ok,
            format!("up to {hard} in a process"),
        ),
        false => Finding::new(
            "open files",
            Status::Off,
            format!("up to {hard} in a process"),
        )
        .next("raise it: ulimit -Hn, LimitNOFILE= in a unit, --ulimit nofile= of a container"),
    }
}

fn address_space() -> Finding {
    match getrlimit(Resource::RLIMIT_AS).map_or(RLIM_INFINITY, |(soft, _)| soft) {
        RLIM_INFINITY => Finding::new("address space", Status::Ok, "no limit"),
        limit => Finding::new("address space", Status::Missing, bytes(limit)).next(
            "lift it (ulimit -v unlimited): each instance reserves 4 GiB that it does not use",
        ),
    }
}

fn overcommit() -> Finding {
    let mode = read("/proc/sys/vm/overcommit_memory");
    match mode.as_deref() {
        Some("2") => Finding::new("overcommit", Status::Off, "never (2)").next(
            "sysctl vm.overcommit_memory=0, or --in-flight lower if instances cannot be made",
        ),
        Some(mode) => Finding::new("overcommit", Status::Ok, format!("mode {mode}")),
        None => Finding::new("overcommit", Status::Info, "not to be seen"),
    }
}

fn backlog() -> Finding {
    let most: u64 = read("/proc/sys/net/core/somaxconn")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let found = format!("up to {most} connections wait to be accepted");
    match most >= BACKLOG {
        true => Finding::new("somaxconn", Status::Ok, found),
        false => Finding::new("somaxconn", Status::Off, found)
            .next(format!("sysctl net.core.somaxconn={BACKLOG}")),
    }
}

fn huge_pages() -> Finding {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let mode = modes.split(['[', ']']).nth(1).unwrap_or("not there");
    Finding::new(
        "huge pages",
        Status::Info,
        format!("{mode}; workers do without them"),
    )
}

fn page_map() -> Finding {
    let found = match fs::File::open("/proc/self/pagemap") {
        Ok(_) => "readable; wrun does not use it",
        Err(_) => "not readable; wrun does not use it",
    };
    Finding::new("page map", Status::Info, found)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Reads a file of the cgroup (version 2) that this process is in.
fn own_cgroup(file: &str) -> Option<String> {
    let text = read("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    read(Path::new("/sys/fs/cgroup").join(own).join(file))
}
