//! What the queue looks like: how it stands, what messages contain; and what operators change in it.

use super::Table;
use crate::state::db::DbError;
use crate::state::queue::content::{add_dead_headers, headers_from_text};
use crate::state::queue::desk::{BATCH_BYTES_MAX, Found, PEEK_MAX};
use crate::state::queue::stored::{Stored, StoredMessage};
use crate::state::queue::{DEAD_SUFFIX, QueueError, QueueStatus};
use futures_util::future::join3;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

/// A message with what it contains, as far as all of them together have room.
const COLUMNS: &str = "id, queue, key, attempts, alone, floor(extract(epoch FROM sent_at) * 1000)::bigint, \
    content_type, headers, CASE WHEN total = size OR total <= $3 THEN body END, dead_reason, \
    floor(extract(epoch FROM dead_at) * 1000)::bigint";

const READ: &str = "FROM (\
        SELECT it.*, size, sum(size) OVER (ORDER BY nr) AS total \
        FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (wanted, nr) \
        JOIN wrun.messages AS it ON it.id = wanted AND it.queue = $1, \
        LATERAL (SELECT octet_length(body) + coalesce(octet_length(headers), 0) AS size) AS sized) AS sized";

const PEEK: &str = "FROM (\
        SELECT it.*, size, sum(size) OVER (ORDER BY id) AS total \
        FROM (SELECT * FROM wrun.messages WHERE queue = $1 ORDER BY id LIMIT $2) AS it, \
        LATERAL (SELECT octet_length(body) + coalesce(octet_length(headers), 0) AS size) AS sized) AS sized ORDER BY id";

const STATUS: &str = "\
    SELECT count(*), \
        count(*) FILTER (WHERE holder IS NULL AND NOT blocked AND due_at <= statement_timestamp()), \
        count(*) FILTER (WHERE holder IS NULL AND NOT blocked AND due_at > statement_timestamp()), \
        count(*) FILTER (WHERE holder IS NOT NULL), \
        (SELECT count(*) FROM wrun.messages WHERE queue = $2), \
        (SELECT floor(extract(epoch FROM clock_timestamp() - sent_at) * 1000)::bigint \
            FROM wrun.messages WHERE queue = $1 ORDER BY id LIMIT 1) \
    FROM (\
        SELECT holder, due_at, key IS NOT NULL AND (\
            EXISTS (SELECT FROM wrun.messages AS o WHERE o.queue = $1 AND o.key = it.key AND o.id < it.id) \
            OR EXISTS (SELECT FROM wrun.messages AS o WHERE o.queue = $1 AND o.key = it.key AND o.holder IS NOT NULL)\
        ) AS blocked \
        FROM wrun.messages AS it WHERE queue = $1) AS it";

const REDRIVE: &str = "\
    WITH back AS (UPDATE wrun.messages SET queue = $1, attempts = 0, alone = false, parked = false, holder = NULL, \
        due_at = statement_timestamp(), dead_reason = NULL, dead_at = NULL \
    WHERE id IN (SELECT id FROM wrun.messages WHERE queue = $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED) \
        RETURNING 1) \
    SELECT count(*) FROM back";

const PURGE: &str = "\
    WITH gone AS (DELETE FROM wrun.messages WHERE queue = $1 AND holder IS NULL RETURNING 1) \
    SELECT count(*) FROM gone";

/// It may take long if there are many.
const PATIENCE: &str = "SET LOCAL statement_timeout = '60s'";

impl Table {
    /// Reads messages with what they contain, as many as a batch has room for.
    pub(super) async fn read(&self, ids: &[i64]) -> Result<Found, DbError> {
        let sql = format!("SELECT {COLUMNS} {READ}");
        let most = BATCH_BYTES_MAX as i64;
        self.ask(async |client| {
            let values = [
                (&self.label as _, Type::TEXT),
                (&ids as _, Type::INT8_ARRAY),
                (&most as _, Type::INT8),
            ];
            let mut found: Found = ids.iter().map(|id| (*id, None)).collect();
            for row in client.query_typed(&sql, &values).await? {
                let id = row.try_get(0)?;
                match message(&row)? {
                    Some(message) => found.insert(id, Some(message)),
                    // It is there, and has no room.
                    None => found.remove(&id),
                };
            }
            Ok(found)
        })
        .await
    }

