//! How many calls of a session are being carried out, and how large they are.

use crate::state::db::DbError;
use crate::state::lock::LockError;
use crate::state::protocol::{Call, Reply};
use crate::state::queue::QueueError;
use std::cell::Cell;
use std::rc::Rc;

/// Calls of one session that may wait for their answers.
const CALLS_MAX: usize = 4096;

/// What they may take in bytes, as frames.
const BYTES_MAX: usize = 128 << 20;

const TOO_MANY: &str = "too many calls at a time";

/// The calls that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Flight {
    calls: Cell<usize>,
    bytes: Cell<usize>,
}

/// The place of one call. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    flight: Rc<Flight>,
    bytes: usize,
}

impl Flight {
    pub(super) fn enter(self: Rc<Self>, bytes: usize) -> Place {
        self.calls.set(self.calls.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        Place {
            flight: self,
            bytes,
        }
    }

    /// Tells whether every call was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.get() == 0
    }

    /// Returns what to answer to a call that has no place. Those that end something always have one.
    pub(super) fn refusal(&self, call: &Call) -> Option<Reply> {
        if self.calls.get() < CALLS_MAX && self.bytes.get() < BYTES_MAX {
            return None;
        }
        match call {
            Call::Acquire { .. } => Some(Reply::Lock(LockError::Limit(TOO_MANY.to_owned()))),
            Call::Batch { .. }
            | Call::Run { .. }
            | Call::OpenCursor { .. }
            | Call::Next { .. }
            | Call::MarkProcessed { .. } => {
                Some(Reply::Db(DbError::Unavailable(TOO_MANY.to_owned())))
            }
            Call::Send { .. } | Call::SendIn { .. } => {
                Some(Reply::Queue(QueueError::Unavailable(TOO_MANY.to_owned())))
            }
            _ => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Flight { calls, bytes } = &*self.flight;
        calls.set(calls.get() - 1);
        bytes.set(bytes.get() - self.bytes);
    }
}
