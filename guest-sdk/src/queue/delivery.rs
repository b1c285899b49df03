//! A message on its way to a handler, and what becomes of it.

use super::{Delivery, Error, host};
use crate::bindings::exports::wrun::queue::consumer;
use crate::millis;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::time::Duration;

impl Delivery {
    /// Reads the content as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Returns the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Tells whether this is the last try: after it the message goes to the dead letters.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// Gives this try `time` from now, at most 12 hours: for work that takes longer than the queue's
    /// `visibility-timeout`.
    pub fn extend(&self, time: Duration) -> Result<(), Error> {
        Ok(host::extend(&self.id, millis::short(time))?)
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Handled: it will not come again.
    Ack,
    /// Not handled: it comes again after this time, or after the queue's backoff. After its last attempt it goes to the
    /// dead letters.
    Retry(Option<Duration>),
    /// It can never be handled: to the dead letters, with this reason.
    Dead(String),
}

impl From<Outcome> for consumer::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ack => Self::Ack,
            Outcome::Retry(after) => Self::Retry(after.map(millis::whole)),
            Outcome::Dead(reason) => Self::Dead(reason),
        }
    }
}

/// What a handler of messages may return.
pub trait IntoOutcome {
    /// Says what became of the delivery with this id.
    fn into_outcome(self, id: &str) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self, _id: &str) -> Outcome {
        self
    }
}

/// Handled.
impl IntoOutcome for () {
    fn into_outcome(self, _id: &str) -> Outcome {
        Outcome::Ack
    }
}

/// An error is written to the log, and the message comes again.
impl<T: IntoOutcome, E: Display> IntoOutcome for Result<T, E> {
    fn into_outcome(self, id: &str) -> Outcome {
        match self {
            Ok(outcome) => outcome.into_outcome(id),
            Err(error) => {
                eprintln!("failed to handle message {id}: {error:#}");
                Outcome::Retry(None)
            }
        }
    }
}

/// Handles a batch, one delivery after the other.
pub(crate) fn handle_all<O: IntoOutcome>(
    handle: impl Fn(Delivery) -> O,
    batch: Vec<Delivery>,
) -> Vec<consumer::Outcome> {
    let one = |delivery: Delivery| {
        let id = delivery.id.clone();
        handle(delivery).into_outcome(&id).into()
    };
    batch.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_retry() {
        assert_eq!(().into_outcome("1"), Outcome::Ack);
        assert_eq!(Ok::<_, String>(()).into_outcome("1"), Outcome::Ack);
        assert_eq!(Err::<(), _>("no").into_outcome("1"), Outcome::Retry(None));
        let dead = Outcome::Dead("why".to_owned());
        assert_eq!(Ok::<_, String>(dead.clone()).into_outcome("1"), dead);
    }
}
