//! Batches on their way from the lanes to their sessions: their messages are read from where they are kept.
//!
//! Until a batch is with its session it can be taken back, and then it was no try.

use super::{Desk, PAUSE};
use crate::state::Millis;
use crate::state::lock::SessionId;
use crate::state::queue::lanes::{Handed, Lanes};
use crate::state::queue::stored::StoredMessage;
use crate::state::queue::{Delivery, QueueError};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The content of one batch, or of one answer to `peek`, in bytes: a frame has room for it. Messages beyond it come with
/// the next batch.
pub(in crate::state) const BATCH_BYTES_MAX: usize = 8 << 20;
/// Messages that are read at a time.
const READ_MAX: usize = 64;

/// What was found for each message that was looked for: nothing if it is gone. One that is missing was not looked at.
pub(in crate::state) type Found = HashMap<i64, Option<StoredMessage>>;

/// The batches whose messages have to be read, or are being read.
#[derive(Default)]
pub(super) struct Outgoing {
    batches: RefCell<VecDeque<Batch>>,
    more: Notify,
}

pub(super) struct Batch {
    pub(super) session: SessionId,
    pub(super) messages: Vec<Handed>,
    pub(super) deadline: Millis,
}

impl Outgoing {
    pub(super) fn push(&self, batch: Batch) {
        self.batches.borrow_mut().push_back(batch);
        self.more.notify_one();
    }

    /// Takes back what is on its way to a session.
    pub(super) fn take_back(&self, session: SessionId, lanes: &mut Lanes) {
        for batch in self.batches.borrow().iter() {
            if batch.session == session {
                lanes.take_back(session, &batch.messages);
            }
        }
    }

    /// Returns how many batches to read next, and their messages.
    fn first(&self) -> (usize, Vec<i64>) {
        let mut ids = Vec::new();
        for (count, batch) in self.batches.borrow().iter().enumerate() {
            if ids.len() >= READ_MAX {
                return (count, ids);
            }
            ids.extend(batch.messages.iter().map(|handed| handed.id));
        }
        (self.batches.borrow().len(), ids)
    }

    fn pop(&self, count: usize) -> Vec<Batch> {
        self.batches.borrow_mut().drain(..count).collect()
    }
}

/// Reads batches and gives them to their sessions, for as long as it is polled.
pub(super) async fn hand_out(queue: Rc<Desk>) {
    loop {
        let (count, ids) = queue.outgoing.first();
        if count == 0 {
            queue.outgoing.more.notified().await;
            continue;
        }
        match read(&queue, &ids).await {
            Ok(found) => send_on(&queue, queue.outgoing.pop(count), found),
            Err(error) => {
                tracing::warn!(queue = queue.label, %error, "messages cannot be read");
                give_back(&queue, queue.outgoing.pop(count));
                sleep(PAUSE).await;
            }
        }
        queue.run();
    }
}

/// Reads messages, the first ones alone if they are as much as a batch can be.
async fn read(queue: &Desk, ids: &[i64]) -> Result<Found, QueueError> {
    let mut found = Found::new();
    let mut taken = 0;
    for ids in ids.chunks(READ_MAX) {
        for (id, message) in queue.shelf.read(ids.to_vec()).await? {
            taken += message.as_ref().map_or(0, size);
            found.insert(id, message);
        }
        if taken >= BATCH_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}

fn give_back(queue: &Desk, batches: Vec<Batch>) {
    let mut lanes = queue.lanes.borrow_mut();
    for batch in batches {
        lanes.take_back(batch.session, &batch.messages);
        lanes.refund(batch.session);
    }
}

fn send_on(queue: &Desk, batches: Vec<Batch>, mut found: Found) {
    for batch in batches {
        let session = batch.session;
        let deliveries = fill(queue, batch, &mut found);
        if deliveries.is_empty() {
            queue.lanes.borrow_mut().refund(session);
        } else {
            (queue.sink)(session, deliveries);
        }
    }
}

/// Returns the deliveries of a batch, but for those that were taken from its session meanwhile, that are gone, or that
/// have no room.
fn fill(queue: &Desk, batch: Batch, found: &mut Found) -> Vec<Delivery> {
    let mut lanes = queue.lanes.borrow_mut();
    let mut taken = 0;
    let mut deliveries = Vec::with_capacity(batch.messages.len());
    for handed in batch.messages {
        if !lanes.holds(batch.session, handed.id, handed.receipt) {
            continue;
        }
        match found.remove(&handed.id) {
            Some(None) => lanes.forget(handed.id),
            Some(Some(message)) if fit(&message, &mut taken) => {
                deliveries.push(delivery(queue, message, handed, batch.deadline));
            }
            _ => lanes.take_back(batch.session, &[handed]),
        }
    }
    deliveries
}

fn delivery(queue: &Desk, message: StoredMessage, handed: Handed, deadline: Millis) -> Delivery {
    Delivery {
        id: queue.shelf.outside(handed.id),
        receipt: handed.receipt,
        queue: queue.label.clone(),
        key: message.stored.key,
        attempt: handed.attempt,
        max_attempts: queue.max_attempts.get(),
        sent_at_ms: message.stored.sent_at_ms,
        deadline_ms: queue.to_wall(deadline),
        content_type: message.content_type,
        headers: message.headers,
        body: message.body,
    }
}

/// Tells whether a message fits behind what is taken already, and takes it. The first one always fits.
pub(in crate::state) fn fit(message: &StoredMessage, taken: &mut usize) -> bool {
    let size = size(message);
    let fits = *taken == 0 || *taken + size <= BATCH_BYTES_MAX;
    *taken += size;
    fits
}

fn size(message: &StoredMessage) -> usize {
    let headers = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len());
    message.body.len() + headers.sum::<usize>()
}
