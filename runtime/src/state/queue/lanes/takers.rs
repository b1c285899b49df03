//! The sessions that take messages, and whose turn it is.

use crate::state::lock::SessionId;
use std::collections::{HashMap, VecDeque};

/// The sessions that take messages, now or once they have credit.
#[derive(Default)]
pub(super) struct Takers {
    by_session: HashMap<SessionId, Taker>,
    /// Those that have credit; the first is served next.
    turns: VecDeque<SessionId>,
}

struct Taker {
    /// Messages of one batch, at most.
    batch: u32,
    /// Batches that it can take.
    credit: u32,
}

impl Takers {
    pub(super) fn credit(&mut self, session: SessionId, batch: u32, batches: u32) {
        let taker = self
            .by_session
            .entry(session)
            .or_insert(Taker { batch, credit: 0 });
        taker.batch = batch.max(1);
        if taker.credit == 0 && batches > 0 {
            self.turns.push_back(session);
        }
        taker.credit = taker.credit.saturating_add(batches);
    }

    /// Gives a batch back, unless the session has left.
    pub(super) fn refund(&mut self, session: SessionId) {
        if let Some(taker) = self.by_session.get(&session) {
            self.credit(session, taker.batch, 1);
        }
    }

    /// Returns whose turn it is, and how many messages it can take.
    pub(super) fn next(&self) -> Option<(SessionId, u32)> {
        let session = *self.turns.front()?;
        Some((session, self.by_session.get(&session)?.batch))
    }

    /// The next one has got its batch.
    pub(super) fn served(&mut self) {
        if let Some(session) = self.turns.pop_front()
            && let Some(taker) = self.by_session.get_mut(&session)
        {
            taker.credit -= 1;
            if taker.credit > 0 {
                self.turns.push_back(session);
            }
        }
    }

    pub(super) fn leave(&mut self, session: SessionId) {
        self.by_session.remove(&session);
        self.turns.retain(|other| *other != session);
    }

    /// Returns how many messages, and in how many batches, they can take.
    pub(super) fn wanted(&self) -> (u64, u64) {
        let takers = self.by_session.values();
        takers.fold((0, 0), |(messages, batches), taker| {
            let credit = u64::from(taker.credit);
            (messages + u64::from(taker.batch) * credit, batches + credit)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }
}
