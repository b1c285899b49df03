//! What a lock is to the rest of wrun: requests, errors, and the seam behind which locks are kept.
//!
//! The embedded locks are `table`, a pure state machine, and `embedded`, which gives it a clock and wakes those who wait.
//! Those that are kept in servers are `leased`.

pub mod embedded;
pub mod leased;
pub mod spaces;
pub mod table;

use super::BoxFuture;
use super::db::Fence;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A connection to the state process: counted up, never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A guard: the session that asked for it and the number that this session gave it, held or still waiting.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GuardId {
    pub session: SessionId,
    pub number: u64,
}

/// A request for locks.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Acquire {
    /// The label of the space.
    pub space: String,
    /// Sorted and each once, as [`Acquire::new`] leaves them.
    pub keys: Vec<String>,
    pub wait_ms: u32,
    pub ttl_ms: u32,
    /// Whether signs of life of its session prolong it.
    pub renew: bool,
    /// Which instance asks, by a number of its session's own: what one instance holds, another can wait for.
    pub owner: u64,
}

impl Acquire {
    /// Returns a request for keys in any order, with the times that hold if none are named.
    pub fn new(space: String, mut keys: Vec<String>, owner: u64) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self {
            space,
            keys,
            wait_ms: millis(WAIT_DEFAULT),
            ttl_ms: millis(TTL_DEFAULT),
            renew: true,
            owner,
        }
    }

    /// Says what is wrong with it, as `Invalid`.
    pub fn check(&self) -> Result<(), LockError> {
        let invalid = |what: String| Err(LockError::Invalid(what));
        if self.keys.is_empty() {
            return invalid("no key".to_owned());
        }
        if self.keys.len() > KEYS_MAX {
            return invalid(format!("more than {KEYS_MAX} keys"));
        }
        if self.keys.iter().any(String::is_empty) {
            return invalid("an empty key".to_owned());
        }
        if self.keys.iter().any(|key| key.len() > KEY_MAX) {
            return invalid(format!("a key over {KEY_MAX} bytes"));
        }
        if self.keys.iter().any(|key| key.contains(char::is_control)) {
            return invalid("a key with a control character".to_owned());
        }
        if !self.keys.is_sorted_by(|a, b| a < b) {
            return invalid("keys out of order".to_owned());
        }
        if self.wait_ms > millis(WAIT_MAX) {
            return invalid(format!("a wait over {} ms", millis(WAIT_MAX)));
        }
        check_ttl(self.ttl_ms)
    }
}

/// Keys of one request.
pub const KEYS_MAX: usize = 64;
/// The longest key in bytes.
pub const KEY_MAX: usize = 512;
/// The times that a request may name, and what it gets if it names none.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);
pub const WAIT_MAX: Duration = Duration::from_secs(600);
pub const TTL_DEFAULT: Duration = Duration::from_secs(30);
pub const TTL_MIN: Duration = Duration::from_millis(100);
pub const TTL_MAX: Duration = Duration::from_secs(86_400);
/// Locks that one session may hold or wait for.
pub const SESSION_KEYS_MAX: usize = 10_000;
/// Requests that may wait for one key.
pub const WAITERS_MAX: usize = 10_000;

/// Why a lock could not be taken, kept or released; `wrun:lock` says what each means.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum LockError {
    #[error("denied: {0}")]
    Denied(String),
    #[error("invalid: {0}")]
    Invalid(String),
    #[error("timeout")]
    Timeout,
    #[error("the lock was lost")]
    Lost,
    #[error("waiting would never end")]
    WouldDeadlock,
    #[error("limit: {0}")]
    Limit(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

/// A lock as `wrun lock ls` shows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LockStatus {
    pub space: String,
    pub key: String,
    pub token: u64,
    /// The process id of the worker that holds it; 0 where the backend does not know.
    pub pid: i32,
    pub held_ms: u64,
    /// When it is lost without a sign of life.
    pub expires_in_ms: u64,
    pub waiting: u64,
}

/// Something that keeps locks.
pub trait Locks {
    /// Takes locks under a guard that the caller chose, and returns their fencing token. Dropping the future does not give
    /// up the wait: [`Locks::drop_guard`] does.
    fn acquire(
        &self,
        guard: GuardId,
        request: Acquire,
    ) -> BoxFuture<'static, Result<u64, LockError>>;

