//! A database or a queue is made ready: wrun's tables are there, and every migration was applied.
//!
//! On a connection of its own. What the tables are, and how one file is applied, is for the engine.

use super::Engine;
use super::pool::Pool;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::state::db::DbError;
use crate::state::migrations::{check, read_folder};
use std::collections::BTreeMap;
use std::path::Path;

/// The names of the files that were applied, and their hashes.
pub(in crate::state) type Recorded = BTreeMap<String, String>;

/// Connects for a `noun`, and has `set_up` make wrun's tables, which needs what `rights` says.
pub(in crate::state) async fn make_ready<E: Engine>(
    pool: &Pool<E>,
    noun: &str,
    rights: &'static str,
    set_up: impl AsyncFnOnce(&E::Connection) -> Result<Recorded, DbError>,
) -> Result<(E::Connection, Recorded), Failure> {
    let name = pool.name();
    let (_, label) = name.split_once('.').unwrap_or(("", name));
    let failed = || format!("{noun} {label}: cannot be made ready");
    let connection = pool.connect().await;
    let connection = connection
        .or_fail(ExitCode::Unavailable, failed)
        .map_err(|failure| {
            failure.hint(format!(
                "check the binding {name}, and that {} runs there",
                E::PRODUCT
            ))
        })?;
    let set_up = set_up(&connection).await;
    let recorded = set_up
        .or_fail(ExitCode::Config, failed)
        .map_err(|failure| failure.hint(rights))?;
    Ok((connection, recorded))
}

/// Has `apply` apply the files of a folder that are not recorded, and returns their names. `hint` says what to do about
/// one that fails.
pub(in crate::state) async fn apply_new(
    folder: &Path,
    recorded: &Recorded,
    hint: &'static str,
    apply: impl AsyncFn(&str, &str) -> Result<(), DbError>,
) -> Result<Vec<String>, Failure> {
    let files = read_folder(folder)?;
    check(recorded, &files, folder)?;
    let mut applied = Vec::new();
    for (name, sql) in files {
        if recorded.contains_key(&name) {
            continue;
        }
        apply(&name, &sql).await.map_err(|error| {
            Failure::new(ExitCode::Config, format!("migration {name}: {error}")).hint(hint)
        })?;
        applied.push(name);
    }
    Ok(applied)
}
