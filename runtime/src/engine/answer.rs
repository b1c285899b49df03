//! A guest's answer on its way to the client: whether it is one, and whether it has a body on the wire.

use super::body::{GuestBody, ResponseBody};
use super::guest::{Guest, Stopped};
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};

/// Runs `guest` until the head of its answer is known, and checks that. `to_head` tells that it answers HEAD; its body may
/// have up to `body_max` bytes.
pub(super) async fn answer(
    guest: Guest,
    to_head: bool,
    body_max: u64,
) -> Result<Response<ResponseBody>, Stopped> {
    let (response, rest) = guest.head().await?;
    let (mut head, body) = response.into_parts();
    if head.status.is_informational() {
        return Err(Stopped::Invalid(format!(
            "status {} is no final answer",
            head.status.as_u16()
        )));
    }
    let body = GuestBody::new(body, rest, body_max);
    // These have no length to tell, other than answers to HEAD and 304 (RFC 9110 §8.6 and §15.3.6).
    let lengthless = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT
    );
    if to_head || lengthless || head.status == StatusCode::NOT_MODIFIED {
        body.discard();
        if lengthless {
            head.headers.remove(CONTENT_LENGTH);
        }
        return Ok(Response::from_parts(head, ResponseBody::Full(None)));
    }
    Ok(Response::from_parts(head, ResponseBody::of(body).await?))
}
