//! Messages of queues as rows of the database that the queue lives in.
//!
//! Says nothing about who gets a message and when (`queue::lanes` does) nor how many there may be (`queues` does). Every
//! function runs inside of the caller's transaction.

use super::statement::Statements;
use crate::state::db::DbError;
use crate::state::db::RESULT_MAX;
use crate::state::queue::content::{Headers, headers_from_text, headers_to_text};
use crate::state::queue::stored::{Stored, StoredMessage};
use crate::state::queue::{DEDUP_WINDOW, Message};
use rusqlite::{OptionalExtension, Row, params};

/// How many old dedup ids go for every new one: more than one, so that they get fewer.
const PRUNED: i64 = 2;

/// Returns the id of a message as the outside knows it.
pub(super) fn external_id(label: &str, id: i64) -> String {
    format!("{label}-{id}")
}

/// Returns the message that was sent with the same dedup id a short time ago.
pub(super) fn find_duplicate(
    statements: &Statements<'_>,
    queue: &str,
    message: &Message,
    now: u64,
) -> Result<Option<i64>, DbError> {
    let Some(dedup_id) = &message.dedup_id else {
        return Ok(None);
    };
    let window = u64::try_from(DEDUP_WINDOW.as_millis()).unwrap_or(u64::MAX);
    let oldest = now.saturating_sub(window).cast_signed();
    // Rows are in the order in which they were noted, so the oldest are the first.
    statements.execute(
        "DELETE FROM _wrun_dedup WHERE at < ?1
         AND rowid IN (SELECT rowid FROM _wrun_dedup ORDER BY rowid LIMIT ?2)",
        [oldest, PRUNED],
    )?;
    statements.execute(
        "DELETE FROM _wrun_dedup WHERE queue = ?1 AND dedup_id = ?2 AND at < ?3",
        params![queue, dedup_id, oldest],
    )?;
    statements
        .own("SELECT message_id FROM _wrun_dedup WHERE queue = ?1 AND dedup_id = ?2")?
        .query_row([queue, dedup_id], |row| row.get(0))
        .optional()
        .map_err(|error| statements.error(&error))
}

/// Adds a message to a queue.
pub(super) fn insert(
    statements: &Statements<'_>,
    queue: &str,
    message: &Message,
    now: u64,
) -> Result<Stored, DbError> {
    let ready_at_ms = now.saturating_add(message.delay_ms.unwrap_or(0));
    let id = statements
        .own(
            "INSERT INTO _wrun_message (queue, key, attempts, alone, ready_at, sent_at, content_type, headers, body)
             VALUES (?1, ?2, 0, 0, ?3, ?4, ?5, ?6, ?7)",
        )?
        .insert(params![
            queue,
            message.key,
            ready_at_ms.cast_signed(),
            now.cast_signed(),
            message.content_type,
            headers_to_text(&message.headers),
            message.body,
        ])
        .map_err(|error| statements.error(&error))?;
    if let Some(dedup_id) = &message.dedup_id {
        statements.execute(
            "INSERT INTO _wrun_dedup (queue, dedup_id, message_id, at) VALUES (?1, ?2, ?3, ?4)",
            params![queue, dedup_id, id, now.cast_signed()],
        )?;
    }
    Ok(Stored {
        id,
        queue: queue.to_owned(),
        key: message.key.clone(),
        attempts: 0,
        alone: false,
        ready_at_ms,
        sent_at_ms: now,
    })
}

/// Removes a message of a queue; returns how many that were.
pub(super) fn delete(statements: &Statements<'_>, queue: &str, id: i64) -> Result<i64, DbError> {
    let removed = statements.execute(
        "DELETE FROM _wrun_message WHERE id = ?1 AND queue = ?2",
        params![id, queue],
    )?;
    Ok(count(removed))
}

/// Removes all messages of a queue; returns how many that were.
pub(super) fn delete_all(statements: &Statements<'_>, queue: &str) -> Result<i64, DbError> {
    let removed = statements.execute("DELETE FROM _wrun_message WHERE queue = ?1", [queue])?;
    Ok(count(removed))
}

/// Writes down that a message of a queue is handled again.
pub(super) fn retry(
    statements: &Statements<'_>,
    queue: &str,
    id: i64,
    (attempts, ready_at_ms, alone): (u32, u64, bool),
) -> Result<(), DbError> {
    statements
        .execute(
            "UPDATE _wrun_message SET attempts = ?3, ready_at = ?4, alone = ?5 WHERE id = ?1 AND queue = ?2",
            params![id, queue, attempts, ready_at_ms.cast_signed(), alone],
        )
        .map(drop)
}

