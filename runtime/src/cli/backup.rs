//! `wrun backup`: a consistent copy of a database while it is used. Starting on a copy is all that a restore takes.

use super::ServerArgs;
use super::state::{ask, unexpected};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::state::protocol::{OperatorCall, Reply};
use nix::errno::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// Where the copy goes
    file: PathBuf,
    /// The database
    #[arg(long, value_name = "LABEL", default_value = "default")]
    db: String,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: BackupArgs) -> Result<ExitCode, Failure> {
    let BackupArgs {
        file,
        db,
        force,
        server,
    } = args;
    // Before the copying, which may take long; what decides is `put`.
    if !force && file.symlink_metadata().is_ok() {
        return Err(is_there(&file));
    }
    match ask(&server.state, OperatorCall::Backup { db })? {
        Reply::Path(copy) => put(Path::new(&copy), &file, force)?,
        reply => return Err(unexpected(&reply)),
    }
    Ok(ExitCode::Ok)
}

/// Moves `copy` to `file`: all of it or nothing, and on the disk once this returns. Whatever happens, `copy` is gone then.
fn put(copy: &Path, file: &Path, force: bool) -> Result<(), Failure> {
    let result = settle(copy, file, force);
    // Still there if it could not be moved, or was copied.
    let _ = fs::remove_file(copy);
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !force => Err(is_there(file)),
        result => result
            .or_fail(ExitCode::CannotCreate, || {
                format!("cannot create {}", file.display())
            })
            .map_err(|failure| {
                failure.hint("name a file in a folder with room that you can write to")
            }),
    }
}

fn settle(copy: &Path, file: &Path, force: bool) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let result = match settle_on_one_disk(copy, file, force) {
        Err(error) if error.raw_os_error() == Some(Errno::EXDEV as i32) => {
            let token = getrandom::u64().map_err(io::Error::other)?;
            let near = folder.join(format!(".wrun-backup-{token:016x}"));
            let result =
                duplicate(copy, &near).and_then(|()| settle_on_one_disk(&near, file, force));
            let _ = fs::remove_file(&near);
            result
        }
        result => result,
    };
    result.and_then(|()| File::open(folder)?.sync_all())
}

fn settle_on_one_disk(copy: &Path, file: &Path, force: bool) -> io::Result<()> {
    fs::set_permissions(copy, Permissions::from_mode(0o600))?;
    File::open(copy)?.sync_all()?;
    match force {
        true => fs::rename(copy, file),
        // Unlike a rename, this fails if the file is there.
        false => fs::hard_link(copy, file),
    }
}

fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    io::copy(&mut File::open(from)?, &mut to)?;
    Ok(())
}

fn is_there(file: &Path) -> Failure {
    Failure::new(
        ExitCode::CannotCreate,
        format!("{} is there already", file.display()),
    )
    .hint("name another file, or replace this one with --force")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        copy: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("copy");
            fs::write(&copy, "data").unwrap();
            Self { folder, copy }
        }

        fn put(&self, file: &Path, force: bool) -> Result<(), Failure> {
            let result = put(&self.copy, file, force);
            assert!(!self.copy.exists(), "the copy is moved or removed");
            result
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("file")
        }
    }

    fn assert_is_put(file: &Path) {
        assert_eq!(fs::read_to_string(file).unwrap(), "data");
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn copy_becomes_the_file_for_its_owner_alone() {
        let fixture = Fixture::new();
        fixture.put(&fixture.file(), false).unwrap();
        assert_is_put(&fixture.file());
    }

    #[test]
    fn file_that_is_there_is_replaced_only_by_force() {
        let fixture = Fixture::new();
        fs::write(fixture.file(), "precious").unwrap();
        let failure = fixture.put(&fixture.file(), false).unwrap_err();
        assert!(failure.hint.unwrap().contains("--force"));
        assert_eq!(fs::read_to_string(fixture.file()).unwrap(), "precious");
        fs::write(&fixture.copy, "data").unwrap();
        fixture.put(&fixture.file(), true).unwrap();
        assert_is_put(&fixture.file());
    }

    #[test]
    fn copy_goes_to_another_disk_too_and_leaves_nothing_behind() {
        let fixture = Fixture::new();
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let file = elsewhere.path().join("file");
        fixture.put(&file, false).unwrap();
        assert_is_put(&file);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn folder_that_is_not_there_is_a_failure() {
        let fixture = Fixture::new();
        let failure = fixture.put(Path::new("/nowhere/file"), false).unwrap_err();
        assert_eq!(failure.code, ExitCode::CannotCreate);
    }
}
