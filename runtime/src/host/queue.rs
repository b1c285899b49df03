//! `wrun:queue`: messages to queues that the state process keeps, and more time for those that a guest is handling.
//!
//! How messages come to a guest is the worker's business; only their form is here.

use super::bindings::exports::wrun::queue::consumer;
use super::bindings::wrun::queue::queue::{Error, Host, HostQueue, Message};
use super::shared::{Kind, Opened, ShareView};
use crate::state::client::Transaction;
use crate::state::queue::{self, QueueError};
use tokio::time::Instant;
use wasmtime::component::Resource;

/// A queue that a guest has opened.
pub struct Queue(Opened);

impl HostQueue for ShareView<'_> {
    fn open(&mut self, label: String) -> Result<Resource<Queue>, QueueError> {
        let opened = self.share.open(Kind::Queue, label);
        let queue = Queue(opened.map_err(QueueError::Denied)?);
        Ok(self.table.push(queue)?)
    }

    async fn send(
        &mut self,
        queue: Resource<Queue>,
        messages: Vec<Message>,
    ) -> Result<Vec<String>, QueueError> {
        self.share
            .quota
            .send(messages.len())
            .map_err(QueueError::TooLarge)?;
        let Queue(Opened { label, client }) = self.table.get(&queue)?;
        client.send(label, sent(messages)).await
    }

    async fn send_in(
        &mut self,
        queue: Resource<Queue>,
        tx: Resource<Transaction>,
        messages: Vec<Message>,
    ) -> Result<Vec<String>, QueueError> {
        self.share
            .quota
            .send(messages.len())
            .map_err(QueueError::TooLarge)?;
        let Queue(Opened { label, .. }) = self.table.get(&queue)?;
        let tx = self.table.get(&tx)?;
        tx.send(label, sent(messages)).await
    }

    fn drop(&mut self, queue: Resource<Queue>) -> wasmtime::Result<()> {
        self.table.delete(queue)?;
        Ok(())
    }
}

impl Host for ShareView<'_> {
    async fn extend(&mut self, delivery_id: String, ms: u32) -> Result<(), QueueError> {
        let Some((batch, client)) = self.share.handling() else {
            return Err(QueueError::NotYours);
        };
        if !batch.has(&delivery_id) {
            return Err(QueueError::NotYours);
        }
        // The time of the state process runs from a little later.
        let now = Instant::now();
        client
            .extend_delivery(batch.queue(), delivery_id.clone(), ms)
            .await?;
        batch.extend(&delivery_id, ms, now);
        Ok(())
    }

    fn convert_error(&mut self, error: QueueError) -> wasmtime::Result<Error> {
        Ok(match error {
            QueueError::Denied(why) => Error::Denied(why),
            QueueError::Invalid(why) => Error::Invalid(why),
            QueueError::Full => Error::Full,
            QueueError::TooLarge(what) => Error::TooLarge(what),
            QueueError::Closed => Error::Closed,
            QueueError::OutcomeUnknown => Error::OutcomeUnknown,
            QueueError::NotYours => Error::NotYours,
            QueueError::Refused(code, message) => Error::Refused((code, message)),
            QueueError::Unavailable(why) => Error::Unavailable(why),
            QueueError::Other(what) => Error::Other(what),
        })
    }
}

fn sent(messages: Vec<Message>) -> Vec<queue::Message> {
    let convert = |message: Message| queue::Message {
        body: message.body,
        content_type: message.content_type,
        headers: message.headers,
        key: message.key,
        dedup_id: message.dedup_id,
        delay_ms: message.delay_ms,
    };
    messages.into_iter().map(convert).collect()
}

/// Returns what a guest is told of a delivery. Takes what only the guest needs, leaves what says which delivery it is.
pub(crate) fn handed_over(delivery: &mut queue::Delivery) -> consumer::Delivery {
    consumer::Delivery {
        id: delivery.id.clone(),
        queue: delivery.queue.clone(),
        key: delivery.key.clone(),
        attempt: delivery.attempt,
        max_attempts: delivery.max_attempts,
        sent_at_ms: delivery.sent_at_ms,
        deadline_ms: delivery.deadline_ms,
        content_type: delivery.content_type.take(),
        headers: std::mem::take(&mut delivery.headers),
        body: std::mem::take(&mut delivery.body),
    }
}

/// The longest reason that a guest may give for a dead letter, in bytes; the rest is dropped.
const REASON_MAX: usize = 1024;

/// Returns what became of a delivery, as its guest says.
pub(crate) fn settled(outcome: consumer::Outcome) -> queue::Outcome {
    match outcome {
        consumer::Outcome::Ack => queue::Outcome::Ack,
        consumer::Outcome::Retry(delay_ms) => queue::Outcome::Retry(delay_ms),
        consumer::Outcome::Dead(mut reason) => {
            reason.truncate(reason.floor_char_boundary(REASON_MAX));
            queue::Outcome::Dead(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_that_was_handed_over_can_still_be_settled() {
        let mut delivery = queue::Delivery {
            id: "1".to_owned(),
            receipt: 7,
            queue: "orders".to_owned(),
            key: Some("k".to_owned()),
            attempt: 2,
            max_attempts: 5,
            sent_at_ms: 10,
            deadline_ms: 20,
            content_type: Some("text/plain".to_owned()),
            headers: vec![("a".to_owned(), "b".to_owned())],
            body: b"hello".to_vec(),
        };
        let given = handed_over(&mut delivery);
        assert_eq!(given.body, b"hello");
        assert_eq!(given.headers, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(given.key.as_deref(), Some("k"));
        assert_eq!((given.attempt, given.max_attempts), (2, 5));
        assert_eq!((delivery.id.as_str(), delivery.receipt), ("1", 7));
    }

    #[test]
    fn reason_of_a_dead_letter_is_cut_between_characters() {
        let outcome = consumer::Outcome::Dead("ä".repeat(REASON_MAX));
        let queue::Outcome::Dead(reason) = settled(outcome) else {
            panic!("it was dead")
        };
        assert_eq!(reason, "ä".repeat(REASON_MAX / 2));
    }
}
