//! Claims: how messages come to be held by one server, and keys keep their order.
//!
//! A message is taken if it is due, and of a key only the first: the others are not among those that are due until it is gone.
//! Each claim has a number, by which what became of its messages is told: what is told late, of a claim before, changes
//! nothing in one that came after it.

use super::Store;
use crate::state::queue::lanes::Entry;
use crate::state::queue::sharing::{CLAIM_MAX, LOOK_MAX};
use crate::state::redis::line::Failed;
use std::time::Duration;

/// Takes messages for a holder whose lease is good. ARGV: the holder, the claim's number, how many messages at most, how many
/// of them that go alone, how many to look at, the channel to tell on that some are left or nothing. Returns in how many
/// microseconds the next one is due, -1 if there is none and -2 if the lease is over; and what was taken.
pub(super) const CLAIM: &str = r"
if not call('ZSCORE', LEASES, ARGV[1]) then return {-2, {}} end
local most, alone = tonumber(ARGV[3]), tonumber(ARGV[4])
local taken = {}
if most > 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, ARGV[5])) do
        if #taken == most then break end
        local it = get(id)
        if not it then
            call('ZREM', DUE, id)
        elseif it.alone == '0' or alone > 0 then
            if it.alone == '1' then alone = alone - 1 end
            call('ZREM', DUE, id)
            call('HSET', HELD, id, ARGV[1] .. ' ' .. ARGV[2])
            taken[#taken + 1] = {id, it.attempts, it.alone, it.key or false}
        end
    end
end
local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
local left = first and math.max(first - now, 0) or -1
if first and ARGV[6] ~= '' then call('PUBLISH', ARGV[6], 'messages') end
return {left, taken}
";

/// There is no next message; and nobody may claim any.
const NONE: i64 = -1;
const LEASE_IS_OVER: i64 = -2;

/// What came of a claim.
pub(super) struct Claimed {
    pub(super) entries: Vec<Entry>,
    /// How long until there is something to claim; nothing if nobody can tell.
    pub(super) next: Option<Duration>,
}

/// A message as it was taken.
type Taken = (i64, u32, u32, Option<String>);

impl Store {
    /// Claims as many messages as are wanted, or some of them, and tells others that some are left; `None` if the lease is
    /// over.
    pub(super) async fn claim(&self, holder: &str, tells: bool) -> Result<Option<Claimed>, Failed> {
        let (messages, batches) = self.wanted.get();
        let most = messages.min(CLAIM_MAX);
        let number = self.last_claim.get() + 1;
        self.last_claim.set(number);
        let mut claim = self.invoke(&self.scripts.claim);
        claim.arg(holder).arg(number).arg(most);
        claim.arg(batches.min(CLAIM_MAX)).arg(most + LOOK_MAX);
        claim.arg(if tells { self.line.channel() } else { "" });
        let (next, taken): (i64, Vec<Taken>) = self.line.ask(&claim).await?;
        if next == LEASE_IS_OVER {
            return Ok(None);
        }
        let mut claims = self.claims.borrow_mut();
        let mut entries = Vec::with_capacity(taken.len());
        for (id, attempts, alone, key) in taken {
            claims.insert(id, number);
            entries.push(Entry {
                id,
                key,
                attempts,
                alone: alone == 1,
                ready_at: 0,
            });
        }
        let next = (next != NONE).then(|| Duration::from_micros(next.max(0).cast_unsigned()));
        Ok(Some(Claimed { entries, next }))
    }
}
