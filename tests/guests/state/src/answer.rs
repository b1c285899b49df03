//! Results as JSON: `{"ok": …}`, or `{"error": NAME, …}` with the name that the error has in `guest-sdk/wit`.

use serde_json::{Value, json};
use wrun_sdk::bindings::wrun::{db::db, lock::lock, queue::queue};
use wrun_sdk::http::{self, Response, StatusCode};

/// Returns a response with this value.
///
/// # Panics
///
/// If it is no JSON.
pub fn respond(value: &Value) -> Response {
    http::json(StatusCode::OK, value).expect("a value can be written")
}

/// Returns a result as JSON.
pub fn of<T: Into<Value>, E: Named>(result: Result<T, E>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value.into() }),
        Err(error) => error.named(),
    }
}

/// An error of the host's.
pub trait Named {
    /// Returns its name and whatever else it says.
    fn named(self) -> Value;
}

impl Named for lock::Error {
    fn named(self) -> Value {
        match self {
            Self::Denied(why) => error("denied", &why),
            Self::Invalid(why) => error("invalid", &why),
            Self::Timeout => error("timeout", ""),
            Self::Lost => error("lost", ""),
            Self::WouldDeadlock => error("would-deadlock", ""),
            Self::Limit(why) => error("limit", &why),
            Self::Unavailable(why) => error("unavailable", &why),
            Self::Other(why) => error("other", &why),
        }
    }
}

impl Named for db::Error {
    fn named(self) -> Value {
        match self {
            Self::Denied(why) => error("denied", &why),
            Self::Invalid(why) => error("invalid", &why),
            Self::Db(db::DbError {
                code,
                message,
                constraint,
                retryable,
            }) => json!({
                "error": "db",
                "code": code,
                "why": message,
                "constraint": constraint,
                "retryable": retryable,
            }),
            Self::Timeout(why) => error("timeout", &why),
            Self::Closed => error("closed", ""),
            Self::LostFence => error("lost-fence", ""),
            Self::OutcomeUnknown => error("outcome-unknown", ""),
            Self::TooLarge(why) => error("too-large", &why),
            Self::Unavailable(why) => error("unavailable", &why),
            Self::Other(why) => error("other", &why),
        }
    }
}

impl Named for queue::Error {
    fn named(self) -> Value {
        match self {
            Self::Denied(why) => error("denied", &why),
            Self::Invalid(why) => error("invalid", &why),
            Self::Full => error("full", ""),
            Self::TooLarge(why) => error("too-large", &why),
            Self::Closed => error("closed", ""),
            Self::OutcomeUnknown => error("outcome-unknown", ""),
            Self::NotYours => error("not-yours", ""),
            Self::Refused((code, why)) => json!({ "error": "refused", "code": code, "why": why }),
            Self::Unavailable(why) => error("unavailable", &why),
            Self::Other(why) => error("other", &why),
        }
    }
}

fn error(name: &str, why: &str) -> Value {
    json!({ "error": name, "why": why })
}
