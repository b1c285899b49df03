//! Messages as AMQP has them, both ways. Others can read and write them, too: docs/rabbitmq.md lists the names.

use crate::state::queue::QueueError;
use crate::state::queue::content::{Headers, headers_from_text, headers_to_text};
use crate::state::queue::letter::{Letter, random};
use crate::state::wall_ms;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

const KEY: &str = "wrun-key";
const ATTEMPTS: &str = "wrun-attempts";
const ALONE: &str = "wrun-alone";
const READY_AT: &str = "wrun-ready-at-ms";
const SENT_AT: &str = "wrun-sent-at-ms";
const CONTENT_TYPE: &str = "wrun-content-type";
/// All headers in JSON, if a table cannot have them: it has no order, and no name twice.
const HEADERS: &str = "wrun-headers";

/// What tells that a message is a dead letter begins with this, and is for everybody to read.
const DEAD: &str = "wrun-dead-";
const OWN: &str = "wrun-";

/// How often a message was handed out before, as quorum queues count.
const RETURNS: &str = "x-delivery-count";
/// What the server notes of a dead letter.
const DEATH: &str = "x-death";

/// Headers that mean something to the server, or come from it.
const OF_SERVER: [&str; 12] = [
    "CC",
    "BCC",
    RETURNS,
    DEATH,
    "x-acquired-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-opt-rabbitmq-received-time",
];

/// The longest name of a header in bytes.
const NAME_MAX: usize = 128;

/// Messages that are kept.
const PERSISTENT: u8 = 2;

impl Letter {
    /// Reads one that was taken; and how often it was handed out before. One that somebody else sent may lack an id: then it gets
    /// one that is good until it is given back.
    pub(super) fn read(
        label: &str,
        properties: &BasicProperties,
        body: Vec<u8>,
    ) -> Result<(Self, u64), QueueError> {
        let nothing = FieldTable::default();
        let table = properties.headers().as_ref().unwrap_or(&nothing);
        let id = match properties.message_id() {
            Some(id) => id.as_str().to_owned(),
            None => format!("{label}:{}", random()?),
        };
        let sent_at = number(table, SENT_AT);
        let seconds = properties.timestamp().map(|at| at.saturating_mul(1000));
        let short_type = || Some(properties.content_type().as_ref()?.as_str().to_owned());
        let letter = Self {
            id,
            key: string(table, KEY),
            attempts: number(table, ATTEMPTS).map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX)),
            alone: matches!(get(table, ALONE), Some(AMQPValue::Boolean(true))),
            ready_at_ms: number(table, READY_AT).unwrap_or(0),
            sent_at_ms: sent_at.or(seconds).unwrap_or_else(wall_ms),
            content_type: string(table, CONTENT_TYPE).or_else(short_type),
            headers: headers(table),
            body,
        };
        Ok((letter, number(table, RETURNS).unwrap_or(0)))
    }

    /// Returns all but the body.
    pub(super) fn properties(&self) -> BasicProperties {
        let mut table = FieldTable::default();
        let mut insert = |name: &str, value: AMQPValue| {
            if let Ok(name) = ShortString::try_new(name) {
                table.insert(name, value);
            }
        };
        for (name, value) in self.headers.iter().filter(|(name, _)| is_plain(name)) {
            insert(name, text(value));
        }
        if !self.fits_a_table()
            && let Some(json) = headers_to_text(&self.headers)
        {
            insert(HEADERS, text(&json));
        }
        if let Some(key) = &self.key {
            insert(KEY, text(key));
        }
        insert(SENT_AT, whole(self.sent_at_ms));
        if self.attempts > 0 {
            insert(ATTEMPTS, whole(u64::from(self.attempts)));
        }
        if self.alone {
            insert(ALONE, AMQPValue::Boolean(true));
        }
        if self.ready_at_ms > 0 {
            insert(READY_AT, whole(self.ready_at_ms));
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(self.sent_at_ms / 1000);
        match self.content_type.as_deref().map(ShortString::try_new) {
            Some(Ok(content_type)) => properties = properties.with_content_type(content_type),
            Some(Err(_)) => insert(
                CONTENT_TYPE,
                text(self.content_type.as_deref().unwrap_or("")),
            ),
            None => {}
        }
        if let Ok(id) = ShortString::try_new(self.id.as_str()) {
            properties = properties.with_message_id(id);
        }
        properties.with_headers(table)
    }

    /// Tells whether a table of AMQP says all of the headers.
    fn fits_a_table(&self) -> bool {
        let is_sorted = self.headers.is_sorted_by(|(a, _), (b, _)| a < b);
        is_sorted && self.headers.iter().all(|(name, _)| is_plain(name))
    }
}

