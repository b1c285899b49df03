//! Migrations: the `.sql` files of a folder, applied in the order of their names, each once and each in a transaction.
//!
//! On a connection of its own without foreign keys, so that a table can be rebuilt; they are checked before the commit.

use super::Options;
use super::authorizer::Gate;
use super::connection::{Connection, Role};
use super::tokens;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail};
use crate::state::db::DbError;
use crate::state::migrations::{check, hash_of, read_folder};
use crate::state::wall_ms;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::limits::Limit;
use rusqlite::{Batch, params};
use std::collections::BTreeMap;
use std::path::Path;

/// The largest file in bytes.
const FILE_MAX: i32 = 4 << 20;

/// Applies what was not applied yet; returns the names of these files.
pub(super) fn apply(options: &Options, folder: &Path) -> Result<Vec<String>, Failure> {
    let files = read_folder(folder)?;
    let opening = || {
        format!(
            "database {}: cannot be opened for migrations",
            options.label
        )
    };
    let connection =
        Connection::open(options, Role::Keeper).or_fail(ExitCode::Unavailable, opening)?;
    connection
        .sqlite
        .set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, FILE_MAX)
        .or_fail(ExitCode::Internal, opening)?;
    let recorded = recorded(&connection).or_fail(ExitCode::Unavailable, opening)?;
    check(&recorded, &files, folder)?;
    let mut applied = Vec::new();
    for (name, sql) in &files {
        if !recorded.contains_key(name) {
            apply_file(&connection, name, sql)?;
            applied.push(name.clone());
        }
    }
    Ok(applied)
}

/// Returns the names of the files that were applied, and their hashes.
fn recorded(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .sqlite
        .prepare("SELECT name, sha256 FROM _wrun_migration")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn apply_file(connection: &Connection, name: &str, sql: &str) -> Result<(), Failure> {
    let applied = tokens::check_names(sql)
        .and_then(|()| run_file(connection, name, sql).map_err(|error| connection.db_error(&error)))
        .and_then(|()| check_foreign_keys(connection))
        .and_then(|()| commit(connection));
    connection.gate.set_guest(false);
    if applied.is_err() && !connection.sqlite.is_autocommit() {
        let _ = connection.sqlite.execute_batch("ROLLBACK");
    }
    applied.map_err(|error| {
        Failure::new(ExitCode::Config, format!("migration {name}: {error}"))
            .hint("nothing of this file was applied: correct it and start again")
    })
}

/// Runs the statements of a file, and records that, in a transaction that stays open.
fn run_file(connection: &Connection, name: &str, sql: &str) -> rusqlite::Result<()> {
    let sqlite = &connection.sqlite;
    sqlite.execute_batch("BEGIN IMMEDIATE")?;
    guests(&connection.gate, || -> rusqlite::Result<()> {
        let mut statements = Batch::new(sqlite, sql);
        while let Some(mut statement) = statements.next()? {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    })?;
    sqlite
        .execute(
            "INSERT INTO _wrun_migration (name, sha256, at) VALUES (?1, ?2, ?3)",
            params![name, hash_of(sql), wall_ms().cast_signed()],
        )
        .map(drop)
}

/// Does something with the rights of a guest.
fn guests<T>(gate: &Gate, action: impl FnOnce() -> T) -> T {
    gate.set_guest(true);
    let result = action();
    gate.set_guest(false);
    result
}

fn check_foreign_keys(connection: &Connection) -> Result<(), DbError> {
    let violated = connection
        .sqlite
        .prepare("PRAGMA foreign_key_check")
        .and_then(|mut check| {
            let mut rows = check.query([])?;
            match rows.next()? {
                None => Ok(None),
                Some(row) => Ok(Some((row.get(0)?, row.get(2)?))),
            }
        })
        .map_err(|error| connection.db_error(&error))?;
    match violated {
        None => Ok(()),
        Some::<(String, String)>((table, parent)) => Err(DbError::Engine {
            code: "23503".to_owned(),
            message: format!("a row of {table} would refer to none of {parent}"),
            constraint: None,
            retryable: false,
        }),
    }
}

fn commit(connection: &Connection) -> Result<(), DbError> {
    connection
        .sqlite
        .execute_batch("COMMIT")
        .map_err(|error| connection.db_error(&error))
}
