//! What became of messages, written down.

use super::Store;
use super::envelope::{Dead, sent_on};
use super::index::Row;
use crate::state::nats::line::Failed;
use crate::state::queue::content::shorten;
use crate::state::queue::stored::Change;
use crate::state::wall_ms;
use async_nats::HeaderMap;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Questions to the server at a time.
const AT_A_TIME: usize = 64;

/// How often a message was tried.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Tries {
    pub(super) attempts: u32,
    pub(super) alone: bool,
    /// Not to be handled before: milliseconds since 1970.
    pub(super) ready_at_ms: u64,
}

impl Store {
    /// Writes down what became of messages. To do it again changes nothing.
    pub(super) async fn write(&self, changes: Vec<Change>) -> Result<(), Failed> {
        // Of a message that was tried twice meanwhile, the last one counts.
        let last: HashMap<i64, Change> = changes.into_iter().map(|it| (it.id(), it)).collect();
        let writes = last.into_values().map(|it| self.write_one(it));
        let done = stream::iter(writes).buffer_unordered(AT_A_TIME);
        done.try_collect::<Vec<()>>().await?;
        if self.tenure.borrow().is_leaving() {
            self.bell.wake();
        }
        Ok(())
    }

    async fn write_one(&self, change: Change) -> Result<(), Failed> {
        let id = change.id();
        let row = self.index.borrow().get(id).cloned();
        if matches!(change, Change::Remove { .. }) {
            // Whoever has the shard by now: it was handled.
            return self.remove(id, row.as_ref()).await;
        }
        // Without one the message is somebody else's.
        let Some(row) = row else { return Ok(()) };
        if !self.tenure.borrow().is_good() {
            return Err(Failed::Refused(0, "the lease is not renewed".to_owned()));
        }
        match change {
            Change::Remove { .. } => Ok(()),
            Change::Retry {
                attempts,
                ready_at_ms,
                alone,
                ..
            } => {
                let tries = Tries {
                    attempts,
                    alone,
                    ready_at_ms,
                };
                self.note_tries(id, &row, &tries).await
            }
            Change::Dead {
                attempts, reason, ..
            } => self.bury(id, &row, attempts, &reason).await,
        }
    }

    async fn note_tries(&self, id: i64, row: &Row, tries: &Tries) -> Result<(), Failed> {
        let subject = self.names.tries(row.shard, id);
        let text = serde_json::to_vec(tries).unwrap_or_default();
        self.line
            .publish(&subject, HeaderMap::new(), text.into())
            .await?;
        self.index.borrow_mut().is_tried(id);
        Ok(())
    }

    /// Puts a message to the dead letters before it is deleted. By its dedup id it is there once, however often this is done.
    async fn bury(&self, id: i64, row: &Row, attempts: u32, reason: &str) -> Result<(), Failed> {
        let found = self
            .line
            .get(&self.names.messages, id.cast_unsigned())
            .await?;
        if let Some(message) = found {
            let dead = Dead {
                reason: shorten(reason).to_owned(),
                attempts,
                at_ms: wall_ms(),
            };
            let own = (row.outside.unwrap_or(id), row.sent_at_ms);
            let once = format!("dead-{id}-{}", row.at_ns);
            let headers = message.headers.unwrap_or_default();
            let headers = sent_on(&headers, Some(&dead), own, &once);
            let subject = self.names.subject("dead");
            self.line
                .publish(&subject, headers, message.payload)
                .await?;
        }
        self.remove(id, Some(row)).await
    }

    /// Deletes a message and what is written of it.
    pub(super) async fn remove(&self, id: i64, row: Option<&Row>) -> Result<(), Failed> {
        self.line
            .delete(&self.names.messages, id.cast_unsigned())
            .await?;
        if let Some(row) = row.filter(|row| row.has_tries) {
            let tries = self.names.tries(row.shard, id);
            self.line.purge(&self.names.state, &tries).await?;
        }
        self.index.borrow_mut().remove(id);
        Ok(())
    }

    /// Deletes several.
    pub(super) async fn remove_all(&self, ids: Vec<i64>) -> Result<(), Failed> {
        let removals = ids.into_iter().map(|id| {
            let row = self.index.borrow().get(id).cloned();
            async move { self.remove(id, row.as_ref()).await }
        });
        let done = stream::iter(removals).buffer_unordered(AT_A_TIME);
        done.try_collect::<Vec<()>>().await.map(drop)
    }
}
