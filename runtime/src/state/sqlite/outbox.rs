//! The outbox of a database: rows that the writer adds, in order, as it adds everything.
//!
//! Nobody else has the file, so whoever asks has the lead. A reader sees commits before they are on the disk; what is sent
//! must be there, so the content is read by way of the writer, whose answers wait for that.

use super::Sqlite;
use super::messages::count;
use super::statement::Statements;
use super::ticket::Ticket;
use super::work::Manner;
use crate::state::BoxFuture;
use crate::state::db::{DbError, TX_TIME_MAX};
use crate::state::outbox::{Lead, Letter, Outbox, Waiting, check, size, stamp};
use crate::state::queue::content::{headers_from_text, headers_to_text};
use crate::state::queue::stored::Stored;
use crate::state::queue::{Message, QueueError};
use crate::state::wall_ms;
use rusqlite::{OptionalExtension as _, Row, params};
use std::future::ready;

/// What is done by way of the writer is on the disk when it is answered, whatever the database's durability is.
const DURABLE: Manner = Manner {
    atomic: false,
    durable: true,
};

/// Adds messages for a queue that is kept elsewhere, or some of them with an error: the caller undoes them. Returns their
/// ids, and notes in `stored` that there are some.
pub(super) fn put(
    statements: &Statements<'_>,
    queue: &str,
    messages: &[Message],
    stored: &mut Vec<Stored>,
) -> Result<Vec<String>, QueueError> {
    check(messages)?;
    let (stamped, ids) = stamp(messages)?;
    let now = wall_ms();
    for message in &stamped {
        let row = statements
            .own(
                "INSERT INTO _wrun_outbox (queue, key, content_type, headers, body, dedup_id, delay_ms, size, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .insert(params![
                queue,
                message.key,
                message.content_type,
                headers_to_text(&message.headers),
                message.body,
                message.dedup_id,
                message.delay_ms.unwrap_or(0).cast_signed(),
                size(message),
                now.cast_signed(),
            ])
            .map_err(|error| statements.error(&error))?;
        stored.push(Stored {
            id: row,
            queue: queue.to_owned(),
            key: message.key.clone(),
            attempts: 0,
            alone: false,
            ready_at_ms: now,
            sent_at_ms: now,
        });
    }
    Ok(ids)
}

impl Outbox for Sqlite {
    fn is_shared(&self) -> bool {
        false
    }

    fn waits(&self, queue: &str) -> BoxFuture<'static, Result<bool, DbError>> {
        let looked = look(self, queue, 1);
        Box::pin(async { looked.await.map(|waiting| !waiting.is_empty()) })
    }

    fn count(&self, queue: &str) -> BoxFuture<'static, Result<u64, DbError>> {
        let queue = queue.to_owned();
        self.read_own(move |statements| {
            let mut counted =
                statements.own("SELECT count(*) FROM _wrun_outbox WHERE queue = ?1")?;
            let count = counted.query_one([queue], |row| row.get::<_, i64>(0));
            let count = count.map_err(|error| statements.error(&error))?;
            Ok(count.cast_unsigned())
        })
    }

    fn lead(&self, queue: &str) -> BoxFuture<'static, Result<Option<Box<dyn Lead>>, DbError>> {
        let lead = Leading {
            sqlite: self.clone(),
            queue: queue.to_owned(),
        };
        Box::pin(ready(Ok(Some(Box::new(lead) as Box<dyn Lead>))))
    }
}

struct Leading {
    sqlite: Sqlite,
    queue: String,
}

impl Lead for Leading {
    fn look(&self, most: usize) -> BoxFuture<'_, Result<Vec<Waiting>, DbError>> {
        look(&self.sqlite, &self.queue, most)
    }

    fn read(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<Vec<Letter>, DbError>> {
        let ticket = Ticket::new(TX_TIME_MAX);
        self.sqlite.work(ticket, DURABLE, move |writer, _| {
            read(&writer.statements, &rows)
        })
    }

    fn remove(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<(), DbError>> {
        self.sqlite
            .work(Ticket::patient(), DURABLE, move |writer, _| {
                rows.iter().try_for_each(|row| {
                    let sql = "DELETE FROM _wrun_outbox WHERE id = ?1";
                    writer.statements.execute(sql, [row]).map(drop)
                })
            })
    }

    fn resign(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}

fn look(
    sqlite: &Sqlite,
    queue: &str,
    most: usize,
) -> BoxFuture<'static, Result<Vec<Waiting>, DbError>> {
    let queue = queue.to_owned();
    sqlite.read_own(move |statements| {
        let waiting = |row: &Row<'_>| {
            Ok(Waiting {
                row: row.get(0)?,
                size: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        };
        statements
            .own("SELECT id, size FROM _wrun_outbox WHERE queue = ?1 ORDER BY id LIMIT ?2")?
            .query_map(params![queue, count(most)], waiting)
            .and_then(Iterator::collect)
            .map_err(|error| statements.error(&error))
    })
}

fn read(statements: &Statements<'_>, rows: &[i64]) -> Result<Vec<Letter>, DbError> {
    let mut statement = statements.own(
        "SELECT id, key, content_type, headers, body, dedup_id, delay_ms, at FROM _wrun_outbox WHERE id = ?1",
    )?;
    let now = wall_ms();
    let mut letters = Vec::with_capacity(rows.len());
    for row in rows {
        let found = statement.query_row([row], |row| letter(row, now));
        letters.extend(found.optional().map_err(|error| statements.error(&error))?);
    }
    Ok(letters)
}

fn letter(row: &Row<'_>, now: u64) -> rusqlite::Result<Letter> {
    let delay = row.get::<_, i64>(6)?.cast_unsigned();
    Ok(Letter {
        row: row.get(0)?,
        message: Message {
            key: row.get(1)?,
            content_type: row.get(2)?,
            headers: headers_from_text(row.get_ref(3)?.as_str_or_null()?),
            body: row.get(4)?,
            dedup_id: row.get(5)?,
            delay_ms: (delay > 0).then_some(delay),
        },
        age_ms: now.saturating_sub(row.get::<_, i64>(7)?.cast_unsigned()),
    })
}
