//! Claims: how messages come to be held by one server, and keys keep their order.
//!
//! Claims of one queue are made one after the other, under an advisory lock, so that each sees what those before it did. A
//! message is taken if it is due and first of its key: no earlier one is there, and none is in flight. One that is not is
//! parked, so that later claims need not look at it again; once a message of its key was settled, the first that is left is
//! let out, under the same lock. So a claim looks at a message that waits behind others once, and not each time.
//!
//! A claim need not be durable: if it is lost in a crash of the server, the message is claimed again.

use super::Table;
use super::line::Line;
use crate::state::queue::lanes::Entry;
use crate::state::queue::sharing::{CLAIM_MAX, LOOK_MAX};
use futures_util::future::join5;
use std::time::Duration;
use tokio_postgres::{Client, Error, Row, Statement};

/// Lets out the first message of each key.
const LET_OUT: &str = "\
    UPDATE wrun.messages SET parked = false WHERE parked AND id IN (\
        SELECT (SELECT min(id) FROM wrun.messages WHERE queue = $1 AND key = freed.key) \
        FROM unnest($2::text[]) AS freed (key))";

/// Lets out the first message of each key of which one is parked: a server may have ended before it did.
const LET_ALL_OUT: &str = "\
    WITH RECURSIVE lane AS (\
        (SELECT key FROM wrun.messages WHERE queue = $1 AND parked ORDER BY key LIMIT 1) \
        UNION ALL \
        SELECT (SELECT key FROM wrun.messages WHERE queue = $1 AND parked AND key > lane.key ORDER BY key LIMIT 1) \
        FROM lane WHERE lane.key IS NOT NULL) \
    UPDATE wrun.messages SET parked = false WHERE parked AND id IN (\
        SELECT (SELECT min(id) FROM wrun.messages WHERE queue = $1 AND key = lane.key) FROM lane)";

/// Takes up to `$4` messages, of those that go alone up to `$5`, for a holder whose lease is good. Returns them, and how
/// many were parked.
const CLAIM: &str = "\
    WITH candidate AS MATERIALIZED (\
        SELECT id, key, alone, due_at FROM wrun.messages \
        WHERE queue = $1 AND holder IS NULL AND NOT parked AND due_at <= statement_timestamp() \
            AND EXISTS (SELECT FROM wrun.holders WHERE holder = $2) \
        ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED), \
    judged AS MATERIALIZED (\
        SELECT candidate.*, key IS NOT NULL AND (\
            EXISTS (SELECT FROM wrun.messages AS o WHERE o.queue = $1 AND o.key = candidate.key AND o.id < candidate.id) \
            OR EXISTS (SELECT FROM wrun.messages AS o WHERE o.queue = $1 AND o.key = candidate.key AND o.holder IS NOT NULL)\
        ) AS blocked FROM candidate), \
    parked AS (\
        UPDATE wrun.messages AS it SET parked = true FROM judged WHERE it.id = judged.id AND blocked RETURNING 1), \
    first AS (\
        SELECT id, row_number() OVER (ORDER BY due_at, id) AS nr, \
            CASE WHEN alone THEN row_number() OVER (PARTITION BY alone ORDER BY due_at, id) END AS nr_alone \
        FROM judged WHERE NOT blocked), \
    taken AS (\
        UPDATE wrun.messages AS it SET holder = $2 FROM first \
        WHERE it.id = first.id AND nr <= $4 AND coalesce(nr_alone <= $5, true) \
        RETURNING it.id, it.key, it.attempts, it.alone) \
    SELECT id, key, attempts, alone, NULL::bigint FROM taken \
    UNION ALL SELECT NULL, NULL, NULL, NULL, (SELECT count(*) FROM parked)";

/// Returns in how many milliseconds the next message is due that nobody holds; what is due already is zero. By its order: asked for
/// the least, PostgreSQL goes through all of them before it knows how many there are.
const NEXT: &str = "\
    SELECT ceil(greatest(extract(epoch FROM due_at - statement_timestamp()), 0) * 1000)::bigint \
    FROM wrun.messages WHERE queue = $1 AND holder IS NULL AND NOT parked ORDER BY due_at, id LIMIT 1";

/// The statements of one connection.
pub(super) struct Statements {
    let_out: Statement,
    let_all_out: Statement,
    claim: Statement,
    next: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            let_out: client.prepare(LET_OUT).await?,
            let_all_out: client.prepare(LET_ALL_OUT).await?,
            claim: client.prepare(CLAIM).await?,
            next: client.prepare(NEXT).await?,
        })
    }
}

/// What came of a claim.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) entries: Vec<Entry>,
    pub(super) parked: u64,
    /// How long until there is something to claim; nothing if nobody can tell.
    pub(super) next: Option<Duration>,
}

impl Line {
    /// Lets out what waits behind these keys, and claims as many messages as are wanted, or some of them.
    pub(super) async fn claim(
        &self,
        table: &Table,
        holder: i64,
        freed: &[String],
    ) -> Result<Claimed, Error> {
        let (messages, batches) = table.wanted.get();
        let most = messages.min(CLAIM_MAX);
        let looked_at = (if most == 0 { 0 } else { most + LOOK_MAX }).cast_signed();
        let (most, batches) = (most.cast_signed(), batches.min(CLAIM_MAX).cast_signed());
        let begin = format!("{}; SET LOCAL synchronous_commit = off", table.lock());
        let (client, own) = (&self.connection.client, &self.statements);
        // In this order on their way, and together: nobody who has the lock waits for this process.
        let (begun, let_out, claimed, next, ended) = join5(
            client.batch_execute(&begin),
            client.execute(&own.let_out, &[&table.label, &freed]),
            client.query(
                &own.claim,
                &[&table.label, &holder, &looked_at, &most, &batches],
            ),
            client.query(&own.next, &[&table.label]),
            client.batch_execute("COMMIT"),
        )
        .await;
        begun?;
        let_out?;
        let (claimed, next) = (claimed?, next?);
        ended?;
        let mut all = Claimed::default();
        for row in &claimed {
            all.take(row)?;
        }
        let ms = next.first().map_or(Ok(None), |row| row.try_get(0))?;
        all.next = ms.map(|ms: i64| Duration::from_millis(ms.max(0).cast_unsigned()));
        Ok(all)
    }

    /// Lets out what waits behind nothing.
    pub(super) async fn let_all_out(&self, table: &Table) -> Result<(), Error> {
        let client = &self.connection.client;
        let begin = table.lock();
        let (begun, let_out, ended) = futures_util::future::join3(
            client.batch_execute(&begin),
            client.execute(&self.statements.let_all_out, &[&table.label]),
            client.batch_execute("COMMIT"),
        )
        .await;
        begun?;
        let_out?;
        ended
    }
}

impl Claimed {
    fn take(&mut self, row: &Row) -> Result<(), Error> {
        match row.try_get(0)? {
            Some(id) => self.entries.push(Entry {
                id,
                key: row.try_get(1)?,
                attempts: row.try_get::<_, i32>(2)?.cast_unsigned(),
                alone: row.try_get(3)?,
                ready_at: 0,
            }),
            None => self.parked = row.try_get::<_, i64>(4)?.cast_unsigned(),
        }
        Ok(())
    }
}
