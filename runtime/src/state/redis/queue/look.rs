//! What the queue looks like: how it stands, and what messages contain.

use super::Store;
use super::send::unpack;
use crate::state::queue::content::add_dead_headers;
use crate::state::queue::desk::{BATCH_BYTES_MAX, Found, PEEK_MAX};
use crate::state::queue::stored::{Stored, StoredMessage};
use crate::state::queue::{DEAD_SUFFIX, QueueStatus};
use crate::state::redis::line::Failed;

/// Returns messages with what they contain, the first ones, as far as all of them together have room. ARGV: the room in bytes,
/// which of them; then how many, or their ids.
pub(super) const LOOK: &str = r"
local ids = {}
if ARGV[2] == 'those' then
    for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
else
    ids = call('ZRANGE', ARGV[2] == 'dead' and DEAD or LIVE, 0, ARGV[3] - 1)
end
local found, total = {}, 0
for _, id in ipairs(ids) do
    total = total + call('HSTRLEN', CONTENT, id)
    if #found > 0 and total > tonumber(ARGV[1]) then break end
    local it = get(id)
    local reason = it and call('HGET', REASONS, id)
    if it then
        found[#found + 1] = {
            id, call('HGET', CONTENT, id), it.sent, it.attempts, it.alone, it.key or false, reason,
        }
    else
        found[#found + 1] = {id, false, '0', '0', '0', false, false}
    end
end
return found
";

/// Returns how many messages there are, are ready, are delayed, are held and are dead, and for how many ms the oldest one has
/// been there.
pub(super) const STATUS: &str = r"
local oldest = call('ZRANGE', LIVE, 0, 0)[1]
local it = oldest and get(oldest)
return {
    call('ZCARD', LIVE), call('ZCOUNT', DUE, '-inf', text(now)), call('ZCOUNT', DUE, '(' .. text(now), '+inf'),
    call('HLEN', HELD), call('ZCARD', DEAD), it and math.max(math.floor(now / 1000) - it.sent, 0) or 0,
}
";

/// Id, content, when it was sent, tries, whether it goes alone, key, why it is dead.
type Row = (
    i64,
    Option<Vec<u8>>,
    u64,
    u32,
    u32,
    Option<String>,
    Option<String>,
);

impl Store {
    /// Reads messages with what they contain, as many as a batch has room for.
    pub(super) async fn read(&self, ids: &[i64]) -> Result<Found, Failed> {
        let mut look = self.invoke(&self.scripts.look);
        look.arg(BATCH_BYTES_MAX).arg("those").arg(ids);
        let rows: Vec<Row> = self.line.ask(&look).await?;
        let found = rows.into_iter().map(|row| {
            let is_dead = row.6.is_some();
            (row.0, self.message(row).filter(|_| !is_dead))
        });
        Ok(found.collect())
    }

    /// Returns the oldest messages, or dead letters, as many as an answer has room for.
    pub(super) async fn peek(&self, dead: bool, count: u32) -> Result<Vec<StoredMessage>, Failed> {
        let mut look = self.invoke(&self.scripts.look);
        look.arg(BATCH_BYTES_MAX);
        look.arg(if dead { "dead" } else { "live" });
        look.arg(count.min(PEEK_MAX));
        if count == 0 {
            return Ok(Vec::new());
        }
        let rows: Vec<Row> = self.line.ask(&look).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| self.message(row))
            .collect())
    }

    pub(super) async fn status(&self) -> Result<QueueStatus, Failed> {
        let status = self.invoke(&self.scripts.status);
        let (messages, ready, delayed, in_flight, dead, oldest_ms) = self.line.ask(&status).await?;
        Ok(QueueStatus {
            queue: self.label.clone(),
            messages,
            ready,
            delayed,
            in_flight,
            dead,
            consumers: 0,
            oldest_ms,
        })
    }

    /// Returns the message of a row; `None` if it is gone.
    fn message(&self, row: Row) -> Option<StoredMessage> {
        let (id, content, sent_at_ms, attempts, alone, key, reason) = row;
        let (content_type, mut headers, body) = unpack(&content?);
        let mut queue = self.label.clone();
        if let Some((at, reason)) = reason.as_deref().and_then(|it| it.split_once(' ')) {
            let at = at.parse().unwrap_or(0);
            add_dead_headers(&mut headers, (reason, &self.label, attempts, at));
            queue += DEAD_SUFFIX;
        }
        Some(StoredMessage {
            stored: Stored {
                id,
                queue,
                key,
                attempts,
                alone: alone == 1,
                ready_at_ms: 0,
                sent_at_ms,
            },
            content_type,
            headers,
            body,
        })
    }
}
