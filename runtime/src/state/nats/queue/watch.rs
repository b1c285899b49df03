//! What a server hears: who is there and has which shard, and what other servers ask it.

use super::Store;
use crate::state::nats::feed::{Feed, From, Item};
use crate::state::nats::line::Failed;
use crate::state::queue::desk::Desk;
use crate::state::queue::sharing::PAUSE;
use async_nats::Message;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often it is looked whether the streams are made.
const LOOK: Duration = Duration::from_millis(10);

/// How long nothing has to come until all that there was has been seen.
const QUIET: Duration = Duration::from_millis(500);

/// What another server can be asked.
pub(super) const COUNTS: &str = "counts";
pub(super) const PURGE: &str = "purge";

/// How it stands with the messages that a server has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) ready: u64,
    pub(super) delayed: u64,
    pub(super) in_flight: u64,
    /// Those of which it is not written yet what became of them.
    pub(super) settled: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.ready += other.ready;
        self.delayed += other.delayed;
        self.in_flight += other.in_flight;
        self.settled += other.settled;
    }
}

/// Listens for as long as it is polled.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let presence = store.line.presence();
    loop {
        presence.back().await;
        let number = presence.number();
        let failed = tokio::select! {
            heard = listen(&store, &desk) => match heard {
                Ok(never) => match never {},
                Err(failed) => failed,
            },
            () = presence.is_other_than(number) => continue,
        };
        if !matches!(failed, Failed::Away(_)) {
            tracing::warn!(queue = store.label, %failed, "who has which messages is not known, trying again");
        }
        sleep(PAUSE).await;
    }
}

async fn listen(store: &Rc<Store>, desk: &Rc<Desk>) -> Result<Infallible, Failed> {
    let inbox = store.line.inbox()?;
    let mut questions = store.line.subscribe(inbox.clone()).await?;
    store.inbox.replace(inbox);
    while !store.is_made.get() {
        // The first round makes the stream.
        store.bell.wake();
        sleep(LOOK).await;
    }
    store.has_view.set(false);
    store.view.borrow_mut().clear();
    let seats = store.names.subject("seats.>");
    let mut feed = Feed::open(&store.line, &store.names.state, &seats, From::Last, false).await?;
    store.has_view.set(feed.pending == 0);
    store.bell.wake();
    loop {
        tokio::select! {
            item = feed.next() => {
                let item = item?;
                store.note(&item);
                if item.pending == 0 {
                    store.has_view.set(true);
                }
                store.bell.wake();
            }
            // What a server says of how much is left is not to be relied on after it was killed.
            () = sleep(QUIET), if !store.has_view.get() => {
                store.has_view.set(true);
                store.bell.wake();
            }
            question = questions.next() => {
                let gone = || Failed::Away("the connection broke".to_owned());
                answer(store, desk, &question.ok_or_else(gone)?);
            }
        }
    }
}

impl Store {
    fn note(&self, item: &Item) {
        let value = String::from_utf8_lossy(&item.payload).into_owned();
        let mut view = self.view.borrow_mut();
        let (names, now) = (&self.names, Instant::now());
        if let Some(holder) = names.rest(&item.subject, "seats.holder.") {
            view.note_holder(holder, item.sequence, value, now);
            return;
        }
        let shard = names.rest(&item.subject, "seats.shard.");
        if let Some(shard) = shard.and_then(|it| it.parse().ok()) {
            view.note_shard(shard, item.sequence, value, now);
        }
    }

    /// Returns how it stands here.
    pub(super) fn own_counts(&self, desk: &Desk) -> Counts {
        desk.run();
        let counts = desk.lanes.borrow().counts();
        let kept: HashSet<i64> = desk.lanes.borrow().ids().into_iter().collect();
        let mut settled = desk.journal.ids();
        settled.retain(|id| !kept.contains(id));
        Counts {
            messages: counts.messages as u64,
            ready: counts.ready as u64,
            delayed: counts.delayed as u64,
            in_flight: counts.in_flight as u64,
            settled: settled.len() as u64,
        }
    }

    /// Asks all other servers that have messages; those that do not answer are left out.
    pub(super) async fn ask_others<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
    ) -> Vec<Result<T, Failed>> {
        let others = {
            let tenure = self.tenure.borrow();
            self.view
                .borrow()
                .others(tenure.holder.as_deref(), Instant::now())
        };
        let ask = |place: String| async move {
            let answer = self.line.request(&place, None, what.into()).await?;
            let wrong = |error: serde_json::Error| Failed::Unknown(error.to_string());
            serde_json::from_slice(&answer.payload).map_err(wrong)
        };
        futures_util::future::join_all(others.into_iter().map(ask)).await
    }
}

/// Answers another server.
fn answer(store: &Rc<Store>, desk: &Rc<Desk>, question: &Message) {
    let Some(to) = question.reply.as_ref().map(ToString::to_string) else {
        return;
    };
    let is_purge = *question.payload == *PURGE.as_bytes();
    let (store, desk) = (store.clone(), desk.clone());
    tokio::task::spawn_local(async move {
        let text = match is_purge {
            true => match store.purge_own(&desk).await {
                Ok(count) => serde_json::to_vec(&count),
                // Who asks hears nothing.
                Err(_) => return,
            },
            false => serde_json::to_vec(&store.own_counts(&desk)),
        };
        store.line.answer(to, text.unwrap_or_default().into()).await;
    });
}
