//! How messages come to be known here: all of the shards that this server has, without what is in them.

use super::Store;
use super::envelope::{Envelope, unpack};
use super::index::Row;
use super::settle::Tries;
use crate::state::nats::feed::{self, Feed, From, Item};
use crate::state::nats::line::Failed;
use crate::state::queue::DELAY_MAX;
use crate::state::queue::desk::Desk;
use crate::state::queue::lanes::Entry;
use crate::state::queue::sharing::PAUSE;
use crate::state::wall_ms;
use futures_util::FutureExt as _;
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::time::sleep;

/// Messages that are taken at a time, if they are there.
const CHUNK: usize = 256;

/// How often each message was tried that was.
type AllTries = HashMap<i64, Tries>;

/// Reads for as long as it is polled.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let presence = store.line.presence();
    loop {
        presence.back().await;
        let number = presence.number();
        if store.shards().is_empty() {
            store.reload.notified().await;
            continue;
        }
        let failed = tokio::select! {
            read = read(&store, &desk) => match read {
                Ok(never) => match never {},
                Err(failed) => failed,
            },
            () = store.reload.notified() => continue,
            () = presence.is_other_than(number) => continue,
        };
        if !matches!(failed, Failed::Away(_)) {
            tracing::warn!(queue = store.label, %failed, "messages cannot be read, trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Reads from the beginning. What is here already is passed over, and what was handled meanwhile is found to be gone when it
/// is to be handed out.
async fn read(store: &Store, desk: &Desk) -> Result<Infallible, Failed> {
    let all = store.names.subject("tries.>");
    let written = feed::read(
        &store.line,
        &store.names.state,
        &all,
        (usize::MAX, usize::MAX),
    )
    .await?;
    let tries: AllTries = written
        .iter()
        .filter_map(|item| store.tries(item))
        .collect();
    let (stream, subjects) = (&store.names.messages, store.names.shard("*"));
    let mut feed = Feed::open(&store.line, stream, &subjects, From::All, true).await?;
    loop {
        let mut items = vec![feed.next().await?];
        while items.len() < CHUNK {
            match feed.next().now_or_never() {
                Some(item) => items.push(item?),
                None => break,
            }
        }
        let entries = items
            .iter()
            .filter_map(|item| store.entry(item, &tries, desk));
        let entries = entries.collect();
        // Of those whose outcome is on its way it is known.
        desk.add_claimed(entries);
    }
}

impl Store {
    /// Reads how often a message was tried.
    fn tries(&self, item: &Item) -> Option<(i64, Tries)> {
        let (_, id) = self.names.rest(&item.subject, "tries.")?.split_once('.')?;
        Some((
            id.parse().ok()?,
            serde_json::from_slice(&item.payload).ok()?,
        ))
    }

    /// Returns a message as the lanes know it, if it is of a shard that is held here.
    fn entry(&self, item: &Item, tries: &AllTries, desk: &Desk) -> Option<Entry> {
        let shard = self.names.shard_of(&item.subject)?;
        if !self.tenure.borrow().takes(shard) {
            return None;
        }
        let id = i64::try_from(item.sequence).ok()?;
        let Envelope {
            id: outside,
            exact,
            delay_ms,
            sent_at_ms,
            ..
        } = unpack(&item.headers);
        let at_ms = item.at_ns / 1_000_000;
        let tries = tries.get(&id);
        let row = Row {
            shard,
            key: exact.key.clone(),
            outside,
            at_ns: item.at_ns,
            sent_at_ms: sent_at_ms.unwrap_or(at_ms),
            has_tries: tries.is_some(),
        };
        self.index.borrow_mut().add(id, row);
        let delay_ms = delay_ms.min(DELAY_MAX.as_millis() as u64);
        let ready_at_ms = tries.map_or(at_ms.saturating_add(delay_ms), |it| it.ready_at_ms);
        Some(Entry {
            id,
            key: exact.key,
            attempts: tries.map_or(0, |it| it.attempts),
            alone: tries.is_some_and(|it| it.alone),
            ready_at: match ready_at_ms.saturating_sub(wall_ms()) {
                0 => desk.now(),
                // Both clocks are read in whole milliseconds: without one more it could come early by a part of one.
                left => desk.now().saturating_add(left).saturating_add(1),
            },
        })
    }
}
