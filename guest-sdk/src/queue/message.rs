//! A message to be sent, put together step by step.

use super::Message;
use crate::millis;
use serde::Serialize;
use std::time::Duration;

impl Message {
    /// Returns a message with this content, at most 1 MiB.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            content_type: None,
            headers: Vec::new(),
            key: None,
            dedup_id: None,
            delay_ms: None,
        }
    }

    /// Returns a message with a value as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_vec(value)?;
        Ok(Self::new(body).content_type("application/json"))
    }

    /// Sets the key: messages of one queue with the same key are handled one at a time, in the order in which they were
    /// sent.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets an id of the sender's own: if the queue was sent a message with this id within the last 5 minutes, this one is
    /// not taken, and its sender gets the id of the first.
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// Sets how long to wait before the message is handled: at most 30 days.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay_ms = Some(millis::whole(delay));
        self
    }

    /// Sets what the content is.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}
