//! The engine's own tables, which live in the same file as the guests' so that one commit covers both.

use super::queues::Depths;
use super::statement::Statements;
use crate::state::db::{DbError, check_work_id};
use crate::state::wall_ms;
use std::time::Duration;

/// The version of these tables; a file with a higher one was made by a newer wrun.
const FORMAT: i64 = 1;

/// How long it is remembered that work was done.
const PROCESSED_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How many old entries go for every new one: more than one, so that they get fewer.
const PRUNED: i64 = 2;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _wrun_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _wrun_message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        key TEXT,
        attempts INTEGER NOT NULL,
        alone INTEGER NOT NULL,
        ready_at INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,
        content_type TEXT,
        headers TEXT,
        body BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS _wrun_message_by_queue ON _wrun_message (queue, id);
    CREATE TABLE IF NOT EXISTS _wrun_dedup (
        queue TEXT NOT NULL,
        dedup_id TEXT NOT NULL,
        message_id INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (queue, dedup_id)
    );
    CREATE TABLE IF NOT EXISTS _wrun_outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        key TEXT,
        content_type TEXT,
        headers TEXT,
        body BLOB NOT NULL,
        dedup_id TEXT,
        delay_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        at INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS _wrun_outbox_by_queue ON _wrun_outbox (queue, id);
    CREATE TABLE IF NOT EXISTS _wrun_processed (id TEXT PRIMARY KEY, at INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS _wrun_migration (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, at INTEGER NOT NULL);
";

/// Makes the tables that are missing; returns how many messages each queue holds.
pub(super) fn prepare(statements: &Statements<'_>) -> Result<Depths, DbError> {
    let sqlite = &statements.connection.sqlite;
    let error = |error: rusqlite::Error| statements.error(&error);
    sqlite
        .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES}"))
        .map_err(error)?;
    statements.execute(
        "INSERT OR IGNORE INTO _wrun_meta (key, value) VALUES ('format', ?1)",
        [FORMAT],
    )?;
    let format: i64 = statements
        .own("SELECT value FROM _wrun_meta WHERE key = 'format'")?
        .query_one([], |row| row.get(0))
        .map_err(error)?;
    if format > FORMAT {
        return Err(DbError::Other(format!(
            "it has format {format} and was made by a newer wrun, this one knows {FORMAT}"
        )));
    }
    let mut depths = Depths::default();
    let mut counted = statements.own("SELECT queue, count(*) FROM _wrun_message GROUP BY queue")?;
    let mut rows = counted.query([]).map_err(error)?;
    while let Some(row) = rows.next().map_err(error)? {
        depths.add(
            row.get_ref(0)
                .and_then(|name| Ok(name.as_str()?))
                .map_err(error)?,
            row.get(1).map_err(error)?,
        );
    }
    depths.commit();
    drop(rows);
    drop(counted);
    sqlite.execute_batch("COMMIT").map_err(error)?;
    Ok(depths)
}

/// Raises the number up to which fencing tokens may be given out; returns it.
pub(super) fn reserve_tokens(statements: &Statements<'_>, block: u64) -> Result<u64, DbError> {
    let ceiling: i64 = statements
        .own(
            "INSERT INTO _wrun_meta (key, value) VALUES ('tokens', ?1)
             ON CONFLICT (key) DO UPDATE SET value = value + excluded.value RETURNING value",
        )?
        .query_one([block.cast_signed()], |row| row.get(0))
        .map_err(|error| statements.error(&error))?;
    Ok(ceiling.cast_unsigned())
}

/// Notes that the work called `id` is done; false if it was before.
pub(super) fn mark_processed(statements: &Statements<'_>, id: &str) -> Result<bool, DbError> {
    check_work_id(id)?;
    let now = wall_ms().cast_signed();
    // Rows are in the order in which they were noted, so the oldest are the first.
    let kept = i64::try_from(PROCESSED_KEPT.as_millis()).unwrap_or(i64::MAX);
    statements.execute(
        "DELETE FROM _wrun_processed WHERE at < ?1
         AND rowid IN (SELECT rowid FROM _wrun_processed ORDER BY rowid LIMIT ?2)",
        [now - kept, PRUNED],
    )?;
    let noted = statements.execute(
        "INSERT OR IGNORE INTO _wrun_processed (id, at) VALUES (?1, ?2)",
        (id, now),
    )?;
    Ok(noted == 1)
}
