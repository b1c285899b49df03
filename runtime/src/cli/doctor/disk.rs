//! The place of the state folder: whether there is room, and how fast its disk is.

use super::super::table::bytes;
use super::{Finding, Status};
use nix::sys::statfs::{self, statfs};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Room below which a database may not get far.
const FREE_MIN: u64 = 1 << 30;

/// Syncs that are timed.
const SYNCS: u32 = 16;

/// A sync of this length is no disk's of today.
const SYNC_MAX: Duration = Duration::from_millis(50);

/// File systems over a network, where the locks that SQLite relies on may not work.
const REMOTE: [(statfs::FsType, &str); 2] = [
    (statfs::NFS_SUPER_MAGIC, "NFS"),
    (statfs::SMB_SUPER_MAGIC, "SMB"),
];

pub(super) fn look(state: &Path) -> Vec<Finding> {
    let folder = nearest(state);
    let shown = match state.is_dir() {
        true => state.display().to_string(),
        false => format!("{} (to be made)", state.display()),
    };
    let mut findings = vec![Finding::new("state folder", Status::Info, shown)];
    if let Ok(disk) = statfs(&folder) {
        let kind = disk.filesystem_type();
        if let Some((_, name)) = REMOTE.iter().find(|(remote, _)| *remote == kind) {
            let finding = Finding::new("file system", Status::Off, *name);
            findings.push(finding.next("keep state on a local disk: --state DIR"));
        }
        let free = disk.blocks_available() * u64::try_from(disk.block_size()).unwrap_or(0);
        findings.push(match free >= FREE_MIN {
            true => Finding::new("free space", Status::Ok, bytes(free)),
            false => Finding::new("free space", Status::Off, bytes(free))
                .next("make room, or choose another disk with --state"),
        });
    }
    findings.push(match time_of_a_sync(&folder) {
        Ok(time) => {
            let found = format!(
                "{:.2} ms for an fdatasync of 4 KiB",
                time.as_secs_f64() * 1e3
            );
            match time <= SYNC_MAX {
                true => Finding::new("disk", Status::Ok, found),
                false => Finding::new("disk", Status::Off, found)
                    .next("a commit waits for that: a faster disk, or durability = \"relaxed\""),
            }
        }
        Err(error) => Finding::new("disk", Status::Missing, error.to_string()).next(format!(
            "make {} writable, or choose another folder with --state",
            folder.display()
        )),
    });
    findings
}

/// Returns the folder, or what it would be made in.
fn nearest(state: &Path) -> PathBuf {
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_path_buf());
    let there = state.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("/")).to_path_buf()
}

/// Appends to a file without a name, and syncs it, again and again.
fn time_of_a_sync(folder: &Path) -> io::Result<Duration> {
    let mut file = scratch(folder)?;
    let block = [0; 4096];
    file.write_all(&block)?;
    file.sync_data()?;
    let start = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    Ok(start.elapsed() / SYNCS)
}

/// Makes a file that is gone once it is closed.
fn scratch(folder: &Path) -> io::Result<File> {
    let unnamed = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder);
    // Some file systems have no files without a name.
    unnamed.or_else(|_| {
        let path = folder.join(format!(".wrun-doctor-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        std::fs::remove_file(path)?;
        Ok(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_that_is_there_is_not_to_be_made() {
        let shown = |state: &Path| look(state).swap_remove(0).found;
        // Relative, as in a manifest.
        assert_eq!(shown(Path::new(".")), ".");
        let missing = Path::new("not-there/.wrun");
        assert_eq!(shown(missing), "not-there/.wrun (to be made)");
    }
}
