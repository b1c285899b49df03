//! A message as NATS carries it: all but its body in headers, which other programs can read and write.
//!
//! What a header of NATS cannot say is said in `Wrun-Exact`: a key or a value with a line break, names in an order of their
//! own.

use super::super::api::DEDUP_ID;
use crate::state::queue::Message;
use crate::state::queue::content::Headers;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

pub(super) const ID: &str = "Wrun-Id";
const KEY: &str = "Wrun-Key";
const DELAY: &str = "Wrun-Delay";
const SENT: &str = "Wrun-Sent";
const EXACT: &str = "Wrun-Exact";
const DEAD: &str = "Wrun-Dead";
const TYPE: &str = "Content-Type";

/// What the names of headers begin with that are not a message's own.
const RESERVED: [&str; 3] = ["wrun-", "nats-", "content-type"];

/// What cannot be seen in a header, beside what is not ASCII, and what that is written with.
const HIDDEN: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// What a message says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Envelope {
    pub(super) id: Option<i64>,
    pub(super) exact: Exact,
    /// How long after it was taken it is due, in milliseconds.
    pub(super) delay_ms: u64,
    /// When it was sent, of one that was sent again: milliseconds since 1970.
    pub(super) sent_at_ms: Option<u64>,
    pub(super) dead: Option<Dead>,
}

/// What has to come as it was sent.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Exact {
    pub(super) content_type: Option<String>,
    pub(super) key: Option<String>,
    pub(super) headers: Headers,
}

/// Why a message is a dead letter.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Dead {
    pub(super) reason: String,
    pub(super) attempts: u32,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// Returns the headers of a message.
pub(super) fn pack(message: &Message, id: i64) -> HeaderMap {
    let exact = Exact {
        content_type: message.content_type.clone(),
        key: message.key.clone(),
        headers: message.headers.clone(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &exact.headers {
        if !is_reserved(name) {
            add(&mut headers, name, value);
        }
    }
    for (name, value) in [(TYPE, &exact.content_type), (KEY, &exact.key)] {
        if let Some(value) = value {
            add(&mut headers, name, value);
        }
    }
    if plain(&headers) != exact {
        add(&mut headers, EXACT, &json(&exact));
    }
    add(&mut headers, ID, &id.to_string());
    if let Some(delay) = message.delay_ms.filter(|delay| *delay > 0) {
        add(&mut headers, DELAY, &delay.to_string());
    }
    if let Some(id) = &message.dedup_id {
        add(&mut headers, DEDUP_ID, &encoded(id));
    }
    headers
}

/// Reads headers, whoever has written them.
pub(super) fn unpack(headers: &HeaderMap) -> Envelope {
    let exact = text(headers, EXACT).and_then(|it| serde_json::from_str(it).ok());
    Envelope {
        id: number(headers, ID),
        exact: exact.unwrap_or_else(|| plain(headers)),
        delay_ms: number(headers, DELAY).unwrap_or(0),
        sent_at_ms: number(headers, SENT),
        dead: text(headers, DEAD).and_then(|it| serde_json::from_str(it).ok()),
    }
}

/// Returns the headers of a dead letter, or of one that is sent back: those of the message, and `dead`; its id for those who
/// must not take it twice.
pub(super) fn sent_on(
    headers: &HeaderMap,
    dead: Option<&Dead>,
    (id, sent_at_ms): (i64, u64),
    dedup_id: &str,
) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        let is_new = [DEAD, SENT, DELAY, ID].contains(&name);
        if !is_new && !begins(name, "nats-") {
            for value in values {
                add(&mut all, name, value.as_str());
            }
        }
    }
    add(&mut all, ID, &id.to_string());
    add(&mut all, SENT, &sent_at_ms.to_string());
    add(&mut all, DEDUP_ID, dedup_id);
    if let Some(dead) = dead {
        add(&mut all, DEAD, &json(dead));
    }
    all
}

/// Adds a header, if NATS can carry it as it is.
fn add(headers: &mut HeaderMap, name: &str, value: &str) {
    let is_kept = value.trim() == value && !value.is_empty() && !name.is_empty();
    if let (true, Ok(name), Ok(value)) = (
        is_kept,
        name.parse::<HeaderName>(),
        value.parse::<HeaderValue>(),
    ) {
        headers.append(name, value);
    }
}

