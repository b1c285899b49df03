//! How much of what guests share one instance may hold or send, so that none takes all that there is for its worker.
//!
//! What a lock, a transaction and a message are does not matter here.

use crate::config::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// What one instance holds, and what it may.
pub(crate) struct Quota {
    locks_max: u32,
    transactions_max: u32,
    messages_max: u32,
    /// How many keys each guard holds, by its handle.
    locks: BTreeMap<u32, usize>,
    /// Handles of transactions that have not ended.
    transactions: BTreeSet<u32>,
    messages: usize,
}

/// Which limit was reached, in words.
pub(super) type Reached = String;

impl Quota {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            locks_max: limits.request_locks,
            transactions_max: limits.request_transactions,
            messages_max: limits.request_messages,
            locks: BTreeMap::new(),
            transactions: BTreeSet::new(),
            messages: 0,
        }
    }

    /// Tells whether there is room for `keys` more.
    pub(super) fn may_lock(&self, keys: usize) -> Result<(), Reached> {
        let held = self.locks.values().sum::<usize>().saturating_add(keys);
        within(held, self.locks_max, "keys locked by one request")
    }

    pub(super) fn locked(&mut self, guard: u32, keys: usize) {
        self.locks.insert(guard, keys);
    }

    pub(super) fn unlocked(&mut self, guard: u32) {
        self.locks.remove(&guard);
    }

    /// Tells whether there is room for one more.
    pub(super) fn may_begin(&self) -> Result<(), Reached> {
        let open = self.transactions.len().saturating_add(1);
        within(
            open,
            self.transactions_max,
            "open transactions of one request",
        )
    }

    pub(super) fn begun(&mut self, transaction: u32) {
        self.transactions.insert(transaction);
    }

    pub(super) fn ended(&mut self, transaction: u32) {
        self.transactions.remove(&transaction);
    }

    /// Counts messages, whatever becomes of them.
    pub(super) fn send(&mut self, count: usize) -> Result<(), Reached> {
        let sent = self.messages.saturating_add(count);
        within(sent, self.messages_max, "messages sent by one request")?;
        self.messages = sent;
        Ok(())
    }
}

fn within(count: usize, max: u32, what: &str) -> Result<(), Reached> {
    if count > max as usize {
        return Err(format!("more than {max} {what}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        Quota::new(&Limits {
            request_locks: 3,
            request_transactions: 1,
            request_messages: 2,
            ..Limits::default()
        })
    }

    #[test]
    fn keys_count_until_their_guard_is_given_back() {
        let mut quota = quota();
        quota.locked(7, 2);
        assert!(quota.may_lock(1).is_ok());
        assert_eq!(
            quota.may_lock(2),
            Err("more than 3 keys locked by one request".to_owned())
        );
        quota.unlocked(7);
        quota.unlocked(7);
        assert!(quota.may_lock(3).is_ok());
    }

    #[test]
    fn transaction_counts_until_it_has_ended() {
        let mut quota = quota();
        assert!(quota.may_begin().is_ok());
        quota.begun(1);
        assert!(quota.may_begin().is_err());
        quota.ended(1);
        assert!(quota.may_begin().is_ok());
    }

    #[test]
    fn messages_that_are_refused_do_not_count() {
        let mut quota = quota();
        assert!(quota.send(3).is_err());
        assert!(quota.send(2).is_ok());
        assert!(quota.send(1).is_err());
        assert!(quota.send(0).is_ok());
    }
}
