//! Copies a database to a file while it is used, as it is at one moment.

use super::Options;
use super::connection::{Connection, Role};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail};
use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Pages that are copied at a time.
const STEP_PAGES: i32 = 1024;

/// Copies the database to a new file, and syncs that. On failure nothing is left of it.
pub(super) fn copy(options: &Options, to: &Path) -> Result<(), Failure> {
    let copying = || {
        format!(
            "database {}: cannot be copied to {}",
            options.label,
            to.display()
        )
    };
    if to.exists() {
        return Err(Failure::new(
            ExitCode::CannotCreate,
            format!("{}: the file exists", to.display()),
        ));
    }
    let copied = copy_pages(options, to).or_fail(ExitCode::CannotCreate, copying);
    let synced = copied.and_then(|()| sync(to).or_fail(ExitCode::CannotCreate, copying));
    if synced.is_err() {
        // It may not have come to be.
        let _ = fs::remove_file(to);
    }
    synced
}

fn copy_pages(options: &Options, to: &Path) -> rusqlite::Result<()> {
    let from = Connection::open(options, Role::Keeper)?;
    // As long as this transaction reads, every page is as it is now: the copy begins anew for no commit.
    from.sqlite.execute_batch("BEGIN")?;
    from.sqlite
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut to = rusqlite::Connection::open_with_flags(to, flags)?;
    let backup = Backup::new(&from.sqlite, &mut to)?;
    while backup.step(STEP_PAGES)? != StepResult::Done {}
    Ok(())
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    super::sync_folder(path)
}
