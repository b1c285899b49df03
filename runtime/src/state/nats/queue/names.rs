//! What a queue's streams, and what is in them, are called in the server; and which shard a key belongs to.

use sha2::{Digest as _, Sha256};

/// In how many parts a queue's messages are kept: so many servers can handle them at a time, and of each key one.
pub(super) const SHARDS: u8 = 16;

pub(super) struct Names {
    /// What the subjects begin with.
    prefix: String,
    pub(super) messages: String,
    pub(super) dead: String,
    /// The stream of who has which shard, and of tries.
    pub(super) state: String,
}

impl Names {
    /// A label begins with a letter or a digit, so that no stream has the name of another queue's.
    pub(super) fn new(label: &str) -> Self {
        Self {
            prefix: format!("wrun.queue.{label}."),
            messages: format!("wrun_{label}"),
            dead: format!("wrun-dead_{label}"),
            state: format!("wrun-state_{label}"),
        }
    }

    pub(super) fn subject(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Returns where a shard's messages are; `*` stands for any.
    pub(super) fn shard(&self, shard: impl std::fmt::Display) -> String {
        self.subject(&format!("messages.{shard}"))
    }

    /// Returns where it stands how often a message was tried; `*` stands for any message.
    pub(super) fn tries(&self, shard: u8, id: impl std::fmt::Display) -> String {
        self.subject(&format!("tries.{shard}.{id}"))
    }

    /// Returns where it stands who has a shard.
    pub(super) fn seat(&self, shard: u8) -> String {
        self.subject(&format!("seats.shard.{shard}"))
    }

    /// Returns where a holder says that it is there.
    pub(super) fn holder(&self, name: &str) -> String {
        self.subject(&format!("seats.holder.{name}"))
    }

    /// Returns what follows a prefix of its own in a subject.
    pub(super) fn rest<'a>(&self, subject: &'a str, kind: &str) -> Option<&'a str> {
        subject.strip_prefix(&self.prefix)?.strip_prefix(kind)
    }

    /// Returns the shard of a message by its subject.
    pub(super) fn shard_of(&self, subject: &str) -> Option<u8> {
        let shard = self.rest(subject, "messages.")?.parse().ok()?;
        (shard < SHARDS).then_some(shard)
    }
}

/// Returns the shard that a key belongs to.
pub(super) fn shard_of_key(key: &str) -> u8 {
    Sha256::digest(key.as_bytes())[0] % SHARDS
}
