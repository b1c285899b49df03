//! By what right a server holds messages: a lease that it renews, by the server's clock. When it has run out, any other one
//! gives back what was held by it.

use super::Store;
use crate::state::queue::sharing::LEASE;
use crate::state::redis::line::Failed;

/// Begins a lease, after what other holders of the same server hold is given back as if it had never been handed out: a state
/// process was replaced, or ends. ARGV: the holder or nothing, the lease in microseconds, what that server's holders begin
/// with. Returns how many messages were given back. What is removed first is never there.
pub(super) const HOLD: &str = r"
local gone = {}
call('ZREM', LEASES, '')
for _, holder in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    if holder:sub(1, #ARGV[3]) == ARGV[3] then
        gone[holder] = true
        call('ZREM', LEASES, holder)
    end
end
local back = next(gone) and give_back(function(holder) return gone[holder] end, false) or 0
if ARGV[1] ~= '' then call('ZADD', LEASES, text(now + ARGV[2]), ARGV[1]) end
return back
";

/// Renews a lease. ARGV: the holder, the lease in microseconds. Returns whether it was there: however old it is it is good, for
/// whoever gives back what it holds removes it. It is removed first so that it is renewed also when memory is short.
pub(super) const RENEW: &str = r"
if call('ZREM', LEASES, ARGV[1]) == 0 then return 0 end
call('ZADD', LEASES, text(now + ARGV[2]), ARGV[1])
return 1
";

/// What a server held that is gone comes to others, each message alone: one of them may be what ended it. Returns how many
/// servers are gone.
pub(super) const REAP: &str = r"
local over = call('ZRANGEBYSCORE', LEASES, '-inf', text(now))
if #over == 0 then return 0 end
local gone = {}
for _, holder in ipairs(over) do
    gone[holder] = true
    call('ZREM', LEASES, holder)
end
give_back(function(holder) return gone[holder] end, true)
return #over
";

/// Gives back what a holder does not know that it has, and what is held without a lease. ARGV: the holder, the messages that
/// it knows. Returns how many there were.
pub(super) const SWEEP: &str = r"
local known = {}
for i = 2, #ARGV do known[ARGV[i]] = true end
return give_back(function(holder, id)
    if holder == ARGV[1] then return not known[id] end
    return not call('ZSCORE', LEASES, holder)
end, false)
";

/// A lease in microseconds.
fn lease() -> u64 {
    LEASE.as_micros() as u64
}

impl Store {
    /// Begins a lease; returns the name to hold messages by, which is no other one's.
    pub(super) async fn hold(&self) -> Result<String, Failed> {
        let random = getrandom::u64().map_err(|error| Failed::Refused(error.to_string()))?;
        let holder = format!("{}{random:016x}", self.server);
        self.begin(&holder).await?;
        Ok(holder)
    }

    /// Gives back what this server holds.
    pub(super) async fn release(&self) -> Result<(), Failed> {
        self.begin("").await
    }

    async fn begin(&self, holder: &str) -> Result<(), Failed> {
        let mut hold = self.invoke(&self.scripts.hold);
        hold.arg(holder).arg(lease()).arg(&self.server);
        self.line.ask::<u64>(&hold).await.map(drop)
    }

    /// Renews the lease; false if it was over.
    pub(super) async fn renew(&self, holder: &str) -> Result<bool, Failed> {
        let mut renew = self.invoke(&self.scripts.renew);
        renew.arg(holder).arg(lease());
        self.line.ask(&renew).await
    }

    /// Gives back what servers hold whose leases are over; tells whether there were any.
    pub(super) async fn reap(&self) -> Result<bool, Failed> {
        let reap = self.invoke(&self.scripts.reap);
        Ok(self.line.ask::<u64>(&reap).await? > 0)
    }

    /// Gives back what is held here and not known: the answer to its claim did not come. Tells whether there was any.
    pub(super) async fn sweep(&self, holder: &str, known: &[i64]) -> Result<bool, Failed> {
        let mut sweep = self.invoke(&self.scripts.sweep);
        sweep.arg(holder).arg(known);
        Ok(self.line.ask::<u64>(&sweep).await? > 0)
    }
}
