//! Whether a wait would never end: the search for a circle of owners that wait for each other.
//!
//! An owner waits for the holder of each key that it wants, and for those who wait for it before. Such a circle can only
//! be closed by a request that has to wait: what is granted later turns somebody waiting into a holder of the same key.

use super::guard::{Guard, State};
use super::{LockTable, Ticket};
use crate::state::lock::{GuardId, SessionId};
use std::collections::{HashMap, HashSet};

/// An instance that asks for locks, or whatever else a session calls an owner.
type Owner = (SessionId, u64);

impl LockTable {
    /// Says whether a new request of a session would wait for itself: whether one of its keys is held or waited for by its
    /// own owner, or by somebody who waits for that owner.
    ///
    /// The search goes from the owner to those behind it, because many may stand before it in the queue for a key that is
    /// much wanted, and few wait for what it holds.
    pub(super) fn would_deadlock(&self, session: SessionId, request: &Guard) -> bool {
        let asker = (session, request.owner);
        let mut seen = HashSet::from([asker]);
        let mut behind = vec![asker];
        // From which ticket on a queue was looked at, so that each place in it is looked at once.
        let mut looked: HashMap<_, Ticket> = HashMap::new();
        while let Some(owner) = behind.pop() {
            for guard in self.guards_of(owner) {
                let from = match guard.state {
                    State::Waiting { ticket } => ticket + 1,
                    State::Held { .. } => 0,
                    // Its keys are free soon, whatever its owner does; or are free already.
                    State::Leaving { .. } | State::Lost => continue,
                };
                for name in &guard.names {
                    if request.names.contains(name) {
                        return true;
                    }
                    let until = looked.entry(name).or_insert(Ticket::MAX);
                    if let Some(key) = self.keys.get(name)
                        && from < *until
                    {
                        let places = key.waiting.range(from..*until);
                        let owners = places.filter_map(|(_, &id)| self.owner_of(id));
                        behind.extend(owners.filter(|&owner| seen.insert(owner)));
                        *until = from;
                    }
                }
            }
        }
        false
    }

    fn owner_of(&self, id: GuardId) -> Option<Owner> {
        self.guards.get(&id).map(|guard| (id.session, guard.owner))
    }

    fn guards_of(&self, (session, owner): Owner) -> impl Iterator<Item = &Guard> {
        let guards = self.sessions.get(&session).map(|session| &session.guards);
        let numbers = guards.map(|guards| guards.range((owner, 0)..=(owner, u64::MAX)));
        numbers
            .into_iter()
            .flatten()
            .filter_map(move |&(_, number)| self.guards.get(&GuardId { session, number }))
    }
}
