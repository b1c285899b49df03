//! What became of messages that are held here, several at a time in one script.

use super::Store;
use crate::state::queue::content::shorten;
use crate::state::queue::stored::Change;
use crate::state::redis::line::Failed;
use crate::state::wall_ms;

/// Passes over what is not held by that claim any more; but what was handled is removed also if nobody holds it: its claim was
/// lost in a crash of the server, or its lease is over. ARGV: the holder; then for each message what became of it, its id,
/// the number of its claim, its tries, whether it goes alone, and the pause in ms or why it is dead. Returns how many
/// messages can be claimed now that could not be before.
pub(super) const SETTLE: &str = r"
for i = 2, #ARGV, 6 do
    local what, id = ARGV[i], ARGV[i + 1]
    local it, held = get(id), call('HGET', HELD, id)
    local is_own = held == ARGV[1] .. ' ' .. ARGV[i + 2]
    if it and is_own and what == 'again' then
        it.attempts, it.alone, it.due = ARGV[i + 3], ARGV[i + 4], text(now + ARGV[i + 5] * 1000)
        come_back(id, it)
    elseif it and is_own and what == 'dead' then
        take_out(id, it)
        it.attempts, it.alone = ARGV[i + 3], '0'
        put(id, it)
        call('ZADD', DEAD, id, id)
        call('HSET', REASONS, id, text(math.floor(now / 1000)) .. ' ' .. ARGV[i + 5])
    elseif it and what == 'done' and (is_own or not held and call('ZSCORE', LIVE, id)) then
        take_out(id, it)
        forget(id)
    end
end
return opened
";

impl Store {
    /// Writes down what became of messages.
    pub(super) async fn write(&self, changes: &[Change]) -> Result<(), Failed> {
        let Some(holder) = self.holder.borrow().clone() else {
            // None of them is this server's any more.
            return Ok(());
        };
        let mut settle = self.invoke(&self.scripts.settle);
        settle.arg(holder);
        let now = wall_ms();
        let numbers: Vec<(i64, u64)> = {
            let claims = self.claims.borrow();
            let number = |id| (id, claims.get(&id).copied().unwrap_or(0));
            changes.iter().map(|it| number(it.id())).collect()
        };
        for (change, (id, number)) in changes.iter().zip(&numbers) {
            let mut arg = |what: &str, attempts: u32, alone: bool| {
                settle.arg(what).arg(*id).arg(*number);
                settle.arg(attempts).arg(u8::from(alone));
            };
            match change {
                Change::Remove { .. } => {
                    arg("done", 0, false);
                    settle.arg(0);
                }
                Change::Retry {
                    attempts,
                    ready_at_ms,
                    alone,
                    ..
                } => {
                    arg("again", *attempts, *alone);
                    // How long until then, so that only the server's clock counts.
                    settle.arg(ready_at_ms.saturating_sub(now));
                }
                Change::Dead {
                    attempts, reason, ..
                } => {
                    arg("dead", *attempts, false);
                    settle.arg(shorten(reason));
                }
            }
        }
        let opened: u64 = self.line.ask(&settle).await?;
        let mut claims = self.claims.borrow_mut();
        for (id, number) in numbers {
            // Not if it was claimed again meanwhile.
            if claims.get(&id) == Some(&number) {
                claims.remove(&id);
            }
        }
        if opened > 0 {
            self.bell.ring();
        }
        Ok(())
    }
}
