//! The messages of queues, as `queue::embedded` keeps them in a database.

use super::Sqlite;
use super::messages;
use super::statement::Statements;
use super::ticket::{Ticket, stopped};
use super::work::Manner;
use crate::state::BoxFuture;
use crate::state::db::{DbError, TX_TIME_MAX};
use crate::state::queue::stored::{Change, Stored, StoredMessage};
use crate::state::queue::{Message, QueueError};
use std::rc::Rc;
use tokio::sync::oneshot;

impl Sqlite {
    /// Returns the id of a message as the outside knows it: `{label}-{row}`.
    pub fn external_id(&self, id: i64) -> String {
        messages::external_id(self.label(), id)
    }

    /// Takes messages, all or none, and returns their external ids when they are durable.
    pub fn send(
        &self,
        queue: String,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let manner = Manner {
            atomic: matches!(&messages[..], [only] if only.dedup_id.is_none()),
            durable: self.is_durable(),
        };
        self.work(Ticket::new(TX_TIME_MAX), manner, move |writer, _| {
            writer.insert(&queue, &messages)
        })
    }

    /// Returns every message, dead letters too, by id. One that was just sent may also come by `sent`.
    pub fn load(&self) -> BoxFuture<'static, Result<Vec<Stored>, QueueError>> {
        self.read_own(messages::load)
    }

    /// Returns messages with their content, in the order asked for; those that are gone are left out.
    pub fn read(
        &self,
        ids: Vec<i64>,
    ) -> BoxFuture<'static, Result<Vec<StoredMessage>, QueueError>> {
        self.read_own(move |statements| messages::read(statements, &ids))
    }

    /// Applies what became of a queue's messages. Ready when committed, not when durable.
    pub fn settle(
        &self,
        queue: String,
        changes: Vec<Change>,
    ) -> BoxFuture<'static, Result<(), QueueError>> {
        let manner = Manner {
            atomic: changes.len() == 1,
            durable: false,
        };
        self.work(Ticket::patient(), manner, move |writer, _| {
            let statements = Rc::clone(&writer.statements);
            Ok(writer.queues.settle(&statements, &queue, &changes)?)
        })
    }

    /// Returns the oldest messages of a queue, or of its dead letters by `{queue}.dead`.
    pub fn peek(
        &self,
        queue: String,
        count: u32,
    ) -> BoxFuture<'static, Result<Vec<StoredMessage>, QueueError>> {
        self.read_own(move |statements| messages::peek(statements, &queue, count))
    }

    /// Sends dead letters of `queue` (a label without `.dead`) back to it, as many as it has room for; they also come by
    /// `sent`. Returns how many.
    pub fn redrive(
        &self,
        queue: String,
        count: u32,
    ) -> BoxFuture<'static, Result<u64, QueueError>> {
        let manner = Manner {
            atomic: false,
            durable: self.is_durable(),
        };
        self.work(Ticket::new(TX_TIME_MAX), manner, move |writer, _| {
            let statements = Rc::clone(&writer.statements);
            writer
                .queues
                .redrive(&statements, &queue, count, &mut writer.stored)
        })
    }

    /// Deletes messages of a queue, these or all; `{queue}.dead` names its dead letters. Returns how many.
    pub fn purge(
        &self,
        queue: String,
        ids: Option<Vec<i64>>,
    ) -> BoxFuture<'static, Result<u64, QueueError>> {
        let manner = Manner {
            atomic: ids.is_none(),
            durable: self.is_durable(),
        };
        self.work(Ticket::new(TX_TIME_MAX), manner, move |writer, _| {
            let statements = Rc::clone(&writer.statements);
            Ok(writer.queues.purge(&statements, &queue, ids.as_deref())?)
        })
    }

    /// Reads for the engine itself.
    pub(super) fn read_own<T, E>(
        &self,
        action: impl FnOnce(&Statements<'_>) -> Result<T, DbError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<DbError>,
    {
        let (answer, answered) = oneshot::channel();
        self.inner.own_reader.read(Box::new(move |statements| {
            let _ = answer.send(action(statements));
        }));
        Box::pin(async move {
            match answered.await {
                Ok(result) => Ok(result?),
                Err(_) => Err(stopped().into()),
            }
        })
    }
}