/// Writes down that a message has moved, to what it now is.
pub(super) fn update(
    statements: &Statements<'_>,
    stored: &Stored,
    headers: &[(String, String)],
) -> Result<(), DbError> {
    statements
        .execute(
            "UPDATE _wrun_message SET queue = ?2, attempts = ?3, alone = ?4, ready_at = ?5, headers = ?6 WHERE id = ?1",
            params![
                stored.id,
                stored.queue,
                stored.attempts,
                stored.alone,
                stored.ready_at_ms.cast_signed(),
                headers_to_text(headers)
            ],
        )
        .map(drop)
}

/// Returns a message of a queue with its headers, if it is there.
pub(super) fn find(
    statements: &Statements<'_>,
    queue: &str,
    id: i64,
) -> Result<Option<(Stored, Headers)>, DbError> {
    statements
        .own(
            "SELECT id, queue, key, attempts, alone, ready_at, sent_at, headers
             FROM _wrun_message WHERE id = ?1 AND queue = ?2",
        )?
        .query_row(params![id, queue], read_with_headers)
        .optional()
        .map_err(|error| statements.error(&error))
}

/// Returns the first messages of a queue with their headers.
pub(super) fn first(
    statements: &Statements<'_>,
    queue: &str,
    limit: u64,
) -> Result<Vec<(Stored, Headers)>, DbError> {
    statements
        .own(
            "SELECT id, queue, key, attempts, alone, ready_at, sent_at, headers
             FROM _wrun_message WHERE queue = ?1 ORDER BY id LIMIT ?2",
        )?
        .query_map(params![queue, limit.cast_signed()], read_with_headers)
        .and_then(Iterator::collect)
        .map_err(|error| statements.error(&error))
}

/// Returns every message by id, without its content.
pub(super) fn load(statements: &Statements<'_>) -> Result<Vec<Stored>, DbError> {
    statements
        .own("SELECT id, queue, key, attempts, alone, ready_at, sent_at FROM _wrun_message ORDER BY id")?
        .query_map([], read_stored)
        .and_then(Iterator::collect)
        .map_err(|error| statements.error(&error))
}

/// Returns those of these messages that are there, in this order.
pub(super) fn read(
    statements: &Statements<'_>,
    ids: &[i64],
) -> Result<Vec<StoredMessage>, DbError> {
    let mut statement = statements.own(
        "SELECT id, queue, key, attempts, alone, ready_at, sent_at, content_type, headers, body
         FROM _wrun_message WHERE id = ?1",
    )?;
    let mut messages = Vec::with_capacity(ids.len());
    for id in ids {
        let found = statement.query_row([id], read_message).optional();
        messages.extend(found.map_err(|error| statements.error(&error))?);
    }
    Ok(messages)
}

/// Returns the first messages of a queue with their content, as many as a result may hold.
pub(super) fn peek(
    statements: &Statements<'_>,
    queue: &str,
    limit: u32,
) -> Result<Vec<StoredMessage>, DbError> {
    let mut messages = Vec::new();
    let mut room = RESULT_MAX;
    for (stored, headers) in first(statements, queue, u64::from(limit))? {
        let Some(message) = read(statements, &[stored.id])?.pop() else {
            continue;
        };
        let headers: usize = headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        match room.checked_sub(message.body.len() + headers) {
            None => break,
            Some(left) => room = left,
        }
        messages.push(message);
    }
    Ok(messages)
}

fn read_stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: row.get(0)?,
        queue: row.get(1)?,
        key: row.get(2)?,
        attempts: row.get(3)?,
        alone: row.get(4)?,
        ready_at_ms: row.get::<_, i64>(5)?.cast_unsigned(),
        sent_at_ms: row.get::<_, i64>(6)?.cast_unsigned(),
    })
}

fn read_with_headers(row: &Row<'_>) -> rusqlite::Result<(Stored, Headers)> {
    Ok((
        read_stored(row)?,
        headers_from_text(row.get_ref(7)?.as_str_or_null()?),
    ))
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        stored: read_stored(row)?,
        content_type: row.get(7)?,
        headers: headers_from_text(row.get_ref(8)?.as_str_or_null()?),
        body: row.get(9)?,
    })
}

pub(super) fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
