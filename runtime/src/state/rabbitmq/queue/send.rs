//! How messages come in: published, and acknowledged when RabbitMQ has confirmed them.

use super::{Store, changed};
use crate::state::queue::content::validate;
use crate::state::queue::letter::Letter;
use crate::state::queue::{Message, QueueError};
use crate::state::rabbitmq::line::{ANSWER_MAX, Failed, Live};
use crate::state::wall_ms;
use futures_util::future::join_all;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use std::collections::HashSet;
use tokio::time::timeout;

const MANDATORY: BasicPublishOptions = BasicPublishOptions {
    mandatory: true,
    immediate: false,
};

impl Store {
    /// Takes messages. They are sent together, and not at one stroke: if something goes wrong with some of them, nobody knows.
    pub(super) async fn send(&self, messages: Vec<Message>) -> Result<Vec<String>, QueueError> {
        validate(&messages)?;
        let letters: Vec<Letter> = messages
            .into_iter()
            .map(|message| Letter::new(&self.label, message))
            .collect::<Result<_, _>>()?;
        let ids: Vec<String> = letters.iter().map(|letter| letter.id.clone()).collect();
        let live = self.line.live().map_err(changed)?;
        self.admit(&live, letters.len() as u64).await?;
        let mut known = HashSet::new();
        let once = letters.iter().filter(|letter| known.insert(&letter.id));
        let sent = join_all(once.map(|letter| self.put(&live, letter))).await;
        let some_went_well = sent.iter().any(Result::is_ok);
        match sent.into_iter().find_map(Result::err) {
            None => Ok(ids),
            Some(_) if some_went_well => Err(QueueError::OutcomeUnknown),
            Some(failed) => Err(changed(failed)),
        }
    }

    /// Takes room for messages; `Full` if there is not enough.
    async fn admit(&self, live: &Live, count: u64) -> Result<(), QueueError> {
        if self.room.borrow_mut().take(count).is_some() {
            return Ok(());
        }
        let kept = self.counts(live).await.map_err(super::looked)?.messages();
        let mut room = self.room.borrow_mut();
        room.count(self.max_depth.get().saturating_sub(kept));
        room.take(count).ok_or(QueueError::Full)
    }

    /// Puts a message where it waits for its time, or to be taken.
    pub(super) async fn put(&self, live: &Live, letter: &Letter) -> Result<(), Failed> {
        let queue = self.names.of(letter.key.as_deref());
        match self
            .names
            .step(letter.ready_at_ms.saturating_sub(wall_ms()))
        {
            Some(exchange) => publish(live, exchange, queue, letter).await,
            None => publish(live, &"".into(), queue, letter).await,
        }
    }
}

/// Publishes a message; ready when RabbitMQ has it on the disk, of a majority if there are several nodes.
pub(super) async fn publish(
    live: &Live,
    exchange: &ShortString,
    queue: &ShortString,
    letter: &Letter,
) -> Result<(), Failed> {
    if live.is_blocked() {
        let why = "it takes no messages: it is short of memory or disk";
        return Err(Failed::Refused(why.to_owned()));
    }
    let (exchange, queue) = (exchange.clone(), queue.clone());
    let confirmed = timeout(ANSWER_MAX, async {
        let properties = letter.properties();
        let sent = live
            .out
            .basic_publish(exchange, queue, MANDATORY, &letter.body, properties);
        sent.await?.await
    });
    match confirmed.await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(Confirmation::Ack(Some(_)))) => {
            Err(Failed::Refused("the queue is not there".to_owned()))
        }
        Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => {
            Err(Failed::Refused("it could not keep a message".to_owned()))
        }
        Ok(Err(error)) => Err(Failed::Unknown(error.to_string())),
        Err(_) => Err(Failed::Unknown("it does not answer".to_owned())),
    }
}
