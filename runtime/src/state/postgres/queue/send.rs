//! How messages come into the queue: one statement for all that are sent together, which is a transaction of its own or
//! part of a guest's.

use super::{PostgresQueue, Table};
use crate::state::BoxFuture;
use crate::state::db::DbError;
use crate::state::postgres::Address;
use crate::state::postgres::connection::Connection;
use crate::state::queue::content::{headers_to_text, validate};
use crate::state::queue::{DEDUP_WINDOW, Message, QueueError};
use crate::state::remote::Fault;
use crate::state::remote::kept::KeptQueue;
use std::collections::HashMap;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

/// Adds messages, but for those whose dedup id is known. Returns an id for each, and whether it is the message's.
const INSERT: &str = "\
    WITH given AS MATERIALIZED (\
        SELECT nextval('wrun.message_ids') AS id, it.* \
        FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::text[]) \
        WITH ORDINALITY AS it (key, content_type, headers, body, delay, dedup_id, nr)), \
    fresh AS (\
        INSERT INTO wrun.dedup AS known (queue, dedup_id, message_id, at) \
        SELECT $1, dedup_id, id, clock_timestamp() FROM given WHERE dedup_id IS NOT NULL ORDER BY dedup_id \
        ON CONFLICT (queue, dedup_id) DO UPDATE SET message_id = excluded.message_id, at = excluded.at \
        WHERE known.at < clock_timestamp() - $8 * interval '1 second' RETURNING message_id), \
    added AS (\
        INSERT INTO wrun.messages (id, queue, key, content_type, headers, body, sent_at, due_at) \
        SELECT id, $1, key, content_type, headers, body, statement_timestamp(), \
            statement_timestamp() + delay * interval '1 millisecond' \
        FROM given WHERE dedup_id IS NULL OR id IN (SELECT message_id FROM fresh) RETURNING id) \
    SELECT given.id, added.id IS NOT NULL FROM given LEFT JOIN added USING (id) ORDER BY nr";

/// Returns the messages of dedup ids.
const FIND: &str =
    "SELECT dedup_id, message_id FROM wrun.dedup WHERE queue = $1 AND dedup_id = ANY($2)";

/// How often messages are sent anew whose dedup ids were forgotten between two looks.
const TRIES_MAX: u32 = 3;

/// Returns how long a dedup id is remembered, in seconds.
pub(super) fn window() -> f64 {
    DEDUP_WINDOW.as_secs_f64()
}

impl Table {
    /// Takes messages, all or none; they are durable then.
    pub(super) async fn send(&self, messages: &[Message]) -> Result<Vec<String>, QueueError> {
        validate(messages)?;
        self.admit(messages).await?;
        for _ in 0..TRIES_MAX {
            let sent = self
                .change(async |client| insert(client, &self.label, messages).await)
                .await?;
            if let Some(ids) = sent {
                self.ring();
                return Ok(ids.into_iter().map(|id| self.outside(id)).collect());
            }
        }
        let what = "the message that was sent before is gone meanwhile, send it again";
        Err(QueueError::Unavailable(what.to_owned()))
    }
}

impl KeptQueue<Address> for PostgresQueue {
    fn admit<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move {
            validate(messages)?;
            self.table.admit(messages).await
        })
    }

    fn insert<'a>(
        &'a self,
        on: &'a Connection,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<Vec<String>, Fault>> {
        Box::pin(async move {
            match insert(&on.client, &self.table.label, messages).await? {
                Some(ids) => Ok(ids.into_iter().map(|id| self.table.outside(id)).collect()),
                None => {
                    let what = "the message that was sent before is gone meanwhile";
                    Err(DbError::Unavailable(what.to_owned()).into())
                }
            }
        })
    }

    fn committed(&self) {
        self.table.ring();
    }
}

/// Adds messages; `None` if one that was sent before is gone meanwhile.
async fn insert(
    client: &Client,
    queue: &str,
    messages: &[Message],
) -> Result<Option<Vec<i64>>, Error> {
    let (distinct, of) = distinct(messages);
    let sent = send_distinct(client, queue, &distinct).await?;
    let Some(ids) = sent else { return Ok(None) };
    Ok(Some(of.into_iter().map(|at| ids[at]).collect()))
}

/// Returns the first messages of each dedup id, and for every message which of them it is.
fn distinct<'a>(messages: &'a [Message]) -> (Vec<&'a Message>, Vec<usize>) {
    let (mut distinct, mut known) = (Vec::new(), HashMap::new());
    let place = |message: &'a Message| {
        let next = distinct.len();
        let at = match message.dedup_id.as_deref() {
            Some(id) => *known.entry(id).or_insert(next),
            None => next,
        };
        if at == next {
            distinct.push(message);
        }
        at
    };
    let of = messages.iter().map(place).collect();
    (distinct, of)
}

async fn send_distinct(
    client: &Client,
    queue: &str,
    messages: &[&Message],
) -> Result<Option<Vec<i64>>, Error> {
    let keys: Vec<_> = messages.iter().map(|it| it.key.as_deref()).collect();
    let types: Vec<_> = messages
        .iter()
        .map(|it| it.content_type.as_deref())
        .collect();
    let headers: Vec<_> = messages
        .iter()
        .map(|it| headers_to_text(&it.headers))
        .collect();
    let bodies: Vec<&[u8]> = messages.iter().map(|it| &*it.body).collect();
    let delays: Vec<_> = messages
        .iter()
        .map(|it| it.delay_ms.unwrap_or(0).cast_signed())
        .collect();
    let dedup_ids: Vec<_> = messages.iter().map(|it| it.dedup_id.as_deref()).collect();
    let window = window();
    let values = [
        (&queue as _, Type::TEXT),
        (&keys as _, Type::TEXT_ARRAY),
        (&types as _, Type::TEXT_ARRAY),
        (&headers as _, Type::TEXT_ARRAY),
        (&bodies as _, Type::BYTEA_ARRAY),
        (&delays as _, Type::INT8_ARRAY),
        (&dedup_ids as _, Type::TEXT_ARRAY),
        (&window as _, Type::FLOAT8),
    ];
    let mut ids = Vec::with_capacity(messages.len());
    let mut is_new = Vec::with_capacity(messages.len());
    for row in client.query_typed(INSERT, &values).await? {
        ids.push(row.try_get::<_, i64>(0)?);
        is_new.push(row.try_get::<_, bool>(1)?);
    }
    if is_new.iter().all(|is_new| *is_new) {
        return Ok(Some(ids));
    }
    let values = [
        (&queue as _, Type::TEXT),
        (&dedup_ids as _, Type::TEXT_ARRAY),
    ];
    let mut known = HashMap::new();
    for row in client.query_typed(FIND, &values).await? {
        known.insert(row.try_get::<_, String>(0)?, row.try_get::<_, i64>(1)?);
    }
    for ((id, dedup_id), is_new) in ids.iter_mut().zip(dedup_ids).zip(is_new) {
        if !is_new {
            let Some(first) = dedup_id.and_then(|it| known.get(it)) else {
                return Ok(None);
            };
            *id = *first;
        }
    }
    Ok(Some(ids))
}
