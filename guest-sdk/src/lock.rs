//! Locks: mutual exclusion between guests, whichever worker process they run in.
//!
//! A lock is a key in a space; the space `default` is the one that [`acquire`] uses. Who holds a lock is exact as long as
//! the state process lives. Across a pause or a restart only the fencing token is: give the guard to
//! [`Database::transaction_with`](crate::db::Database::transaction_with), which commits only if it is still held.
//!
//! ```no_run
//! use wrun_sdk::{db, lock};
//!
//! # fn f() -> anyhow::Result<()> {
//! let guard = lock::acquire("stock:1")?;
//! db::open("default")?.transaction_with(db::TxOptions::default(), &[&guard], |tx| {
//!     let left: i64 = tx.query_one("SELECT n FROM stock WHERE id = $1", (1,))?;
//!     tx.execute("UPDATE stock SET n = $1 WHERE id = $2", (left - 1, 1))
//! })?;
//! # Ok(())
//! # }
//! ```

use crate::bindings::wrun::lock::lock as host;
use crate::millis;
use std::time::Duration;

/// Takes one lock of the space `default`, waiting for it up to 10 seconds.
pub fn acquire(key: impl Into<String>) -> Result<Guard, Error> {
    space("default")?.acquire([key])
}

/// Opens a space of keys that the manifest grants under this label in `[locks]`.
pub fn space(label: &str) -> Result<Space, Error> {
    let options = host::Options {
        wait_ms: None,
        ttl_ms: None,
        renew: None,
    };
    Ok(Space {
        space: host::Space::open(label)?,
        options,
    })
}

/// A space of keys, and how to take them.
///
/// ```no_run
/// use std::time::Duration;
/// use wrun_sdk::lock::{self, Error};
///
/// # fn f() -> Result<(), Error> {
/// let orders = lock::space("orders")?.wait(Duration::ZERO);
/// match orders.acquire(["alice", "bob"]) {
///     Ok(guard) => println!("both are ours: {}", guard.token()),
///     Err(Error::Timeout) => println!("one is taken"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Space {
    space: host::Space,
    options: host::Options,
}

impl Space {
    /// Sets how long to wait for keys: zero tries once. 10 seconds by default, 10 minutes at most.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.options.wait_ms = Some(millis::short(wait));
        self
    }

    /// Sets how long a lock holds without a sign of life of this worker: 30 seconds by default, 100 ms to a day.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl_ms = Some(millis::short(ttl));
        self
    }

    /// Sets whether the host prolongs a lock for as long as its guard exists, as it does by default. If not, the lock is
    /// lost once its [`ttl`](Self::ttl) is over, unless it is [extended](Guard::extend).
    #[must_use]
    pub fn renew(mut self, renew: bool) -> Self {
        self.options.renew = Some(renew);
        self
    }

    /// Takes all of the keys, or none. The host sorts them, so callers that want the same ones cannot block each other.
    pub fn acquire<K: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Guard, Error> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        Ok(Guard(self.space.acquire(&keys, self.options)?))
    }
}

/// Locks that are held together. Dropping it releases them.
#[derive(Debug)]
#[must_use = "dropping a guard releases its locks"]
pub struct Guard(pub(crate) host::Guard);

impl Guard {
    /// Returns the fencing token: for each of the keys greater than every one that was ever granted for it.
    pub fn token(&self) -> u64 {
        self.0.token()
    }

    /// Tells whether the locks are still held, as far as the host knows. False is final.
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Makes the locks hold for `ttl` from now.
    pub fn extend(&self, ttl: Duration) -> Result<(), Error> {
        Ok(self.0.extend(millis::short(ttl))?)
    }

    /// Releases the locks and tells whether they held until now: [`Error::Lost`] means that what was done under them was
    /// not exclusive.
    pub fn release(self) -> Result<(), Error> {
        Ok(self.0.release()?)
    }
}

/// Why a lock could not be taken, kept or released.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest does not grant this space.
    #[error("lock space denied: {0}")]
    Denied(String),
    /// The request makes no sense: a key that is empty or too long, a time out of range.
    #[error("invalid lock: {0}")]
    Invalid(String),
    /// A key stayed taken for as long as the caller would wait.
    #[error("timed out waiting for a lock")]
    Timeout,
    /// The locks are not held any more.
    #[error("the lock was lost")]
    Lost,
    /// Waiting would never end: this instance holds a key already, or its holder waits for this instance.
    #[error("waiting for this lock would never end")]
    WouldDeadlock,
    /// Too many locks, or too many that wait for one.
    #[error("limit of locks reached: {0}")]
    Limit(String),
    /// The state process cannot be reached. Trying again later may succeed.
    #[error("locks are unavailable: {0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<host::Error> for Error {
    fn from(error: host::Error) -> Self {
        match error {
            host::Error::Denied(what) => Self::Denied(what),
            host::Error::Invalid(what) => Self::Invalid(what),
            host::Error::Timeout => Self::Timeout,
            host::Error::Lost => Self::Lost,
            host::Error::WouldDeadlock => Self::WouldDeadlock,
            host::Error::Limit(what) => Self::Limit(what),
            host::Error::Unavailable(what) => Self::Unavailable(what),
            host::Error::Other(what) => Self::Other(what),
        }
    }
}
