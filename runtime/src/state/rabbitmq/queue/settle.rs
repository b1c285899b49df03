//! What became of messages: told to RabbitMQ, or kept in mind if it has taken them back.
//!
//! A message that goes elsewhere (back, or to the dead letters) is published there first and acknowledged when that is
//! confirmed, so that it may be there twice for a moment, and never not at all.

use super::Store;
use super::held::Held;
use super::send::publish;
use crate::state::queue::content::add_dead_headers;
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::Change;
use crate::state::rabbitmq::line::{Failed, Live};
use crate::state::wall_ms;
use futures_util::future::join_all;
use lapin::Acker;
use lapin::options::BasicAckOptions;
use std::rc::Rc;
use tokio::time::Instant;

impl Store {
    /// Tells what became of messages; those that are not held are passed over. An error says that some of it was not told, and
    /// is to be tried again.
    pub(super) async fn settle(self: &Rc<Self>, changes: Vec<Change>) -> Result<(), Failed> {
        let told = join_all(changes.into_iter().map(|change| self.tell(change))).await;
        told.into_iter().collect()
    }

    async fn tell(self: &Rc<Self>, change: Change) -> Result<(), Failed> {
        let told = match self.letter_of(&change) {
            None => return Ok(()),
            // It waits here.
            Some((_, Some(_))) if self.waits_here(&change) => return Ok(()),
            Some((_, None)) => Err(Failed::Away("it was taken back".to_owned())),
            Some((letter, Some(acker))) => self.carry_out(&change, letter, &acker).await,
        };
        let is_lost = |failed: &Failed| matches!(failed, Failed::Away(_) | Failed::Unknown(_));
        let twins = match told {
            // If that is not heard of, it comes again.
            Ok(()) if matches!(change, Change::Remove { .. }) => self.decide(change.clone()),
            Ok(()) => self.held.borrow_mut().remove(change.id()),
            Err(failed) if is_lost(&failed) && self.is_adrift(&change) => {
                self.decide(change.clone())
            }
            Err(failed) => return Err(failed),
        };
        for twin in twins {
            let acker = twin.acker.clone();
            match (&change, acker) {
                // It is the same message.
                (Change::Remove { .. }, Some(acker)) => {
                    // If it is not heard of, it comes again.
                    let _ = acker.ack(BasicAckOptions::default()).await;
                }
                // What was put back may have come again before that was heard of.
                _ => {
                    self.again.borrow_mut().push(twin);
                    self.bell.wake();
                }
            }
        }
        self.moved_at.set(Instant::now());
        Ok(())
    }

    /// Returns a message as it is to be kept from now on, and how that it is no more held is told, if anybody listens.
    fn letter_of(&self, change: &Change) -> Option<(Letter, Option<Acker>)> {
        let mut held = self.held.borrow_mut();
        let held = held.get_mut(change.id())?;
        let mut letter = held.letter.clone();
        match change {
            Change::Remove { .. } => {}
            Change::Retry {
                attempts,
                ready_at_ms,
                alone,
                ..
            } => {
                (letter.attempts, letter.alone) = (*attempts, *alone);
                letter.ready_at_ms = *ready_at_ms;
            }
            Change::Dead {
                attempts, reason, ..
            } => {
                let told = (reason.as_str(), self.label.as_str(), *attempts, wall_ms());
                letter.attempts = *attempts;
                add_dead_headers(&mut letter.headers, told);
            }
        }
        Some((letter, held.acker.clone()))
    }

    /// A message with a key waits for its retry here: others of its key must not overtake it.
    fn waits_here(&self, change: &Change) -> bool {
        let held = self.held.borrow();
        let has_key = held
            .get(change.id())
            .is_some_and(|held| held.letter.key.is_some());
        has_key && matches!(change, Change::Retry { .. })
    }

    async fn carry_out(
        &self,
        change: &Change,
        letter: Letter,
        acker: &Acker,
    ) -> Result<(), Failed> {
        let live = self.line.live()?;
        match change {
            Change::Remove { .. } => {}
            Change::Retry { .. } => self.put(&live, &letter).await?,
            Change::Dead { .. } => {
                publish(&live, &"".into(), self.names.dead(), &letter).await?;
            }
        }
        match acker.ack(BasicAckOptions::default()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::Unknown("the channel ended".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    fn decide(&self, change: Change) -> Vec<Held> {
        self.held.borrow_mut().decide(change)
    }

    /// Tells whether RabbitMQ has taken the message back, or will have.
    fn is_adrift(&self, change: &Change) -> bool {
        let held = self.held.borrow();
        let acker = held.get(change.id()).and_then(|held| held.acker.as_ref());
        acker.is_none_or(|acker| !acker.usable())
    }

    /// Has a message wait elsewhere whose time has not come.
    pub(super) async fn put_off(&self, live: &Live, letter: &Letter, acker: &Acker) {
        match self.put(live, letter).await {
            // If that is not heard of, it comes again.
            Ok(()) => drop(acker.ack(BasicAckOptions::default()).await),
            Err(_) => give_back(acker).await,
        }
    }
}

/// Has RabbitMQ hand a message out again; if that is not heard of, it does so by itself.
async fn give_back(acker: &Acker) {
    let again = lapin::options::BasicNackOptions {
        requeue: true,
        ..Default::default()
    };
    let _ = acker.nack(again).await;
}
