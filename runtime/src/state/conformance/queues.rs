//! Cases of queues, and how they are used there.

mod deliveries;
mod sending;

use super::{Case, HasDatabase, HasQueue};
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Message, Outcome, QueueError, Settled};
use crate::state::wall_ms;

pub(super) fn cases<B: HasQueue>() -> Vec<Case<B>> {
    let mut cases = sending::cases();
    cases.extend(deliveries::cases());
    cases
}

/// Returns those about messages of transactions.
pub(super) fn cases_with_database<B: HasQueue + HasDatabase>() -> Vec<Case<B>> {
    sending::cases_with_database()
}

const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);

/// Sends so many messages: "0", "1" and so on.
async fn send<B: HasQueue>(on: &B, count: usize) {
    let messages = (0..count).map(|number| message(&number.to_string()));
    on.queue().send(messages.collect()).await.unwrap();
}

/// Sends messages with these keys: "0", "1" and so on.
async fn send_keyed<B: HasQueue>(on: &B, keys: &[&str]) {
    let keyed = |(number, &key): (usize, &&str)| Message {
        key: Some(key.to_owned()),
        ..message(&number.to_string())
    };
    let messages = keys.iter().enumerate().map(keyed);
    on.queue().send(messages.collect()).await.unwrap();
}

async fn take<B: HasQueue>(on: &mut B, session: SessionId, most: u32) -> Vec<Delivery> {
    on.queue().credit(session, most, 1);
    let (to, batch) = on.next_batch().await;
    assert_eq!(to, session);
    batch
}

async fn take_one<B: HasQueue>(on: &mut B, session: SessionId) -> Delivery {
    let mut batch = take(on, session, 1).await;
    assert_eq!(batch.len(), 1);
    batch.remove(0)
}

fn settle<B: HasQueue>(on: &B, session: SessionId, delivery: &Delivery, outcome: Outcome) {
    let settled = Settled {
        id: delivery.id.clone(),
        receipt: delivery.receipt,
        outcome,
    };
    on.queue().settle(session, vec![settled]);
}

/// Waits until as many messages are kept.
async fn holds<B: HasQueue>(on: &B, count: u64) {
    while on.queue().status().await.unwrap().messages != count {
        tokio::task::yield_now().await;
    }
}

/// Waits until there are as many dead letters.
async fn is_dead<B: HasQueue>(on: &B, count: u64) {
    while on.queue().status().await.unwrap().dead != count {
        tokio::task::yield_now().await;
    }
}

fn message(body: &str) -> Message {
    Message {
        body: body.into(),
        ..Message::default()
    }
}

fn bodies(batch: &[Delivery]) -> Vec<&str> {
    let bodies = batch.iter().map(|delivery| delivery.body.as_slice());
    bodies.map(|body| str::from_utf8(body).unwrap()).collect()
}
