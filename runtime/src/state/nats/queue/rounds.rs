//! The rounds of a server: it sees to the streams, renews its lease, and has as many shards as the others; for as long as
//! NATS is there.
//!
//! A lease is a message that is put in the place of the one before it. Whoever finds a server gone deletes that message, by
//! its number: if it was renewed meanwhile there is none of that number, and if it was deleted, it cannot be renewed.

use super::Store;
use super::names::SHARDS;
use super::seats::{Move, Own};
use crate::state::nats::api::OTHER_SEQUENCE;
use crate::state::nats::line::Failed;
use crate::state::queue::DEDUP_WINDOW;
use crate::state::queue::desk::Desk;
use crate::state::queue::sharing::{LEASE, PAUSE, POLL, RENEW};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;
use tokio::time::{Instant, sleep};

/// By what right this server has shards, and which.
#[derive(Debug, Default)]
pub(super) struct Tenure {
    pub(super) holder: Option<String>,
    /// The number of the message that says so.
    sequence: u64,
    /// When it was said last.
    renewed_at: Option<Instant>,
    pub(super) shards: BTreeSet<u8>,
    /// Those of them that are given back.
    leaving: BTreeSet<u8>,
}

impl Tenure {
    /// Tells whether nobody else can have the shards.
    pub(super) fn is_good(&self) -> bool {
        self.renewed_at.is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Tells whether messages of a shard are handled here.
    pub(super) fn takes(&self, shard: u8) -> bool {
        self.shards.contains(&shard) && !self.leaving.contains(&shard)
    }

    pub(super) fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }
}