/// Reads what is said without `EXACT`; headers in the order of their names.
fn plain(headers: &HeaderMap) -> Exact {
    let mut own: Headers = Vec::new();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        if !is_reserved(name) {
            own.extend(
                values
                    .iter()
                    .map(|it| (name.to_owned(), it.as_str().to_owned())),
            );
        }
    }
    own.sort_by(|(one, _), (other, _)| one.cmp(other));
    Exact {
        content_type: text(headers, TYPE).map(str::to_owned),
        key: text(headers, KEY).map(str::to_owned),
        headers: own,
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| begins(name, reserved))
}

fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len())
        .is_some_and(|it| it.eq_ignore_ascii_case(with))
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(name).map(HeaderValue::as_str)
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &'static str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

/// JSON has no line break but in strings, where it is escaped.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns a dedup id as a header can hold it: what is not visible ASCII, and %, as %XX.
fn encoded(id: &str) -> String {
    utf8_percent_encode(id, HIDDEN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Headers {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        all.iter().map(pair).collect()
    }

    #[test]
    fn message_comes_as_it_was_sent_whatever_is_in_it() {
        for (key, content_type, headers, is_plain) in [
            (None, None, pairs(&[]), true),
            (
                Some("k"),
                Some("text/plain"),
                pairs(&[("a", "1"), ("b", "2")]),
                true,
            ),
            (Some(""), None, pairs(&[]), false),
            (Some(" k\r\n"), Some("a\nb"), pairs(&[]), false),
            (
                None,
                None,
                pairs(&[("b", "1"), ("a", "ü"), ("b", "2")]),
                false,
            ),
            (
                None,
                None,
                pairs(&[("a b:", "\r\n"), ("", ""), ("Wrun-Id", "9")]),
                false,
            ),
            (
                None,
                None,
                pairs(&[("content-type", "x"), ("NATS-Msg-Id", "x")]),
                false,
            ),
        ] {
            let message = Message {
                key: key.map(str::to_owned),
                content_type: content_type.map(str::to_owned),
                headers,
                delay_ms: Some(5),
                dedup_id: Some("a\n%ü".to_owned()),
                ..Message::default()
            };
            let packed = pack(&message, 7);
            let found = unpack(&packed);
            assert_eq!((found.id, found.delay_ms), (Some(7), 5));
            let Exact {
                content_type,
                key,
                headers,
            } = found.exact;
            assert_eq!((content_type, key), (message.content_type, message.key));
            assert_eq!(headers, message.headers);
            assert_eq!(packed.get(EXACT).is_none(), is_plain, "{packed:?}");
            assert_eq!(text(&packed, DEDUP_ID), Some("a%0A%25%C3%BC"));
        }
    }

    #[test]
    fn message_of_another_program_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert("Wrun-Key", "order-1");
        headers.insert("Wrun-Exact", "no JSON");
        headers.insert("trace", "x");
        let found = unpack(&headers);
        assert_eq!(found.exact.key.as_deref(), Some("order-1"));
        assert_eq!(found.exact.headers, pairs(&[("trace", "x")]));
        assert_eq!((found.id, found.delay_ms, found.dead), (None, 0, None));
    }

    #[test]
    fn dead_letter_tells_why_and_is_as_before_when_it_is_sent_back() {
        let message = Message {
            key: Some("k".to_owned()),
            headers: pairs(&[("b", ""), ("a", "1")]),
            delay_ms: Some(9),
            dedup_id: Some("once".to_owned()),
            ..Message::default()
        };
        let dead = Dead {
            reason: "a trap:\n\tunreachable".to_owned(),
            attempts: 3,
            at_ms: 5,
        };
        let first = pack(&message, 7);
        let letter = sent_on(&first, Some(&dead), (7, 4), "dead-1");
        let found = unpack(&letter);
        assert_eq!((found.dead, found.sent_at_ms), (Some(dead), Some(4)));
        assert_eq!(text(&letter, DEDUP_ID), Some("dead-1"));
        let back = unpack(&sent_on(&letter, None, (7, 4), "back-1"));
        assert_eq!((back.id, back.dead, back.delay_ms), (Some(7), None, 0));
        assert_eq!(back.exact, unpack(&first).exact);
    }
}