/// Returns the queue from which the server has given a message up, and why.
pub(super) fn given_up(properties: &BasicProperties) -> Option<(String, String)> {
    let table = properties.headers().as_ref()?;
    let Some(AMQPValue::FieldArray(deaths)) = get(table, DEATH) else {
        return None;
    };
    let Some(AMQPValue::FieldTable(last)) = deaths.as_slice().first() else {
        return None;
    };
    Some((string(last, "queue")?, string(last, "reason")?))
}

/// Tells whether a header can stand in the table beside those of wrun and of the server.
fn is_plain(name: &str) -> bool {
    let is_own = name.starts_with(OWN) && !name.starts_with(DEAD);
    (1..=NAME_MAX).contains(&name.len()) && !is_own && !OF_SERVER.contains(&name)
}

fn headers(table: &FieldTable) -> Headers {
    if let Some(json) = string(table, HEADERS) {
        return headers_from_text(Some(&json));
    }
    let all = table.inner().iter();
    all.filter(|(name, _)| is_plain(name.as_str()))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), shown(value)?)))
        .collect()
}

fn get<'a>(table: &'a FieldTable, name: &str) -> Option<&'a AMQPValue> {
    table.inner().get(name)
}

fn string(table: &FieldTable, name: &str) -> Option<String> {
    match get(table, name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

fn number(table: &FieldTable, name: &str) -> Option<u64> {
    let number = match get(table, name)? {
        AMQPValue::LongLongInt(it) => *it,
        AMQPValue::LongInt(it) => i64::from(*it),
        AMQPValue::LongUInt(it) => i64::from(*it),
        AMQPValue::ShortInt(it) => i64::from(*it),
        AMQPValue::ShortUInt(it) => i64::from(*it),
        AMQPValue::ShortShortInt(it) => i64::from(*it),
        AMQPValue::ShortShortUInt(it) => i64::from(*it),
        _ => return None,
    };
    u64::try_from(number).ok()
}

/// Returns the value of a header that somebody else sent as text.
fn shown(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(it) => it.to_string(),
        AMQPValue::LongLongInt(it) => it.to_string(),
        AMQPValue::LongInt(it) => it.to_string(),
        AMQPValue::LongUInt(it) => it.to_string(),
        AMQPValue::ShortInt(it) => it.to_string(),
        AMQPValue::ShortUInt(it) => it.to_string(),
        AMQPValue::ShortShortInt(it) => it.to_string(),
        AMQPValue::ShortShortUInt(it) => it.to_string(),
        AMQPValue::Float(it) => it.to_string(),
        AMQPValue::Double(it) => it.to_string(),
        _ => return None,
    })
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn whole(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(letter: &Letter) -> Letter {
        let read = Letter::read("q", &letter.properties(), letter.body.clone());
        read.unwrap().0
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        for headers in [
            vec![],
            vec![("a", "1"), ("b", "ü")],
            vec![("b", "1"), ("a", "2"), ("b", "3")],
            vec![("CC", "x"), ("wrun-key", "y"), ("x-death", "z")],
            vec![("", "no name")],
            vec![("x-trace", "kept"), ("wrun-dead-reason", "kept")],
        ] {
            let letter = Letter {
                id: "q:1".to_owned(),
                key: Some("k".repeat(512)),
                attempts: 3,
                alone: true,
                ready_at_ms: 1_700_000_000_123,
                sent_at_ms: 1_600_000_000_456,
                content_type: Some("t".repeat(512)),
                headers: headers.into_iter().map(pair).collect(),
                body: vec![0, 255],
            };
            assert_eq!(back(&letter), letter);
        }
    }

    #[test]
    fn message_of_a_program_that_knows_nothing_of_wrun_is_read() {
        let mut table = FieldTable::default();
        table.insert("n".into(), AMQPValue::LongInt(7));
        table.insert("x-delivery-count".into(), AMQPValue::LongInt(2));
        let properties = BasicProperties::default()
            .with_timestamp(5)
            .with_headers(table);
        let (letter, returns) = Letter::read("q", &properties, vec![1]).unwrap();
        assert_eq!((letter.sent_at_ms, returns), (5000, 2));
        assert_eq!(letter.headers, [("n".to_owned(), "7".to_owned())]);
        assert!(letter.id.starts_with("q:") && letter.key.is_none());
    }
}
