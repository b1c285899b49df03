//! What the C library needs to resolve a name: files that it reads each time, and code that it loads the first time.
//!
//! A worker may load no code once it is locked down, so that is done before.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where DNS servers listen, over TCP if an answer is long.
pub(super) const PORT: u16 = 53;

/// What the C library reads to resolve a name.
const FILES: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];

/// Ways to resolve names that are part of the C library itself.
const BUILT_IN: [&str; 2] = ["files", "dns"];

/// Returns the files and folders to read.
pub(super) fn files() -> Vec<PathBuf> {
    let files = FILES.iter().map(PathBuf::from).filter(|file| file.exists());
    // What is a link to a resolver's own folder is replaced there by another file now and then.
    let target = fs::read_link(FILES[0]).ok();
    let folder = target.and_then(|target| {
        let target = Path::new("/etc").join(target);
        target.parent().map(Path::to_path_buf)
    });
    let folder = folder.filter(|folder| *folder != Path::new("/etc") && folder.is_dir());
    files.chain(folder).collect()
}

/// Loads the modules that `/etc/nsswitch.conf` names.
pub(super) fn preload() {
    let text = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    for service in services(&text) {
        let Ok(file) = CString::new(format!("libnss_{service}.so.2")) else {
            continue;
        };
        // SAFETY: `file` is a C string. Its library's start code runs, as it would at the first name. That it stays is
        // the point, so what is returned is of no use; that it is not there is for the C library to find, too.
        let _ = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW) };
    }
}

/// Returns the ways to resolve host names that need a module.
fn services(nsswitch: &str) -> Vec<&str> {
    let hosts = nsswitch
        .lines()
        .find_map(|line| line.strip_prefix("hosts:"));
    let line = hosts.unwrap_or_default();
    line.split('#')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .filter(|word| !BUILT_IN.contains(word))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_those_that_the_hosts_line_names() {
        let text = "passwd: files systemd\nhosts:  files mdns4_minimal [NOTFOUND=return] resolve dns # myhostname\n";
        assert_eq!(services(text), ["mdns4_minimal", "resolve"]);
        assert!(services("").is_empty());
    }
}
