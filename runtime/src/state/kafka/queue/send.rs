//! How messages come in: produced, and acknowledged when Kafka has confirmed them.

use super::{Store, changed};
use crate::state::kafka::clients::code;
use crate::state::kafka::line::{Clients, Failed, Live};
use crate::state::queue::content::validate;
use crate::state::queue::letter::Letter;
use crate::state::queue::{Message, QueueError};
use futures_util::future::join_all;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::BaseRecord;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::oneshot;

impl Store {
    /// Takes messages. They are sent together, and not at one stroke: if something goes wrong with some of them, nobody knows.
    pub(super) async fn send(&self, messages: Vec<Message>) -> Result<Vec<String>, QueueError> {
        validate(&messages)?;
        let mut names = messages.iter().flat_map(|message| &message.headers);
        if names.any(|(name, _)| name.contains('\0')) {
            let what = "the name of a header contains NUL";
            return Err(QueueError::Invalid(what.to_owned()));
        }
        let letters: Vec<Letter> = messages
            .into_iter()
            .map(|message| Letter::new(&self.label, message))
            .collect::<Result<_, _>>()?;
        let ids: Vec<String> = letters.iter().map(|letter| letter.id.clone()).collect();
        let live = self.line.live().map_err(changed)?;
        self.admit(&live, letters.len() as u64).await?;
        let clients = live.clients().map_err(changed)?;
        let topic = &self.line.names().topic;
        let mut known = HashSet::new();
        let once = letters.iter().filter(|letter| known.insert(&letter.id));
        let sent = join_all(once.map(|letter| produce(&clients, topic, letter))).await;
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
        let kept = self.counts(live).await.map_err(super::looked)?.messages;
        let mut room = self.room.borrow_mut();
        room.count(self.max_depth.get().saturating_sub(kept));
        room.take(count).ok_or(QueueError::Full)
    }
}

/// Produces a message. It is on its way in its turn when this returns; what that returns is ready when Kafka has it.
pub(super) fn produce(
    clients: &Arc<Clients>,
    topic: &str,
    letter: &Letter,
) -> impl Future<Output = Result<(), Failed>> + use<> {
    let (confirm, confirmed) = oneshot::channel();
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(confirm))
        .payload(letter.body.as_slice())
        .headers(letter.headers());
    if let Some(key) = &letter.key {
        record = record.key(key.as_str());
    }
    let begun = clients.producer.send(record);
    let begun = begun.map_err(|(error, _)| refused(code(&error)));
    async move {
        begun?;
        match confirmed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(code)) => Err(refused(code)),
            Err(_) => Err(Failed::Unknown("the client ended".to_owned())),
        }
    }
}

/// Tells an error that says that a message was not taken from one that says nothing.
fn refused(code: RDKafkaErrorCode) -> Failed {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge
        | RDKafkaErrorCode::QueueFull
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::InvalidRecord => Failed::Refused(code.to_string()),
        _ => Failed::Unknown(code.to_string()),
    }
}
