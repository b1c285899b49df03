//! What is done in the server at one stroke, as Lua.
//!
//! All keys of a space have its label in braces, so that a cluster keeps them in one slot.

use redis::Script;

/// Takes locks unless one of them is taken. KEYS: the fence, who is next, this server's locks, the locks. ARGV: the owner,
/// the lease in ms, this server, whether it waits, for how many ms it is next then. Returns the token, or 0 and how long
/// the longest lease goes on.
///
/// A token is higher than the one before and than the clock of earlier, so that it also is when the server has lost the
/// one before. Who finds a single lock taken notes itself as next for a moment, so that the one who had it before, whose
/// next request is here first, does not have it always.
const ACQUIRE: &str = r"
local left = -2
for i = 4, #KEYS do left = math.max(left, redis.call('PTTL', KEYS[i])) end
local is_fair = #KEYS == 4 and ARGV[4] == '1'
if left ~= -2 then
    if is_fair then redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[5]) end
    return {0, left}
end
if is_fair then
    local following = redis.call('GET', KEYS[2])
    if following and following ~= ARGV[3] then return {0, -2} end
    if following then redis.call('DEL', KEYS[2]) end
end
local now = redis.call('TIME')
local token = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1, now[1] * 1000000 + now[2])
redis.call('SET', KEYS[1], string.format('%.0f', token))
for i = 4, #KEYS do
    redis.call('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2])
    redis.call('SADD', KEYS[3], KEYS[i])
end
redis.call('EXPIRE', KEYS[3], 172800)
return {token, 0}
";

/// Notes a token that is higher than this server's own, because another one has given it out; only while all locks are the
/// owner's. KEYS: the fence, the locks. ARGV: the owner, the token. Returns whether they all were its.
const RAISE: &str = r"
for i = 2, #KEYS do
    if redis.call('GET', KEYS[i]) ~= ARGV[1] then return 0 end
end
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[2]) end
return 1
";

/// Makes locks last for so long from now. KEYS: the locks. ARGV: the owner, ms. Returns 1 if they all were its, -1 if there
/// is none of them, and 0 if it is neither.
const EXTEND: &str = r"
local missing = 0
for i = 1, #KEYS do
    local owner = redis.call('GET', KEYS[i])
    if not owner then missing = missing + 1
    elseif owner ~= ARGV[1] then return 0 end
end
if missing == #KEYS then return -1 end
if missing > 0 then return 0 end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 1
";

/// Puts locks back that a majority of others has, unless there is one of them. KEYS: this server's locks, the locks. ARGV:
/// the owner, ms. Returns whether they are back.
const RESTORE: &str = r"
for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
for i = 2, #KEYS do
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
    redis.call('SADD', KEYS[1], KEYS[i])
end
return 1
";

/// Releases what is the owner's, and tells those who wait. KEYS: this server's locks, the locks. ARGV: the owner, the
/// channel. Returns how many were its.
const RELEASE: &str = r"
local count = 0
for i = 2, #KEYS do
    redis.call('SREM', KEYS[1], KEYS[i])
    if redis.call('GET', KEYS[i]) == ARGV[1] then
        redis.call('DEL', KEYS[i])
        redis.call('PUBLISH', ARGV[2], KEYS[i])
        count = count + 1
    end
end
return count
";

/// Releases what an earlier state process of this server left behind. KEYS: this server's locks. ARGV: what its owners
/// begin with, what those of now begin with, the channel. Returns how many there were.
const SWEEP: &str = r"
local count = 0
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    local owner = redis.call('GET', key) or ''
    if owner:sub(1, #ARGV[2]) ~= ARGV[2] then
        redis.call('SREM', KEYS[1], key)
        if owner:sub(1, #ARGV[1]) == ARGV[1] then
            redis.call('DEL', key)
            redis.call('PUBLISH', ARGV[3], key)
            count = count + 1
        end
    end
end
return count
";

/// All of them.
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) raise: Script,
    pub(super) extend: Script,
    pub(super) restore: Script,
    pub(super) release: Script,
    pub(super) sweep: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            acquire: Script::new(ACQUIRE),
            raise: Script::new(RAISE),
            extend: Script::new(EXTEND),
            restore: Script::new(RESTORE),
            release: Script::new(RELEASE),
            sweep: Script::new(SWEEP),
        }
    }
}

impl Scripts {
    pub(super) fn all(&self) -> Vec<Script> {
        let Self {
            acquire,
            raise,
            extend,
            restore,
            release,
            sweep,
        } = self;
        [acquire, raise, extend, restore, release, sweep]
            .map(Clone::clone)
            .into()
    }
}
