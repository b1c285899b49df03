//! Calls about queues.

use super::{Answer, Session};
use crate::config::shared::{self as settings, Shared};
use crate::state::BoxFuture;
use crate::state::protocol::Reply;
use crate::state::queue::{Message, Queue, QueueError, Settled};
use std::future::ready;

impl Session {
    pub(super) fn send(&self, granted: &Shared, queue: &str, messages: Vec<Message>) -> Answer {
        let found = self.stores.queue(queue);
        match found.filter(|_| granted.queues.contains_key(queue)) {
            Some(queue) => ids(queue.send(messages)),
            None => Answer::Now(Reply::Queue(unknown(queue))),
        }
    }

    pub(super) fn send_in(
        &self,
        granted: &Shared,
        tx: u64,
        queue: String,
        messages: Vec<Message>,
    ) -> Answer {
        let Some(settings) = granted.queues.get(&queue) else {
            return Answer::Now(Reply::Queue(unknown(&queue)));
        };
        let settings = settings.clone();
        ids(self.transactions.call(tx, move |open| {
            if let Err(error) = lives_in(&settings, &queue, &open.db) {
                return Box::pin(ready(Err(error)));
            }
            open.transaction.send(queue, messages)
        }))
    }

    pub(super) fn credit(&self, granted: &Shared, queue: &str, batch: u32, batches: u32) -> Answer {
        let Some(consumer) = granted.consumers.get(queue) else {
            return Answer::Now(Reply::Queue(unknown(queue)));
        };
        self.consuming(granted, queue, |lane| {
            self.consumed.borrow_mut().insert(queue.to_owned());
            lane.credit(self.id, batch.min(consumer.batch), batches);
            Ok(())
        })
    }

    pub(super) fn leave(&self, granted: &Shared, queue: &str) -> Answer {
        self.consuming(granted, queue, |lane| {
            lane.leave(self.id, false);
            Ok(())
        })
    }

    pub(super) fn settle(&self, granted: &Shared, queue: &str, settled: Vec<Settled>) -> Answer {
        self.consuming(granted, queue, |lane| {
            lane.settle(self.id, settled);
            Ok(())
        })
    }

    pub(super) fn extend_delivery(
        &self,
        granted: &Shared,
        queue: &str,
        delivery: &str,
        ms: u32,
    ) -> Answer {
        self.consuming(granted, queue, |lane| lane.extend(self.id, delivery, ms))
    }

    /// Does something that only those do who handle a queue's messages.
    fn consuming(
        &self,
        granted: &Shared,
        queue: &str,
        act: impl FnOnce(&dyn Queue) -> Result<(), QueueError>,
    ) -> Answer {
        let found = self.stores.queue(queue);
        let found = found.filter(|_| granted.consumers.contains_key(queue));
        match found
            .ok_or_else(|| unknown(queue))
            .and_then(|queue| act(&*queue))
        {
            Ok(()) => Answer::Now(Reply::Done),
            Err(error) => Answer::Now(Reply::Queue(error)),
        }
    }
}

/// Tells whether a transaction of an embedded database may send to a queue, and why not.
pub(super) fn may_send(granted: &Shared, queue: &str, db: &str) -> Result<(), QueueError> {
    match granted.queues.get(queue) {
        Some(settings) => lives_in(settings, queue, db),
        None => Err(unknown(queue)),
    }
}

fn lives_in(settings: &settings::Queue, queue: &str, db: &str) -> Result<(), QueueError> {
    let lives = &settings.database;
    if settings.bound.is_none() && db != lives {
        let what = format!("queue {queue} lives in database {lives}, not in {db}");
        return Err(QueueError::Invalid(what));
    }
    Ok(())
}

fn unknown(queue: &str) -> QueueError {
    QueueError::Denied(format!("no queue is called {queue}"))
}

fn ids(sent: BoxFuture<'static, Result<Vec<String>, QueueError>>) -> Answer {
    Answer::Later(Box::pin(async {
        sent.await.map_or_else(Reply::Queue, Reply::Ids)
    }))
}