    /// Returns the oldest messages, or dead letters, as many as an answer has room for.
    pub(super) async fn peek(&self, dead: bool, count: u32) -> Result<Vec<StoredMessage>, DbError> {
        let sql = format!("SELECT {COLUMNS} {PEEK}");
        let (most, count) = (BATCH_BYTES_MAX as i64, i64::from(count.min(PEEK_MAX)));
        let rows = self.rows_of(dead);
        self.ask(async |client| {
            let values = [
                (&rows as _, Type::TEXT),
                (&count as _, Type::INT8),
                (&most as _, Type::INT8),
            ];
            let rows = client.query_typed(&sql, &values).await?;
            let fitting = rows.iter().map(message);
            let fitting: Vec<Option<_>> = fitting.collect::<Result<_, _>>()?;
            Ok(fitting.into_iter().map_while(|it| it).collect())
        })
        .await
    }

    pub(super) async fn status(&self) -> Result<QueueStatus, DbError> {
        let dead = self.rows_of(true);
        self.ask(async |client| {
            let values = [(&self.label as _, Type::TEXT), (&dead as _, Type::TEXT)];
            let rows = client.query_typed(STATUS, &values).await?;
            let column = |column| {
                let row = rows.first();
                let number = row.map_or(Ok(None), |row| row.try_get::<_, Option<i64>>(column));
                number.map(|it| it.unwrap_or(0).max(0).cast_unsigned())
            };
            Ok(QueueStatus {
                queue: self.label.clone(),
                messages: column(0)?,
                ready: column(1)?,
                delayed: column(2)?,
                in_flight: column(3)?,
                dead: column(4)?,
                consumers: 0,
                oldest_ms: column(5)?,
            })
        })
        .await
    }

    pub(super) async fn redrive(&self, count: u32) -> Result<u64, QueueError> {
        let room = self.count().await?;
        let limit = room.min(u64::from(count));
        if limit == 0 && count > 0 && self.status().await?.dead > 0 {
            return Err(QueueError::Full);
        }
        let (dead, limit) = (self.rows_of(true), limit.cast_signed());
        let moved = self
            .change(async |client| {
                let values = [
                    (&self.label as _, Type::TEXT),
                    (&dead as _, Type::TEXT),
                    (&limit as _, Type::INT8),
                ];
                number(&client.query_typed(REDRIVE, &values).await?)
            })
            .await?;
        self.room.take();
        self.ring();
        Ok(moved)
    }

    pub(super) async fn purge(&self, dead: bool) -> Result<u64, DbError> {
        let rows = self.rows_of(dead);
        // No claim is beside it: one could make messages wait for others that are gone.
        let begin = format!("{}; {PATIENCE}", self.lock());
        let removed = self
            .change(async |client| {
                let values = [(&rows as _, Type::TEXT)];
                let purge = client.query_typed(PURGE, &values);
                // In this order on their way, and together.
                let (begun, removed, ended) = join3(
                    client.batch_execute(&begin),
                    purge,
                    client.batch_execute("COMMIT"),
                )
                .await;
                begun?;
                let removed = number(&removed?)?;
                ended?;
                Ok(removed)
            })
            .await?;
        self.room.take();
        Ok(removed)
    }

    /// Returns what the rows of this queue, or of its dead letters, are marked with.
    fn rows_of(&self, dead: bool) -> String {
        let suffix = if dead { DEAD_SUFFIX } else { "" };
        format!("{}{suffix}", self.label)
    }
}

/// Returns the one number of a result.
pub(super) fn number(rows: &[Row]) -> Result<u64, Error> {
    let found = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0));
    found.map(i64::cast_unsigned)
}

/// Returns the message of a row of `COLUMNS`; `None` if it had no room.
fn message(row: &Row) -> Result<Option<StoredMessage>, Error> {
    let Some(body) = row.try_get::<_, Option<Vec<u8>>>(8)? else {
        return Ok(None);
    };
    let rows: String = row.try_get(1)?;
    let attempts = row.try_get::<_, i32>(3)?.cast_unsigned();
    let mut headers = headers_from_text(row.try_get(7)?);
    if let Some(reason) = row.try_get::<_, Option<String>>(9)? {
        let queue = rows.trim_end_matches(DEAD_SUFFIX);
        let at = row.try_get::<_, Option<i64>>(10)?.unwrap_or(0);
        add_dead_headers(&mut headers, (&reason, queue, attempts, at.cast_unsigned()));
    }
    Ok(Some(StoredMessage {
        stored: Stored {
            id: row.try_get(0)?,
            queue: rows,
            key: row.try_get(2)?,
            attempts,
            alone: row.try_get(4)?,
            ready_at_ms: 0,
            sent_at_ms: row.try_get::<_, i64>(5)?.cast_unsigned(),
        },
        content_type: row.try_get(6)?,
        headers,
        body,
    }))
}
