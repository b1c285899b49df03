//! The outbox of a database: a table, and advisory locks.

use super::connection::Connection;
use crate::state::outbox::{Letter, Waiting, lanes, size};
use crate::state::queue::Message;
use crate::state::queue::content::{headers_from_text, headers_to_text};
use crate::state::remote::Fault;
use crate::state::remote::outbox::Letters;
use futures_util::future::join;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

/// What the locks of lanes and of leads begin with; those of queues begin with a number before these.
const LANE: i32 = 2_003_989_871;
const LEAD: i32 = 2_003_989_872;

/// Waits for others that send messages of the same keys, one after the other. These locks end with the transaction, and only
/// when others see it.
const ENTER: &str = "SELECT pg_advisory_xact_lock($1, lane) FROM unnest($2::int[]) AS lane";

const PUT: &str = "INSERT INTO wrun.outbox (queue, key, content_type, headers, body, dedup_id, delay_ms, size) \
    SELECT $1, it.* FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::bigint[], $8::bigint[]) it";

const READ: &str = "SELECT id, key, content_type, headers, body, dedup_id, delay_ms, \
    (extract(epoch FROM clock_timestamp() - at) * 1000)::bigint FROM wrun.outbox WHERE id = ANY($1) ORDER BY id";

const LOOK: &str = "SELECT id, size FROM wrun.outbox WHERE queue = $1 ORDER BY id LIMIT $2";

const REMOVE: &str = "DELETE FROM wrun.outbox WHERE id = ANY($1)";

impl Connection {
    async fn one<T>(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<T, Fault>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let rows = self.client.query_typed(sql, values).await?;
        let first = rows.first().ok_or_else(empty)?;
        Ok(first.try_get(0)?)
    }

    async fn enter(&self, lanes: &[u32]) -> Result<(), Fault> {
        if lanes.is_empty() {
            return Ok(());
        }
        let lanes: Vec<i32> = lanes.iter().map(|lane| lane.cast_signed()).collect();
        let values = [(&LANE as _, Type::INT4), (&lanes as _, Type::INT4_ARRAY)];
        self.client.query_typed(ENTER, &values).await?;
        Ok(())
    }

    async fn add(&self, queue: &str, messages: &[Message]) -> Result<(), Fault> {
        let texts = |of: fn(&Message) -> Option<&str>| -> Vec<Option<&str>> {
            messages.iter().map(of).collect()
        };
        let keys = texts(|it| it.key.as_deref());
        let types = texts(|it| it.content_type.as_deref());
        let dedup_ids = texts(|it| it.dedup_id.as_deref());
        let headers: Vec<_> = messages
            .iter()
            .map(|it| headers_to_text(&it.headers))
            .collect();
        let bodies: Vec<&[u8]> = messages.iter().map(|it| &*it.body).collect();
        let delay = |it: &Message| it.delay_ms.unwrap_or(0).cast_signed();
        let delays: Vec<i64> = messages.iter().map(delay).collect();
        let sizes: Vec<i64> = messages.iter().map(size).collect();
        let values = [
            (&queue as _, Type::TEXT),
            (&keys as _, Type::TEXT_ARRAY),
            (&types as _, Type::TEXT_ARRAY),
            (&headers as _, Type::TEXT_ARRAY),
            (&bodies as _, Type::BYTEA_ARRAY),
            (&dedup_ids as _, Type::TEXT_ARRAY),
            (&delays as _, Type::INT8_ARRAY),
            (&sizes as _, Type::INT8_ARRAY),
        ];
        self.client.query_typed(PUT, &values).await?;
        Ok(())
    }
}

impl Letters for Connection {
    async fn put(&self, queue: &str, messages: &[Message]) -> Result<(), Fault> {
        let lanes = lanes(queue, messages);
        // In this order on their way, and together: the numbers are drawn when the locks are there.
        let (entered, added) = join(self.enter(&lanes), self.add(queue, messages)).await;
        entered?;
        added
    }

    async fn waits(&self, queue: &str) -> Result<bool, Fault> {
        let sql = "SELECT EXISTS (SELECT FROM wrun.outbox WHERE queue = $1)";
        self.one(sql, &[(&queue, Type::TEXT)]).await
    }

    async fn count(&self, queue: &str) -> Result<u64, Fault> {
        let sql = "SELECT count(*) FROM wrun.outbox WHERE queue = $1";
        let count: i64 = self.one(sql, &[(&queue, Type::TEXT)]).await?;
        Ok(count.cast_unsigned())
    }

    async fn lock(&self, queue: &str) -> Result<bool, Fault> {
        let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        self.one(sql, &[(&LEAD, Type::INT4), (&queue, Type::TEXT)])
            .await
    }

    async fn unlock(&self, queue: &str) -> Result<(), Fault> {
        let sql = "SELECT pg_advisory_unlock($1, hashtext($2))";
        let values = [(&LEAD as _, Type::INT4), (&queue as _, Type::TEXT)];
        self.one::<bool>(sql, &values).await.map(drop)
    }

    async fn look(&self, queue: &str, most: usize) -> Result<Vec<Waiting>, Fault> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let values = [(&queue as _, Type::TEXT), (&most as _, Type::INT8)];
        let rows = self.client.query_typed(LOOK, &values).await?;
        let waiting = |row: &Row| {
            Ok(Waiting {
                row: row.try_get(0)?,
                size: row.try_get::<_, i64>(1)?.cast_unsigned(),
            })
        };
        Ok(rows.iter().map(waiting).collect::<Result<_, Error>>()?)
    }

    async fn read(&self, rows: &[i64]) -> Result<Vec<Letter>, Fault> {
        let values = [(&rows as _, Type::INT8_ARRAY)];
        let found = self.client.query_typed(READ, &values).await?;
        Ok(found.iter().map(letter).collect::<Result<_, Error>>()?)
    }

    async fn remove(&self, rows: &[i64]) -> Result<(), Fault> {
        let values = [(&rows as _, Type::INT8_ARRAY)];
        self.client.query_typed(REMOVE, &values).await?;
        Ok(())
    }
}

fn letter(row: &Row) -> Result<Letter, Error> {
    let delay: i64 = row.try_get(6)?;
    let message = Message {
        key: row.try_get(1)?,
        content_type: row.try_get(2)?,
        headers: headers_from_text(row.try_get(3)?),
        body: row.try_get(4)?,
        dedup_id: row.try_get(5)?,
        delay_ms: (delay > 0).then_some(delay.cast_unsigned()),
    };
    Ok(Letter {
        row: row.try_get(0)?,
        message,
        age_ms: row.try_get::<_, i64>(7)?.max(0).cast_unsigned(),
    })
}

fn empty() -> Fault {
    let what = "PostgreSQL answered with no row";
    Fault::from(crate::state::db::DbError::Other(what.to_owned()))
}