/// Makes the rounds for as long as it is polled.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let presence = store.line.presence();
    let mut connection = None;
    loop {
        presence.back().await;
        let number = presence.number();
        if number != connection {
            store.is_made.set(false);
            connection = number;
        }
        match store.round(&desk).await {
            Ok(()) => {
                // All ways there is something to look at.
                tokio::select! {
                    () = sleep(POLL) => {}
                    () = store.bell.work.notified() => {}
                    () = presence.is_other_than(number) => {}
                }
            }
            Err(failed) => {
                if !matches!(failed, Failed::Away(_)) {
                    tracing::warn!(queue = store.label, %failed, "messages cannot be taken, trying again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

impl Store {
    async fn round(&self, desk: &Desk) -> Result<(), Failed> {
        if !self.is_made.get() {
            self.make_streams().await?;
            self.is_made.set(true);
        }
        let is_held = self.tenure.borrow().holder.is_some();
        if is_held {
            self.hold(desk).await?;
        }
        if !self.has_view.get() || !(is_held || self.is_taking.get()) {
            return Ok(());
        }
        let holder = self.hold(desk).await?;
        let has_all = self
            .view
            .borrow()
            .has_all(&holder, &self.tenure.borrow().shards);
        if !has_all {
            self.lose(desk);
            self.bell.wake();
            return Ok(());
        }
        let moves = {
            let tenure = self.tenure.borrow();
            let own = Own {
                holder: &holder,
                server: &self.server,
                is_taking: self.is_taking.get(),
                shards: &tenure.shards,
            };
            self.view.borrow().moves(own, Instant::now())
        };
        self.see_to(&holder, moves, desk).await?;
        let is_over = !self.is_taking.get() && self.tenure.borrow().shards.is_empty();
        if is_over {
            self.step_down().await?;
        }
        Ok(())
    }

    /// Sees to it that this server has a lease, and returns its name by it.
    async fn hold(&self, desk: &Desk) -> Result<String, Failed> {
        let (holder, sequence, renewed_at) = {
            let tenure = self.tenure.borrow();
            (tenure.holder.clone(), tenure.sequence, tenure.renewed_at)
        };
        let begin = Instant::now();
        let value = self.inbox.borrow().clone();
        if let Some(holder) = holder {
            if renewed_at.is_some_and(|at| at.elapsed() < RENEW) && self.is_known(&holder, &value) {
                return Ok(holder);
            }
            let subject = self.names.holder(&holder);
            match self.line.replace(&subject, &value, sequence).await {
                Ok(sequence) => {
                    self.is_held(&holder, sequence, begin);
                    return Ok(holder);
                }
                Err(Failed::Refused(OTHER_SEQUENCE, _)) => {}
                Err(failed) => return Err(failed),
            }
            // It may have been renewed, and the answer was lost.
            if let Some(last) = self.line.last(&self.names.state, &subject).await? {
                let sequence = self.line.replace(&subject, &value, last).await?;
                self.is_held(&holder, sequence, begin);
                return Ok(holder);
            }
            self.lose(desk);
        }
        let random = getrandom::u64().map_err(|error| Failed::Refused(0, error.to_string()))?;
        let holder = format!("{}{random:016x}", self.server);
        let sequence = self
            .line
            .replace(&self.names.holder(&holder), &value, 0)
            .await?;
        self.is_held(&holder, sequence, begin);
        Ok(holder)
    }

    /// Tells whether others know where this server can be asked.
    fn is_known(&self, holder: &str, value: &str) -> bool {
        self.view.borrow().place_of(holder) == Some(value)
    }

    fn is_held(&self, holder: &str, sequence: u64, since: Instant) {
        let value = self.inbox.borrow().clone();
        let mut tenure = self.tenure.borrow_mut();
        tenure.holder = Some(holder.to_owned());
        tenure.sequence = sequence;
        tenure.renewed_at = Some(since);
        let mut view = self.view.borrow_mut();
        view.note_holder(holder, sequence, value, Instant::now());
    }

    /// Nothing is held here any more.
    fn lose(&self, desk: &Desk) {
        tracing::warn!(
            queue = self.label,
            "the lease ran out: others handle what was handled here"
        );
        self.tenure.take();
        desk.lose();
        self.index.borrow_mut().clear();
    }

    async fn see_to(&self, holder: &str, moves: Vec<Move>, desk: &Desk) -> Result<(), Failed> {
        let mut leaving = BTreeSet::new();
        let mut is_more = false;
        for it in moves {
            match it {
                Move::Bury { holder, sequence } => {
                    let is_gone = self.line.delete(&self.names.state, sequence).await?;
                    self.view.borrow_mut().bury(&holder, sequence);
                    if is_gone && !holder.starts_with(&self.server) {
                        tracing::info!(
                            queue = self.label,
                            "another server is gone, its messages come back"
                        );
                    }
                    self.bell.wake();
                }
                Move::Take { shard, sequence } => {
                    is_more |= self.take(holder, shard, sequence).await?;
                }
                Move::Release { shard } => {
                    leaving.insert(shard);
                }
            }
        }
        let before = std::mem::replace(&mut self.tenure.borrow_mut().leaving, leaving.clone());
        is_more |= before
            .iter()
            .any(|it| !leaving.contains(it) && self.tenure.borrow().shards.contains(it));
        self.give_back(&leaving, desk).await?;
        if is_more {
            self.reload.notify_one();
        }
        Ok(())
    }

    /// Takes a shard; false if somebody else was quicker.
    async fn take(&self, holder: &str, shard: u8, expected: u64) -> Result<bool, Failed> {
        let seat = self.names.seat(shard);
        let sequence = match self.line.replace(&seat, holder, expected).await {
            Ok(sequence) => sequence,
            Err(Failed::Refused(OTHER_SEQUENCE, _)) => return Ok(false),
            Err(failed) => return Err(failed),
        };
        let mut view = self.view.borrow_mut();
        view.note_shard(shard, sequence, holder.to_owned(), Instant::now());
        Ok(self.tenure.borrow_mut().shards.insert(shard))
    }

    /// Gives shards back of which nothing is being handled any more.
    async fn give_back(&self, leaving: &BTreeSet<u8>, desk: &Desk) -> Result<(), Failed> {
        if leaving.is_empty() {
            return Ok(());
        }
        {
            let mut lanes = desk.lanes.borrow_mut();
            let index = self.index.borrow();
            let stays = |id| {
                index
                    .get(id)
                    .is_none_or(|row| !leaving.contains(&row.shard))
            };
            let waiting = lanes.purge();
            lanes.add(waiting.into_iter().filter(|entry| stays(entry.id)));
        }
        desk.run();
        let known = desk.known();
        for &shard in leaving {
            if self.index.borrow().has(shard, &known) {
                continue;
            }
            let seat = self.names.seat(shard);
            let expected = self.view.borrow().sequence(shard);
            match self.line.replace(&seat, "", expected).await {
                Ok(sequence) => {
                    let mut view = self.view.borrow_mut();
                    view.note_shard(shard, sequence, String::new(), Instant::now());
                }
                // It is somebody else's already.
                Err(Failed::Refused(OTHER_SEQUENCE, _)) => {}
                Err(failed) => return Err(failed),
            }
            let mut tenure = self.tenure.borrow_mut();
            tenure.shards.remove(&shard);
            tenure.leaving.remove(&shard);
            self.index.borrow_mut().forget(shard);
        }
        Ok(())
    }

    /// Says that this server has nothing any more, so that nobody waits for its lease.
    pub(super) async fn step_down(&self) -> Result<(), Failed> {
        let Tenure {
            holder, sequence, ..
        } = self.tenure.take();
        self.index.borrow_mut().clear();
        let Some(holder) = holder else { return Ok(()) };
        let subject = self.names.holder(&holder);
        let gone = self.line.replace(&subject, "", sequence).await?;
        self.view
            .borrow_mut()
            .note_holder(&holder, gone, String::new(), Instant::now());
        Ok(())
    }

    /// Makes the streams, or has them be as they have to be.
    pub(super) async fn make_streams(&self) -> Result<(), Failed> {
        let names = &self.names;
        let window = u64::try_from(DEDUP_WINDOW.as_nanos()).unwrap_or(u64::MAX);
        let messages = json!({
            "subjects": [names.shard("*")],
            "discard": "new",
            "max_msgs": self.max_depth.get(),
            "duplicate_window": window,
        });
        let dead = json!({
            "subjects": [names.subject("dead")],
            "discard": "new",
            "duplicate_window": window,
        });
        let state = json!({
            "subjects": [names.subject("seats.>"), names.subject("tries.>")],
            "discard": "old",
            "max_msgs_per_subject": 1,
        });
        for (name, own) in [
            (&names.messages, messages),
            (&names.dead, dead),
            (&names.state, state),
        ] {
            let mut wanted = json!({
                "name": name,
                "retention": "limits",
                "storage": "file",
                "allow_direct": true,
            });
            if let (Some(wanted), Value::Object(own)) = (wanted.as_object_mut(), own) {
                wanted.extend(own);
                if let Some(replicas) = self.line.address().replicas {
                    wanted.insert("num_replicas".to_owned(), replicas.into());
                }
            }
            let limit = self.line.make(name, wanted).await?;
            if *name == names.messages {
                let most = self.max_depth.get();
                self.is_lax
                    .set(u64::try_from(limit).is_ok_and(|limit| limit > most) || limit < 0);
            }
        }
        Ok(())
    }

    /// Tells whether somebody who is there has every shard.
    pub(super) fn is_all_held(&self) -> bool {
        self.view.borrow().free(Instant::now()).is_empty()
    }

    /// Returns the shards that are held here.
    pub(super) fn shards(&self) -> Vec<u8> {
        let tenure = self.tenure.borrow();
        (0..SHARDS).filter(|it| tenure.takes(*it)).collect()
    }
}
