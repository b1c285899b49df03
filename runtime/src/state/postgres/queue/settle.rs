//! What became of messages that are held here, several at a time in one statement: durable once it has run.

use super::Table;
use crate::state::db::DbError;
use crate::state::queue::content::shorten;
use crate::state::queue::stored::Change;
use crate::state::wall_ms;
use tokio_postgres::types::Type;

/// Passes over what is not held here any more; but what was handled is removed also if its claim was lost in a crash of the
/// server, and nobody else has it. Returns the keys, and which of them were given back.
const SETTLE: &str = "\
    WITH removed AS (\
        DELETE FROM wrun.messages WHERE id = ANY($3) AND queue = $1 AND (holder = $2 OR holder IS NULL) RETURNING key), \
    again AS (\
        UPDATE wrun.messages AS it SET holder = NULL, attempts = c.attempts, alone = c.alone, \
            due_at = statement_timestamp() + c.pause * interval '1 millisecond' \
        FROM unnest($4::bigint[], $5::int[], $6::boolean[], $7::bigint[]) AS c (id, attempts, alone, pause) \
        WHERE it.id = c.id AND it.queue = $1 AND it.holder = $2 RETURNING it.key), \
    dead AS (\
        UPDATE wrun.messages AS it SET holder = NULL, queue = $1 || '.dead', attempts = c.attempts, alone = false, \
            dead_reason = c.reason, dead_at = clock_timestamp() \
        FROM unnest($8::bigint[], $9::int[], $10::text[]) AS c (id, attempts, reason) \
        WHERE it.id = c.id AND it.queue = $1 AND it.holder = $2 RETURNING it.key) \
    SELECT key, false FROM removed UNION ALL SELECT key, true FROM again UNION ALL SELECT key, false FROM dead";

/// Changes by their kinds, as columns.
#[derive(Default)]
struct Columns {
    removed: Vec<i64>,
    again: Vec<i64>,
    again_attempts: Vec<i32>,
    again_alone: Vec<bool>,
    /// How long until then, so that only the server's clock counts.
    again_pauses: Vec<i64>,
    dead: Vec<i64>,
    dead_attempts: Vec<i32>,
    dead_reasons: Vec<String>,
}

impl Columns {
    fn of(changes: &[Change]) -> Self {
        let mut columns = Self::default();
        let now = wall_ms();
        for change in changes {
            match change {
                Change::Remove { id } => columns.removed.push(*id),
                Change::Retry {
                    id,
                    attempts,
                    ready_at_ms,
                    alone,
                } => {
                    columns.again.push(*id);
                    columns.again_attempts.push(attempts.cast_signed());
                    columns.again_alone.push(*alone);
                    let pause = ready_at_ms.saturating_sub(now);
                    columns.again_pauses.push(pause.cast_signed());
                }
                Change::Dead {
                    id,
                    attempts,
                    reason,
                } => {
                    columns.dead.push(*id);
                    columns.dead_attempts.push(attempts.cast_signed());
                    // PostgreSQL's text knows no NUL.
                    let reason = shorten(reason).replace('\0', "\u{fffd}");
                    columns.dead_reasons.push(reason);
                }
            }
        }
        columns
    }
}

impl Table {
    /// Writes down what became of messages.
    pub(super) async fn write(&self, changes: &[Change]) -> Result<(), DbError> {
        let Some(holder) = self.holder.get() else {
            // None of them is this server's any more.
            return Ok(());
        };
        let columns = Columns::of(changes);
        let settled = self
            .ask(async |client| {
                let values = [
                    (&self.label as _, Type::TEXT),
                    (&holder as _, Type::INT8),
                    (&columns.removed as _, Type::INT8_ARRAY),
                    (&columns.again as _, Type::INT8_ARRAY),
                    (&columns.again_attempts as _, Type::INT4_ARRAY),
                    (&columns.again_alone as _, Type::BOOL_ARRAY),
                    (&columns.again_pauses as _, Type::INT8_ARRAY),
                    (&columns.dead as _, Type::INT8_ARRAY),
                    (&columns.dead_attempts as _, Type::INT4_ARRAY),
                    (&columns.dead_reasons as _, Type::TEXT_ARRAY),
                ];
                let mut settled = Vec::new();
                for row in client.query_typed(SETTLE, &values).await? {
                    let key = row.try_get::<_, Option<String>>(0)?;
                    settled.push((key, row.try_get::<_, bool>(1)?));
                }
                Ok(settled)
            })
            .await?;
        let gone = settled.iter().filter(|(_, is_back)| !is_back).count();
        self.room.borrow_mut().add(gone as u64);
        let all_gone = gone == settled.len();
        let mut freed = self.freed.borrow_mut();
        let before = freed.len();
        freed.extend(settled.into_iter().filter_map(|(key, _)| key));
        if !all_gone || freed.len() > before {
            self.ring();
        }
        Ok(())
    }
}