    /// Makes a guard hold for `ttl_ms` from now.
    fn extend(&self, guard: GuardId, ttl_ms: u32) -> BoxFuture<'static, Result<(), LockError>>;

    /// Releases a guard; `Lost` says that it did not hold until now.
    fn release(&self, guard: GuardId) -> BoxFuture<'static, Result<(), LockError>>;

    /// Releases a guard, or gives up its wait, whatever its state.
    fn drop_guard(&self, guard: GuardId);

    /// A session gave a sign of life: its renewing guards hold on.
    fn heartbeat(&self, session: SessionId);

    /// A session ended: all that it held is free.
    fn end_session(&self, session: SessionId);

    /// Keeps guards from being lost, released or granted to others until the returned value is dropped: so that a commit is
    /// atomic with the check that they are held. `Lost` if one is not held.
    fn pin(&self, guards: &[GuardId]) -> Result<Pinned, LockError>;

    /// Returns what a database has to check itself that others write to, too: nothing if nobody else gives out these locks.
    /// Sorted, each key once.
    fn fences(&self, _guards: &[GuardId]) -> Vec<Fence> {
        Vec::new()
    }

    /// Lists the locks that are held.
    fn list(&self) -> BoxFuture<'static, Result<Vec<LockStatus>, LockError>>;
}

/// Guards that stay as they are while this exists.
pub struct Pinned(Option<Box<dyn FnOnce()>>);

impl Pinned {
    /// Returns a pin that `unpin` takes off.
    pub fn new(unpin: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(unpin)))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(unpin) = self.0.take() {
            unpin();
        }
    }
}

/// Says what is wrong with a time to hold, as `Invalid`.
pub fn check_ttl(ttl_ms: u32) -> Result<(), LockError> {
    let (min, max) = (millis(TTL_MIN), millis(TTL_MAX));
    if (min..=max).contains(&ttl_ms) {
        return Ok(());
    }
    let range = format!("a time to hold that is not {min} to {max} ms");
    Err(LockError::Invalid(range))
}

/// Returns a time of this file as requests name it.
const fn millis(time: Duration) -> u32 {
    time.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(keys: &[&str]) -> Acquire {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        Acquire::new("default".to_owned(), keys, 0)
    }

    #[track_caller]
    fn assert_invalid(request: &Acquire) {
        assert!(matches!(request.check(), Err(LockError::Invalid(_))));
    }

    #[test]
    fn keys_are_sorted_and_each_once() {
        assert_eq!(request(&["b", "a", "b"]).keys, ["a", "b"]);
    }

    #[test]
    fn request_with_the_default_times_is_valid() {
        assert_eq!(request(&["stock:1", "größe"]).check(), Ok(()));
    }

    #[test]
    fn keys_that_make_no_sense_are_invalid() {
        let long = "k".repeat(KEY_MAX + 1);
        for keys in [&[][..], &[""], &["a", ""], &["a\0"], &["a\n"], &[&long]] {
            assert_invalid(&request(keys));
        }
        assert_eq!(request(&[&long[1..]]).check(), Ok(()));
    }

    #[test]
    fn too_many_keys_are_invalid() {
        let keys: Vec<_> = (0..=KEYS_MAX).map(|n| n.to_string()).collect();
        assert_invalid(&Acquire::new("default".to_owned(), keys, 0));
    }

    #[test]
    fn keys_out_of_order_are_invalid() {
        for keys in [["b", "a"], ["a", "a"]] {
            let keys = keys.map(str::to_owned).to_vec();
            assert_invalid(&Acquire {
                keys,
                ..request(&["a"])
            });
        }
    }

    #[test]
    fn times_out_of_range_are_invalid() {
        let valid = request(&["a"]);
        for ttl_ms in [0, 99, 86_400_001, u32::MAX] {
            assert_invalid(&Acquire {
                ttl_ms,
                ..valid.clone()
            });
        }
        assert_invalid(&Acquire {
            wait_ms: 600_001,
            ..valid
        });
    }
}
