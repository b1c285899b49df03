//! wrun's own tables, and migrations: each file once and each in a transaction, whoever else starts at the same time.
//!
//! On a connection of its own, which holds an advisory lock meanwhile.

use super::connection::Connection;
use super::error::to_db_error;
use super::tokens;
use super::{Address, Postgres};
use crate::failure::Failure;
use crate::state::db::DbError;
use crate::state::migrations::hash_of;
use crate::state::remote::pool::Pool;
use crate::state::remote::ready::{self, Recorded, apply_new};
use std::path::Path;

/// Keeps others out: "wrun" as a number.
const LOCK: &str = "SELECT pg_advisory_lock(2003989870)";

/// How long a migration, and the wait for those who apply one, may take.
const LIMITS: &str = "SET statement_timeout = '540s'; SET lock_timeout = '60s'";

/// The version of the tables; a database with a higher one was made for a newer wrun.
const FORMAT: i32 = 1;

const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS wrun;
    CREATE TABLE IF NOT EXISTS wrun.meta (key text PRIMARY KEY, value bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS wrun.migrations (
        name text PRIMARY KEY, sha256 text NOT NULL, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS wrun.processed (id text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS wrun.fences (
        key text PRIMARY KEY, token bigint NOT NULL, at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX IF NOT EXISTS fences_by_time ON wrun.fences (at);
    CREATE INDEX IF NOT EXISTS processed_by_time ON wrun.processed (at);
    CREATE SEQUENCE IF NOT EXISTS wrun.message_ids;
    CREATE TABLE IF NOT EXISTS wrun.messages (
        id bigint PRIMARY KEY, queue text NOT NULL, key text, attempts int NOT NULL DEFAULT 0,
        alone boolean NOT NULL DEFAULT false, parked boolean NOT NULL DEFAULT false, holder bigint,
        sent_at timestamptz NOT NULL, due_at timestamptz NOT NULL, content_type text, headers text, body bytea NOT NULL,
        dead_reason text, dead_at timestamptz)
        WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
    CREATE INDEX IF NOT EXISTS messages_by_queue ON wrun.messages (queue, id);
    CREATE INDEX IF NOT EXISTS messages_ready ON wrun.messages (queue, due_at, id) WHERE holder IS NULL AND NOT parked;
    CREATE INDEX IF NOT EXISTS messages_by_key ON wrun.messages (queue, key, id) WHERE key IS NOT NULL;
    CREATE INDEX IF NOT EXISTS messages_held ON wrun.messages (queue, key) WHERE holder IS NOT NULL;
    CREATE INDEX IF NOT EXISTS messages_parked ON wrun.messages (queue, key) WHERE parked;
    CREATE TABLE IF NOT EXISTS wrun.holders (
        holder bigint PRIMARY KEY, queue text NOT NULL, server text NOT NULL, until timestamptz NOT NULL);
    CREATE TABLE IF NOT EXISTS wrun.dedup (
        queue text, dedup_id text, message_id bigint NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (queue, dedup_id));
    CREATE INDEX IF NOT EXISTS dedup_by_time ON wrun.dedup (at);
    CREATE TABLE IF NOT EXISTS wrun.locks (
        space text, key text, owner text, token bigint NOT NULL, until timestamptz NOT NULL,
        next_server text, next_until timestamptz, PRIMARY KEY (space, key))
        WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
    CREATE TABLE IF NOT EXISTS wrun.outbox (
        id bigserial PRIMARY KEY, queue text NOT NULL, key text, content_type text, headers text, body bytea NOT NULL,
        dedup_id text, delay_ms bigint NOT NULL, size bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())
        WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
    CREATE INDEX IF NOT EXISTS outbox_by_queue ON wrun.outbox (queue, id);
    INSERT INTO wrun.meta VALUES ('format', 1) ON CONFLICT DO NOTHING";

impl Postgres {
    /// Makes wrun's tables, if they are missing, and applies what was not applied yet; returns the names of these files.
    pub async fn prepare(&self, folder: Option<&Path>) -> Result<Vec<String>, Failure> {
        let (connection, recorded) = make_ready(&self.pool, "database").await?;
        let Some(folder) = folder else {
            return Ok(Vec::new());
        };
        let hint = "nothing of this file was applied: correct it and start again";
        let apply = async |name: &str, sql: &str| apply(&connection, name, sql).await;
        apply_new(folder, &recorded, hint, apply).await
    }
}

/// Makes wrun's tables for a database, a queue or locks, if they are missing. Returns the connection, and what was applied.
pub(super) async fn make_ready(
    pool: &Pool<Address>,
    noun: &str,
) -> Result<(Connection, Recorded), Failure> {
    let rights = "the URL's user has to be allowed to make a schema: GRANT CREATE ON DATABASE";
    ready::make_ready(pool, noun, rights, set_up).await
}

/// Makes the tables; returns the names of the files that were applied, and their hashes.
async fn set_up(connection: &Connection) -> Result<Recorded, DbError> {
    let client = &connection.client;
    let done = async {
        client.batch_execute(LIMITS).await?;
        client.batch_execute(LOCK).await?;
        if client
            .query(
                "SELECT FROM pg_namespace WHERE nspname = $1",
                &[&tokens::OWN_SCHEMA],
            )
            .await?
            .is_empty()
            || client
                .batch_execute(
                    "SELECT FROM wrun.meta, wrun.migrations, wrun.processed, wrun.fences, wrun.messages, wrun.holders, wrun.dedup, wrun.locks, wrun.outbox LIMIT 0",
                )
                .await
                .is_err()
        {
            client.batch_execute(TABLES).await?;
        }
        let format = client
            .query_one("SELECT value::int FROM wrun.meta WHERE key = 'format'", &[])
            .await?;
        let rows = client
            .query("SELECT name, sha256 FROM wrun.migrations", &[])
            .await?;
        Ok((format.try_get::<_, i32>(0)?, rows))
    };
    let (format, rows) = done
        .await
        .map_err(|error: tokio_postgres::Error| to_db_error(&error))?;
    if format > FORMAT {
        return Err(DbError::Other(format!(
            "its schema wrun has format {format} and was made by a newer wrun, this one knows {FORMAT}"
        )));
    }
    let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let pairs = rows
        .iter()
        .map(pair)
        .collect::<Result<_, tokio_postgres::Error>>();
    pairs.map_err(|error| to_db_error(&error))
}

async fn apply(connection: &Connection, name: &str, sql: &str) -> Result<(), DbError> {
    tokens::check_migration(sql)?;
    let client = &connection.client;
    let record = "INSERT INTO wrun.migrations (name, sha256) VALUES ($1, $2)";
    let applied = async {
        client.batch_execute("BEGIN").await?;
        client.batch_execute(sql).await?;
        client.execute(record, &[&name, &hash_of(sql)]).await?;
        client.batch_execute("COMMIT").await
    };
    // If it failed, the end of the connection undoes it.
    applied.await.map_err(|error| to_db_error(&error))
}
