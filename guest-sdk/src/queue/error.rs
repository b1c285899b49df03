//! Why a message was not taken.

use crate::bindings::wrun::queue::queue as host;

/// Why a message was not taken. Unless it says otherwise, none of those sent together was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest does not grant this queue.
    #[error("queue denied: {0}")]
    Denied(String),
    /// The request makes no sense: no message, too many, a queue of another database than the transaction's.
    #[error("invalid message: {0}")]
    Invalid(String),
    /// The queue holds as many messages as it may.
    #[error("the queue is full")]
    Full,
    /// A message is over its limit.
    #[error("message too large: {0}")]
    TooLarge(String),
    /// The transaction has ended.
    #[error("the transaction has ended")]
    Closed,
    /// The connection broke after the messages were sent: nobody can tell whether they were taken. A
    /// [`dedup_id`](super::Message::dedup_id) makes it safe to send them again.
    #[error("the connection broke, nobody can tell whether the message was taken")]
    OutcomeUnknown,
    /// The delivery is not this instance's, or not any more.
    #[error("the delivery is somebody else's, or over")]
    NotYours,
    /// The engine refused.
    #[error("{code}: {message}")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// For people.
        message: String,
    },
    /// The queue cannot be reached just now. Nothing was taken.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
    /// A value cannot be written as JSON.
    #[error("a message cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        match error {
            host::Error::Denied(what) => Self::Denied(what),
            host::Error::Invalid(what) => Self::Invalid(what),
            host::Error::Full => Self::Full,
            host::Error::TooLarge(what) => Self::TooLarge(what),
            host::Error::Closed => Self::Closed,
            host::Error::OutcomeUnknown => Self::OutcomeUnknown,
            host::Error::NotYours => Self::NotYours,
            host::Error::Refused((code, message)) => Self::Refused { code, message },
            host::Error::Unavailable(what) => Self::Unavailable(what),
            host::Error::Other(what) => Self::Other(what),
        }
    }
}
