//! What operators change in the queue. Many messages are changed in steps, between which the server has time for others.

use super::Store;
use crate::state::queue::QueueError;

/// Sends dead letters back. ARGV: how many messages there may be, how many letters. Returns how many it were, or -1 if there
/// are some and no room for them.
pub(super) const REDRIVE: &str = r"
local room = math.max(ARGV[1] - call('ZCARD', LIVE), 0)
local count = math.min(room, tonumber(ARGV[2]))
if count == 0 then return call('ZCARD', DEAD) > 0 and -1 or 0 end
local ids = call('ZRANGE', DEAD, 0, count - 1)
for _, id in ipairs(ids) do
    local it = get(id)
    if it then
        it.attempts, it.alone, it.due = '0', '0', text(now)
        enter(id, it)
    end
    call('ZREM', DEAD, id)
    call('HDEL', REASONS, id)
end
return #ids
";

/// Deletes messages that nobody holds, or dead letters. ARGV: which of them, after which id, up to which id or nothing, how
/// many to look at. Returns how many were deleted, after which id to go on or nothing, and up to which.
pub(super) const PURGE: &str = r"
local is_dead, last = ARGV[1] == 'dead', ARGV[3]
if last == '' then last = call('GET', LAST) or '0' end
local removed, after = 0, ''
for _, id in ipairs(call('ZRANGEBYSCORE', is_dead and DEAD or LIVE, '(' .. ARGV[2], last, 'LIMIT', 0, ARGV[4])) do
    after = id
    if call('HEXISTS', HELD, id) == 0 then
        local it = get(id)
        if is_dead then
            call('ZREM', DEAD, id)
            call('HDEL', REASONS, id)
        elseif it then
            take_out(id, it)
        else
            call('ZREM', LIVE, id)
        end
        forget(id)
        removed = removed + 1
    end
end
return {removed, after, last}
";

/// Messages of one step.
const STEP: u64 = 1000;

impl Store {
    pub(super) async fn redrive(&self, count: u32) -> Result<u64, QueueError> {
        let (count, mut moved) = (u64::from(count), 0);
        while moved < count {
            let step = (count - moved).min(STEP);
            let mut redrive = self.invoke(&self.scripts.redrive);
            redrive.arg(self.max_depth.get()).arg(step);
            let asked = self.line.ask::<i64>(&redrive).await;
            let more = match asked.map_err(super::changed) {
                Ok(-1) if moved == 0 => return Err(QueueError::Full),
                Ok(more) => more.max(0).cast_unsigned(),
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            };
            moved += more;
            self.bell.ring();
            if more < step {
                break;
            }
        }
        Ok(moved)
    }

    pub(super) async fn purge(&self, dead: bool) -> Result<u64, QueueError> {
        let which = if dead { "dead" } else { "live" };
        let (mut removed, mut after, mut last) = (0, "0".to_owned(), String::new());
        loop {
            let mut purge = self.invoke(&self.scripts.purge);
            purge.arg(which).arg(&after).arg(&last).arg(STEP);
            let step: (u64, String, String) =
                self.line.ask(&purge).await.map_err(super::changed)?;
            removed += step.0;
            (after, last) = (step.1, step.2);
            if after.is_empty() {
                return Ok(removed);
            }
        }
    }
}
