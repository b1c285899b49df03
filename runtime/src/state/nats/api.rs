//! What JetStream is asked, and its answers: the requests of its API that wrun needs, as JSON.
//!
//! The crate has them, too, with its feature `jetstream`; which has tokio built with the clock of tests.

use super::line::{self, Failed, Line};
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Where an account asks how it stands.
pub(super) const INFO: &str = "$JS.API.INFO";

/// Why something is refused, by JetStream's numbers; the last one is the crate's.
const NO_STREAM: u64 = 10059;
const NO_MESSAGE: u64 = 10037;
const NO_SEQUENCE: u64 = 10043;
const NOT_DELETED: u64 = 10057;
pub(super) const OTHER_SEQUENCE: u64 = 10071;
pub(super) const FULL: u64 = 10077;
pub(super) const TOO_LARGE: u64 = u64::MAX;

/// Why a message was not deleted that is not there.
const GONE: [&str; 2] = ["no message found", "stream store EOF"];

/// Has a message taken only if the last one of its subject is this one; 0 stands for none.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
pub(super) const DEDUP_ID: &str = "Nats-Msg-Id";

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A message was taken.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Taken {
    pub(super) seq: u64,
    /// Another one with the same id was, before.
    #[serde(default)]
    pub(super) duplicate: bool,
}

/// A stream.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    pub(super) config: Value,
    pub(super) state: Contents,
}

/// What is in it.
#[derive(Debug, Deserialize)]
pub(super) struct Contents {
    pub(super) messages: u64,
    pub(super) first_ts: String,
}

/// An account of JetStream's.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Account {
    #[serde(default)]
    pub(super) storage: u64,
    #[serde(default)]
    pub(super) limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Limits {
    #[serde(default)]
    pub(super) max_storage: i64,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

/// Something of which nothing is to be known but that it was done.
#[derive(Deserialize)]
struct Done {}

const LIMIT: &str = "max_msgs";

fn limit(config: &Value) -> i64 {
    config.get(LIMIT).and_then(Value::as_i64).unwrap_or(-1)
}

/// Reads an answer of the API.
pub(super) fn read<T: DeserializeOwned>(message: &Message) -> Result<T, Failed> {
    let wrong = |why: String| Failed::Unknown(format!("an answer that makes no sense: {why}"));
    let answer: Value =
        serde_json::from_slice(&message.payload).map_err(|error| wrong(error.to_string()))?;
    if let Some(error) = answer.get("error") {
        let Refusal {
            err_code,
            description,
        } = Refusal::deserialize(error).map_err(|error| wrong(error.to_string()))?;
        return Err(Failed::Refused(err_code, description));
    }
    T::deserialize(answer).map_err(|error| wrong(error.to_string()))
}

/// Asks how the account stands, which tells whether there is JetStream.
pub(super) async fn account(client: &Client) -> Result<Account, Failed> {
    read(&line::request(client, INFO, None, Bytes::new()).await?)
}

impl Line {
    /// Sends a message to a stream, and waits until it is kept.
    pub(super) async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Taken, Failed> {
        read(&self.request(subject, Some(headers), payload).await?)
    }

    /// Puts a value in the place of the one whose message has this number, 0 if there is none.
    pub(super) async fn replace(
        &self,
        subject: &str,
        value: &str,
        expected: u64,
    ) -> Result<u64, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, expected.to_string());
        let value = Bytes::from(value.to_owned());
        Ok(self.publish(subject, headers, value).await?.seq)
    }

    /// Returns a stream; `None` if there is none.
    pub(super) async fn stream(&self, stream: &str) -> Result<Option<Stream>, Failed> {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        match self.ask(&subject, &json!({})).await {
            Ok(found) => Ok(Some(found)),
            Err(Failed::Refused(NO_STREAM, _)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Makes a stream, or has one that is there be so; but its limit of messages is never lowered, because messages that are
    /// over it would be deleted. Returns that limit.
    pub(super) async fn make(&self, stream: &str, mut wanted: Value) -> Result<i64, Failed> {
        let Some(found) = self.stream(stream).await? else {
            let subject = format!("$JS.API.STREAM.CREATE.{stream}");
            self.ask::<Stream>(&subject, &wanted).await?;
            return Ok(limit(&wanted));
        };
        if wanted.get(LIMIT).is_some() {
            let limit = match limit(&found.config) {
                // No limit.
                ..=0 => -1,
                there => there.max(limit(&wanted)),
            };
            wanted[LIMIT] = limit.into();
        }
        let mut config = found.config.clone();
        if let (Some(config), Some(wanted)) = (config.as_object_mut(), wanted.as_object()) {
            config.extend(wanted.clone());
        }
        if config != found.config {
            let subject = format!("$JS.API.STREAM.UPDATE.{stream}");
            self.ask::<Stream>(&subject, &config).await?;
        }
        Ok(limit(&config))
    }

    /// Deletes a message; false if it is not there. Its place in the file is written over: without that the server would only
    /// note that it is gone, and a server that is killed right after would have it again.
    pub(super) async fn delete(&self, stream: &str, sequence: u64) -> Result<bool, Failed> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{stream}");
        let which = json!({ "seq": sequence });
        match self.ask::<Done>(&subject, &which).await {
            Ok(Done {}) => Ok(true),
            // Which of them depends on whether there are messages before it.
            Err(Failed::Refused(NO_SEQUENCE, _)) => Ok(false),
            Err(Failed::Refused(NOT_DELETED, why)) if GONE.contains(&&*why) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Deletes the messages of a subject; returns how many.
    pub(super) async fn purge(&self, stream: &str, filter: &str) -> Result<u64, Failed> {
        let subject = format!("$JS.API.STREAM.PURGE.{stream}");
        let purged: Purged = self.ask(&subject, &json!({ "filter": filter })).await?;
        Ok(purged.purged)
    }

    /// Returns the number of the last message of a subject; `None` if there is none.
    pub(super) async fn last(&self, stream: &str, subject: &str) -> Result<Option<u64>, Failed> {
        let which = json!({ "last_by_subj": subject });
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        match self.ask::<Value>(&subject, &which).await {
            Ok(found) => Ok(found["message"]["seq"].as_u64()),
            Err(Failed::Refused(NO_MESSAGE, _)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Returns what the last message of a subject says; `None` if there is none.
    pub(super) async fn value(&self, stream: &str, subject: &str) -> Result<Option<Bytes>, Failed> {
        let which = serde_json::to_vec(&json!({ "last_by_subj": subject })).unwrap_or_default();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let found = self.request(&subject, None, which.into()).await?;
        Ok(found.status.is_none().then_some(found.payload))
    }

    /// Returns a message; `None` if it is not there.
    pub(super) async fn get(&self, stream: &str, sequence: u64) -> Result<Option<Message>, Failed> {
        let which = serde_json::to_vec(&json!({ "seq": sequence })).unwrap_or_default();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let found = self.request(&subject, None, which.clone().into()).await?;
        if found.status.is_none() {
            return Ok(Some(found));
        }
        // Whichever of several copies has answered may be behind: only the first of them knows that it is gone.
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let asked = self.request(&subject, None, which.into()).await?;
        match read::<Value>(&asked) {
            Ok(_) => Err(Failed::Refused(0, "a copy is behind".to_owned())),
            Err(Failed::Refused(NO_MESSAGE, _)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }
}
