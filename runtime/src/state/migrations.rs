//! Migrations as files: the `.sql` files of a folder, in the order of their names, and whether those that were applied
//! are what they were. How one is applied is for each engine.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Returns the files by their names.
pub(super) fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let reading = || format!("{}: cannot be read", folder.display());
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(folder).map_err(|error| unreadable(reading(), &error))?;
    for entry in entries {
        let path = entry.or_fail(ExitCode::NoInput, reading)?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let sql = fs::read_to_string(&path).or_fail(ExitCode::NoInput, || {
            format!("{}: cannot be read", path.display())
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.insert(name.into_owned(), sql);
    }
    Ok(files)
}

/// Says why a folder cannot be read that may well be there.
fn unreadable(what: String, error: &std::io::Error) -> Failure {
    let failure = Failure::new(ExitCode::NoInput, format!("{what}: {error}"));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => failure.hint(
            "put it beneath the folder of wrun.toml, or restart the server: the state process reads no folder that was \
             not named when it was started",
        ),
        _ => failure,
    }
}

/// Refuses to go on if a file that was applied is not what it was.
pub(super) fn check(
    recorded: &BTreeMap<String, String>,
    files: &BTreeMap<String, String>,
    folder: &Path,
) -> Result<(), Failure> {
    for (name, hash) in recorded {
        let (wrong, hint) = match files.get(name) {
            None => ("is missing", "put it back"),
            Some(sql) if hash_of(sql) != *hash => {
                ("was changed after it was applied", "undo the change")
            }
            Some(_) => continue,
        };
        let path = folder.join(name);
        return Err(Failure::new(
            ExitCode::Config,
            format!("{}: the migration {wrong}", path.display()),
        )
        .hint(format!(
            "{hint}, and write what is to be different into a new file"
        )));
    }
    Ok(())
}

pub(super) fn hash_of(sql: &str) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(sql.as_bytes()) {
        // Writing to a string never fails.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
