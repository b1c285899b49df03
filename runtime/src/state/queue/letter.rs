//! Messages as servers carry them that keep them whole, with all that is to be known of them. How one is written, and read, is the
//! server's to say.

use super::content::Headers;
use super::stored::{Stored, StoredMessage};
use super::{Message, QueueError};
use crate::state::wall_ms;
use sha2::{Digest as _, Sha256};

/// A message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::state) struct Letter {
    /// The same for as long as it lives, also outside.
    pub(in crate::state) id: String,
    pub(in crate::state) key: Option<String>,
    /// Tries that are over, but for those that ended with their server.
    pub(in crate::state) attempts: u32,
    pub(in crate::state) alone: bool,
    /// Not to be handled before: milliseconds since 1970.
    pub(in crate::state) ready_at_ms: u64,
    /// Milliseconds since 1970.
    pub(in crate::state) sent_at_ms: u64,
    pub(in crate::state) content_type: Option<String>,
    pub(in crate::state) headers: Headers,
    pub(in crate::state) body: Vec<u8>,
}

impl Letter {
    /// Makes one of what is to be sent to a queue. That with a dedup id has the id of every other one that has it.
    pub(in crate::state) fn new(label: &str, message: Message) -> Result<Self, QueueError> {
        let id = match &message.dedup_id {
            Some(dedup_id) => format!("{label}:d-{}", hex(&Sha256::digest(dedup_id)[..16])),
            None => format!("{label}:{}", random()?),
        };
        let sent_at_ms = wall_ms();
        let delay = message.delay_ms.filter(|&delay| delay > 0);
        Ok(Self {
            id,
            key: message.key,
            attempts: 0,
            alone: false,
            ready_at_ms: delay.map_or(0, |delay| sent_at_ms.saturating_add(delay)),
            sent_at_ms,
            content_type: message.content_type,
            headers: message.headers,
            body: message.body,
        })
    }

    /// Returns it as the desk knows messages.
    pub(in crate::state) fn stored(self, row: i64, queue: &str) -> StoredMessage {
        StoredMessage {
            stored: Stored {
                id: row,
                queue: queue.to_owned(),
                key: self.key,
                attempts: self.attempts,
                alone: self.alone,
                ready_at_ms: self.ready_at_ms,
                sent_at_ms: self.sent_at_ms,
            },
            content_type: self.content_type,
            headers: self.headers,
            body: self.body,
        }
    }
}

/// Returns what no other message is called.
pub(in crate::state) fn random() -> Result<String, QueueError> {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(hex(&bytes)),
        Err(error) => Err(QueueError::Other(error.to_string())),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dedup_id_makes_the_id() {
        let once = |dedup_id: &str| {
            let dedup_id = Some(dedup_id.to_owned());
            let message = Message {
                dedup_id,
                ..Message::default()
            };
            Letter::new("q", message).unwrap().id
        };
        assert_eq!(once("a"), once("a"));
        assert_ne!(once("a"), once("b"));
    }
}
