//! What is done in the server at one stroke, as Lua: what all scripts begin with, and which there are.
//!
//! Each script stands beside what calls it. All are given the same names as KEYS, in the order of [`Names::all`], which have
//! the queue's label in braces, so that a cluster keeps them in one slot.
//!
//! A script is never undone halfway. So what takes up memory is written first where it may be refused for want of it, and
//! what has to be possible at all times begins with a removal: after its first write the server refuses a script nothing.

use super::{claim, lease, look, operate, send, settle};
use redis::Script;

/// What is known of a message is in `STATE`, what is in it in `CONTENT`. It is in `LIVE`, which keeps the order of sending,
/// until it is handled or dead. One that nobody holds and that no other goes before is in `DUE`; one that is held is in
/// `HELD`. Messages with keys are in `LANES`, too, as key, NUL, id; of each key `HEADS` has the one that is in `DUE` or
/// `HELD`, and the others are in neither. All ids have as many digits, so that they are in order as texts, too.
const PRELUDE: &str = r"
local CONTENT, STATE, LIVE, DUE, LANES, HEADS, HELD, LEASES, DEAD, REASONS, LAST = unpack(KEYS, 1, 11)
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local opened = 0

local function text(number) return string.format('%.0f', number) end

local function get(id)
    local state = call('HGET', STATE, id)
    if not state then return nil end
    local sent, due, attempts, alone, key = state:match('^(%d+) (%d+) (%d+) ([01])(.*)$')
    return {sent = sent, due = due, attempts = attempts, alone = alone, key = key ~= '' and key:sub(2) or nil}
end

local function put(id, it)
    local key = it.key and ' ' .. it.key or ''
    call('HSET', STATE, id, it.sent .. ' ' .. it.due .. ' ' .. it.attempts .. ' ' .. it.alone .. key)
end

local function open(id, it)
    opened = opened + call('ZADD', DUE, it.due, id)
end

local function let_out(key)
    local head = call('HGET', HEADS, key)
    if head and call('HEXISTS', HELD, head) == 1 then return end
    local first = call('ZRANGEBYLEX', LANES, '[' .. key .. '\0', '(' .. key .. '\1', 'LIMIT', 0, 1)[1]
    local id = first and first:sub(#key + 2)
    if head and head ~= id then call('ZREM', DUE, head) end
    local it = id and get(id)
    if it then
        call('HSET', HEADS, key, id)
        open(id, it)
    else
        call('HDEL', HEADS, key)
    end
end

local function enter(id, it)
    put(id, it)
    call('ZADD', LIVE, id, id)
    if it.key then
        call('ZADD', LANES, 0, it.key .. '\0' .. id)
        local head = call('HGET', HEADS, it.key)
        if not head or id < head then let_out(it.key) end
    else
        open(id, it)
    end
end

local function come_back(id, it)
    call('HDEL', HELD, id)
    put(id, it)
    if it.key then let_out(it.key) else open(id, it) end
end

local function take_out(id, it)
    call('HDEL', HELD, id)
    call('ZREM', DUE, id)
    call('ZREM', LIVE, id)
    if it.key then
        call('ZREM', LANES, it.key .. '\0' .. id)
        let_out(it.key)
    end
end

local function forget(id)
    call('HDEL', STATE, id)
    call('HDEL', CONTENT, id)
end

local function give_back(is_gone, is_try)
    local held, back = call('HGETALL', HELD), 0
    for i = 1, #held, 2 do
        local id, holder = held[i], held[i + 1]:match('^%S+')
        if is_gone(holder, id) then
            local it = get(id)
            if it and is_try then
                it.attempts, it.alone, it.due = text(it.attempts + 1), '1', text(now)
            end
            if it then come_back(id, it) else call('HDEL', HELD, id) end
            back = back + 1
        end
    end
    return back
end
";

/// What the queue's parts are called in the server.
pub(super) struct Names {
    label: String,
    all: Vec<String>,
}

impl Names {
    pub(super) fn new(label: &str) -> Self {
        let parts = [
            "content", "state", "live", "due", "lanes", "heads", "held", "leases", "dead",
            "reasons", "last",
        ];
        let name = |part| format!("wrun:{{{label}}}:queue:{part}");
        Self {
            label: label.to_owned(),
            all: parts.map(name).into(),
        }
    }

    /// Returns those that every script is given.
    pub(super) fn all(&self) -> &[String] {
        &self.all
    }

    /// Returns what remembers a dedup id.
    pub(super) fn dedup(&self, id: &str) -> String {
        format!("wrun:{{{}}}:queue:dedup:{id}", self.label)
    }

    /// Returns where it is told that there are messages. Channels are shared by all databases of a server.
    pub(super) fn channel(label: &str, database: i64) -> String {
        format!("wrun:{{{label}}}:queue:news:{database}")
    }
}

/// All of them.
pub(super) struct Scripts {
    pub(super) send: Script,
    pub(super) claim: Script,
    pub(super) settle: Script,
    pub(super) hold: Script,
    pub(super) renew: Script,
    pub(super) reap: Script,
    pub(super) sweep: Script,
    pub(super) look: Script,
    pub(super) status: Script,
    pub(super) redrive: Script,
    pub(super) purge: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        let script = |own: &str| Script::new(&format!("{PRELUDE}{own}"));
        Self {
            send: script(send::SEND),
            claim: script(claim::CLAIM),
            settle: script(settle::SETTLE),
            hold: script(lease::HOLD),
            renew: script(lease::RENEW),
            reap: script(lease::REAP),
            sweep: script(lease::SWEEP),
            look: script(look::LOOK),
            status: script(look::STATUS),
            redrive: script(operate::REDRIVE),
            purge: script(operate::PURGE),
        }
    }
}

impl Scripts {
    pub(super) fn all(&self) -> Vec<Script> {
        [
            &self.send,
            &self.claim,
            &self.settle,
            &self.hold,
            &self.renew,
            &self.reap,
            &self.sweep,
            &self.look,
            &self.status,
            &self.redrive,
            &self.purge,
        ]
        .map(Clone::clone)
        .into()
    }
}
