//! What messages may contain, how their headers are kept, and what those of a dead letter tell.

use super::{BODY_MAX, DELAY_MAX, HEADERS_MAX, KEY_MAX, Message, QueueError, SEND_MAX};

/// A message's headers, in order.
pub(in crate::state) type Headers = Vec<(String, String)>;

/// What tells in a dead letter's headers how it came to be one.
const DEAD_HEADERS: [&str; 4] = [
    "wrun-dead-reason",
    "wrun-dead-queue",
    "wrun-dead-attempts",
    "wrun-dead-at",
];
/// The longest reason in bytes.
const REASON_MAX: usize = 1024;

/// None are NULL, so that they cost nothing.
pub(in crate::state) fn headers_to_text(headers: &[(String, String)]) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    serde_json::to_string(headers).ok()
}

pub(in crate::state) fn headers_from_text(text: Option<&str>) -> Headers {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Takes out what tells of a dead letter.
pub(in crate::state) fn remove_dead_headers(headers: &mut Headers) {
    headers.retain(|(name, _)| !DEAD_HEADERS.contains(&name.as_str()));
}

/// Says in a dead letter's headers why it is one, of which queue, after how many tries and since when.
pub(in crate::state) fn add_dead_headers(
    headers: &mut Headers,
    (reason, queue, attempts, at_ms): (&str, &str, u32, u64),
) {
    remove_dead_headers(headers);
    let values = [
        shorten(reason).to_owned(),
        queue.to_owned(),
        attempts.to_string(),
        at_ms.to_string(),
    ];
    headers.extend(DEAD_HEADERS.map(str::to_owned).into_iter().zip(values));
}

/// Returns as much of a reason as is kept.
pub(in crate::state) fn shorten(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_MAX)]
}

/// Refuses messages that are over their limits.
pub(in crate::state) fn validate(messages: &[Message]) -> Result<(), QueueError> {
    validate_beside(messages, 0)
}

/// Does the same, for messages whose headers will have so many bytes more.
pub(in crate::state) fn validate_beside(
    messages: &[Message],
    more: usize,
) -> Result<(), QueueError> {
    let too_large = |what: &str, max| {
        Err(QueueError::TooLarge(format!(
            "{what} is larger than {max} bytes"
        )))
    };
    if messages.is_empty() || messages.len() > SEND_MAX {
        return Err(QueueError::Invalid(format!(
            "from 1 to {SEND_MAX} messages can be sent together, not {}",
            messages.len()
        )));
    }
    for message in messages {
        if message.body.len() > BODY_MAX {
            return too_large("a body", BODY_MAX);
        }
        let headers: usize = message
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if headers + more > HEADERS_MAX {
            return too_large("the headers of a message", HEADERS_MAX);
        }
        for text in [&message.key, &message.dedup_id, &message.content_type]
            .into_iter()
            .flatten()
        {
            if text.len() > KEY_MAX {
                return too_large("a key, dedup id or content type", KEY_MAX);
            }
            if text.as_bytes().contains(&0) {
                return Err(QueueError::Invalid(
                    "a key, dedup id or content type contains NUL".to_owned(),
                ));
            }
        }
        if u128::from(message.delay_ms.unwrap_or(0)) > DELAY_MAX.as_millis() {
            return Err(QueueError::Invalid(format!(
                "a delay is longer than {} days",
                DELAY_MAX.as_secs() / 86_400
            )));
        }
    }
    Ok(())
}
