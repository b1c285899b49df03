//! How messages come into the queue: all that are sent together, in one script.

use super::Store;
use crate::state::queue::content::validate;
use crate::state::queue::{DEDUP_WINDOW, Message, QueueError};
use std::collections::HashMap;

/// Adds messages, but for those whose dedup id is known; none if there is no room for them. ARGV: how many messages there may
/// be, how long a dedup id is remembered in ms; then for each message which of KEYS remembers its dedup id or 0, its delay
/// in ms, its key after a space if it has one, what is in it. Returns their ids, or nothing if the queue is full.
///
/// An id is higher than the one before and than the clock of earlier, so that no message gets that of another one, also
/// after the server has lost the last ones.
pub(super) const SEND: &str = r"
local fresh, seen = 0, {}
for i = 3, #ARGV, 4 do
    local dedup = tonumber(ARGV[i])
    if dedup == 0 then
        fresh = fresh + 1
    elseif not seen[dedup] then
        seen[dedup] = true
        if call('EXISTS', KEYS[dedup]) == 0 then fresh = fresh + 1 end
    end
end
if fresh > 0 and call('ZCARD', LIVE) + fresh > tonumber(ARGV[1]) then return {} end
local last = tonumber(call('GET', LAST) or '0')
local ids = {}
for i = 3, #ARGV, 4 do
    local dedup = tonumber(ARGV[i])
    local id = dedup > 0 and call('GET', KEYS[dedup])
    if not id then
        last = math.max(last + 1, now)
        id = text(last)
        call('HSET', CONTENT, id, ARGV[i + 3])
        enter(id, {
            sent = text(math.floor(now / 1000)), due = text(now + ARGV[i + 1] * 1000), attempts = '0', alone = '0',
            key = ARGV[i + 2] ~= '' and ARGV[i + 2]:sub(2) or nil,
        })
        if dedup > 0 then call('SET', KEYS[dedup], id, 'PX', ARGV[2]) end
    end
    ids[#ids + 1] = id
end
if fresh > 0 then call('SET', LAST, text(last)) end
return ids
";

impl Store {
    /// Takes messages, all or none; they are in the server then, and as durable as it is.
    pub(super) async fn send(&self, messages: &[Message]) -> Result<Vec<String>, QueueError> {
        validate(messages)?;
        let mut send = self.invoke(&self.scripts.send);
        let mut known = HashMap::new();
        let mut next = self.names.all().len();
        send.arg(self.max_depth.get());
        send.arg(DEDUP_WINDOW.as_millis() as u64);
        for message in messages {
            let dedup = match message.dedup_id.as_deref() {
                None => 0,
                Some(id) => *known.entry(id).or_insert_with(|| {
                    next += 1;
                    send.key(self.names.dedup(id));
                    next
                }),
            };
            let key = message.key.as_ref().map(|key| format!(" {key}"));
            send.arg(dedup).arg(message.delay_ms.unwrap_or(0));
            send.arg(key.unwrap_or_default()).arg(pack(message));
        }
        let ids: Vec<i64> = self.line.ask(&send).await.map_err(super::changed)?;
        if ids.len() != messages.len() {
            return Err(QueueError::Full);
        }
        self.bell.ring();
        Ok(ids.into_iter().map(|id| self.outside(id)).collect())
    }
}

/// Returns what a message contains as it is kept: content type and headers as a line of JSON, then the body.
fn pack(message: &Message) -> Vec<u8> {
    let head = (&message.content_type, &message.headers);
    let mut packed = serde_json::to_vec(&head).unwrap_or_default();
    packed.push(b'\n');
    packed.extend_from_slice(&message.body);
    packed
}

/// Returns content type, headers and body.
pub(super) fn unpack(packed: &[u8]) -> (Option<String>, Vec<(String, String)>, Vec<u8>) {
    let end = packed.iter().position(|&byte| byte == b'\n');
    let (head, body) = packed.split_at(end.unwrap_or(0));
    let (content_type, headers) = serde_json::from_slice(head).unwrap_or_default();
    (
        content_type,
        headers,
        body.get(1..).unwrap_or_default().to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_as_it_is() {
        let message = Message {
            body: b"\n\x00[1]\n".to_vec(),
            content_type: Some("a\nb".to_owned()),
            headers: vec![("ü".to_owned(), "\r\n".to_owned())],
            ..Message::default()
        };
        let (content_type, headers, body) = unpack(&pack(&message));
        assert_eq!(
            (content_type, headers),
            (message.content_type, message.headers)
        );
        assert_eq!(body, message.body);
        let empty = unpack(&pack(&Message::default()));
        assert_eq!(empty, (None, Vec::new(), Vec::new()));
    }

    #[test]
    fn content_that_somebody_has_changed_is_no_panic() {
        for wrong in [&b""[..], b"\n", b"x\ny", b"no line"] {
            let (content_type, headers, _) = unpack(wrong);
            assert_eq!((content_type, headers), (None, Vec::new()));
        }
    }
}
