//! Messages as they are kept, and what becomes of them there.

/// What is kept in memory of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The row.
    pub id: i64,
    /// Its queue's label; with `.dead` at the end for a dead letter.
    pub queue: String,
    pub key: Option<String>,
    /// Tries that are over.
    pub attempts: u32,
    /// Whether it is to be handled in a batch of its own.
    pub alone: bool,
    /// Not to be handled before: milliseconds since 1970.
    pub ready_at_ms: u64,
    /// Milliseconds since 1970.
    pub sent_at_ms: u64,
}

/// A message with its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredMessage {
    pub stored: Stored,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What becomes of a message's row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It was handled.
    Remove { id: i64 },
    /// It is handled again.
    Retry {
        id: i64,
        attempts: u32,
        ready_at_ms: u64,
        alone: bool,
    },
    /// It goes to the dead letters.
    Dead {
        id: i64,
        attempts: u32,
        reason: String,
    },
}

impl Change {
    /// Returns whose change it is.
    pub fn id(&self) -> i64 {
        match self {
            Self::Remove { id } | Self::Retry { id, .. } | Self::Dead { id, .. } => *id,
        }
    }
}
