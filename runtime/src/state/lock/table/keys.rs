//! The keys: who holds each, and who waits for it in which order. Knows neither time nor tokens.

use super::guard::Guard;
use super::{Next, Ticket};
use crate::state::lock::GuardId;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A key in its space.
#[derive(Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    pub(super) space: String,
    pub(super) key: String,
}

/// Who holds a key, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Key {
    pub(super) holder: Option<GuardId>,
    pub(super) waiting: BTreeMap<Ticket, GuardId>,
}

/// All keys that somebody holds or waits for.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<Rc<Name>, Key>);

impl Keys {
    pub(super) fn get(&self, name: &Name) -> Option<&Key> {
        self.0.get(name)
    }

    /// Returns those that are held, by name.
    pub(super) fn held(&self) -> Vec<(&Name, &Key, GuardId)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, key)| Some((&**name, key, key.holder?)))
            .collect();
        all.sort_unstable_by_key(|&(name, ..)| name);
        all
    }

    /// Says whether nobody holds any of these or waits for it.
    pub(super) fn are_idle(&self, names: &[Rc<Name>]) -> bool {
        !names.iter().any(|name| self.0.contains_key(name))
    }

    /// Returns the length of the longest of their queues.
    pub(super) fn longest_queue(&self, names: &[Rc<Name>]) -> usize {
        let queues = names.iter().filter_map(|name| self.get(name));
        queues.map(|key| key.waiting.len()).max().unwrap_or(0)
    }

    /// Lets a guard wait for its keys, last of all.
    pub(super) fn enqueue(&mut self, id: GuardId, ticket: Ticket, names: &[Rc<Name>]) {
        for name in names {
            let key = self.0.entry(Rc::clone(name)).or_default();
            key.waiting.insert(ticket, id);
        }
    }

    /// Says whether a request is the first in all its queues, and nobody holds any of the keys.
    pub(super) fn is_turn_of(&self, ticket: Ticket, names: &[Rc<Name>]) -> bool {
        let mut keys = names.iter().map(|name| self.get(name));
        keys.all(|key| {
            let free = key.filter(|key| key.holder.is_none());
            let first = free.and_then(|key| key.waiting.first_key_value());
            first.is_some_and(|(&first, _)| first == ticket)
        })
    }

    /// Gives a guard its keys, which are idle or of which it is the turn.
    pub(super) fn give(&mut self, id: GuardId, names: &[Rc<Name>]) {
        for name in names {
            let key = self.0.entry(Rc::clone(name)).or_default();
            key.waiting.pop_first();
            key.holder = Some(id);
        }
    }

    /// Takes a guard away from its keys, and notes who may come next.
    pub(super) fn leave(&mut self, id: GuardId, guard: &Guard, next: &mut Next) {
        for name in &guard.names {
            let Entry::Occupied(mut entry) = self.0.entry(Rc::clone(name)) else {
                continue;
            };
            let key = entry.get_mut();
            if let Some(ticket) = guard.ticket() {
                key.waiting.remove(&ticket);
            } else if key.holder == Some(id) {
                key.holder = None;
            }
            if key.holder.is_some() {
                continue;
            }
            match key.waiting.first_key_value() {
                Some((&ticket, &id)) => next.push((ticket, id)),
                None => {
                    entry.remove();
                }
            }
        }
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
