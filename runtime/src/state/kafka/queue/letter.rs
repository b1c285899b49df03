//! Messages as Kafka has them, both ways. Others can read and write them, too: docs/kafka.md lists the names.

use crate::state::queue::letter::Letter;
use crate::state::wall_ms;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};

/// What wrun says of a message itself; everything else is the sender's. What tells of a dead letter is for everybody to read.
const ID: &str = "wrun-id";
const ATTEMPTS: &str = "wrun-attempts";
const READY_AT: &str = "wrun-ready-at-ms";
const SENT_AT: &str = "wrun-sent-at-ms";
const CONTENT_TYPE: &str = "content-type";
/// Before the name of a header of the sender's that is called like one of these, or begins like this.
const ESCAPE: &str = "wrun-x-";

impl Letter {
    /// Reads one without its headers. Its place is its id.
    pub(super) fn bare(label: &str, message: &impl rdkafka::Message) -> Self {
        Self {
            id: format!("{label}:{}-{}", message.partition(), message.offset()),
            key: message.key().map(text),
            sent_at_ms: message
                .timestamp()
                .to_millis()
                .and_then(|ms| u64::try_from(ms).ok())
                .unwrap_or_else(wall_ms),
            body: message.payload().unwrap_or_default().to_vec(),
            ..Self::default()
        }
    }

    /// Reads one.
    pub(super) fn of_record(label: &str, message: &impl rdkafka::Message) -> Self {
        let mut letter = Self::bare(label, message);
        let Some(headers) = message.headers() else {
            return letter;
        };
        for Header { key, value } in headers.iter() {
            let value = text(value.unwrap_or_default());
            match key {
                ID if !value.is_empty() => letter.id = value,
                ATTEMPTS => letter.attempts = value.parse().unwrap_or(0),
                READY_AT => letter.ready_at_ms = value.parse().unwrap_or(0),
                SENT_AT => letter.sent_at_ms = value.parse().unwrap_or(letter.sent_at_ms),
                CONTENT_TYPE => letter.content_type = Some(value),
                name => {
                    let name = name.strip_prefix(ESCAPE).unwrap_or(name);
                    letter.headers.push((name.to_owned(), value));
                }
            }
        }
        letter
    }

    /// Returns what Kafka keeps beside the key and the body.
    pub(super) fn headers(&self) -> OwnedHeaders {
        let mut all = OwnedHeaders::new_with_capacity(self.headers.len() + 5);
        let mut add = |key: &str, value: &str| {
            let value = Some(value);
            all = std::mem::take(&mut all).insert(Header { key, value });
        };
        add(ID, &self.id);
        add(SENT_AT, &self.sent_at_ms.to_string());
        if self.attempts > 0 {
            add(ATTEMPTS, &self.attempts.to_string());
        }
        if self.ready_at_ms > 0 {
            add(READY_AT, &self.ready_at_ms.to_string());
        }
        if let Some(content_type) = &self.content_type {
            add(CONTENT_TYPE, content_type);
        }
        for (name, value) in &self.headers {
            match is_taken(name) {
                true => add(&format!("{ESCAPE}{name}"), value),
                false => add(name, value),
            }
        }
        all
    }
}

fn is_taken(name: &str) -> bool {
    matches!(name, ID | ATTEMPTS | READY_AT | SENT_AT | CONTENT_TYPE) || name.starts_with(ESCAPE)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::{OwnedMessage, Timestamp};

    fn back(letter: &Letter) -> Letter {
        let key = letter.key.clone().map(String::into_bytes);
        let (body, headers) = (Some(letter.body.clone()), Some(letter.headers()));
        let at = Timestamp::CreateTime(5);
        let message = OwnedMessage::new(body, key, "q".to_owned(), at, 3, 7, headers);
        Letter::of_record("q", &message)
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        for headers in [
            vec![],
            vec![("b", "1"), ("a", "ü"), ("b", "")],
            vec![
                ("wrun-id", "x"),
                ("content-type", "y"),
                ("wrun-x-wrun-id", "z"),
            ],
            vec![("wrun-dead-reason", "kept")],
        ] {
            let letter = Letter {
                id: "q:1".to_owned(),
                key: Some(String::new()),
                attempts: 3,
                alone: false,
                ready_at_ms: 1_700_000_000_123,
                sent_at_ms: 1_600_000_000_456,
                content_type: Some("text/plain".to_owned()),
                headers: headers.into_iter().map(pair).collect(),
                body: vec![0, 255],
            };
            assert_eq!(back(&letter), letter);
        }
    }

    #[test]
    fn message_of_a_program_that_knows_nothing_of_wrun_has_its_place_for_an_id() {
        let at = Timestamp::CreateTime(5000);
        let message = OwnedMessage::new(Some(vec![1]), None, "q".to_owned(), at, 3, 7, None);
        let letter = Letter::of_record("q", &message);
        assert_eq!((&*letter.id, letter.sent_at_ms), ("q:3-7", 5000));
        assert_eq!((letter.key, letter.body), (None, vec![1]));
    }
}
