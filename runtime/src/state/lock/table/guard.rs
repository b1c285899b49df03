//! A guard as the table keeps it: what it asked for, and how far it got.

use super::keys::Name;
use super::{Alarms, Ticket};
use crate::state::Millis;
use crate::state::lock::{Acquire, GuardId, LockError};
use std::rc::Rc;

/// A request, and the lock that it became.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) owner: u64,
    pub(super) names: Vec<Rc<Name>>,
    ttl: Millis,
    renew: bool,
    pub(super) pins: u32,
    /// Its time among the table's alarms.
    alarm: Option<Millis>,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Waiting {
        ticket: Ticket,
    },
    Held {
        token: u64,
        since: Millis,
        /// It holds until then without any sign of life.
        until: Millis,
    },
    /// Given up while it was pinned: its keys are free when the last pin is off.
    Leaving {
        token: u64,
        since: Millis,
    },
    /// Its keys may be others' now, and its owner has yet to give it up.
    Lost,
}

impl Guard {
    /// Returns a guard that waits.
    pub(super) fn new(request: Acquire, ticket: Ticket) -> Self {
        let Acquire { space, keys, .. } = request;
        let name = |key| {
            let space = space.clone();
            Rc::new(Name { space, key })
        };
        Self {
            owner: request.owner,
            names: keys.into_iter().map(name).collect(),
            ttl: Millis::from(request.ttl_ms),
            renew: request.renew,
            pins: 0,
            alarm: None,
            state: State::Waiting { ticket },
        }
    }

    /// Returns its place in the queues, if it waits.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Waiting { ticket } => Some(ticket),
            _ => None,
        }
    }

    /// Returns its fencing token and when it was granted, if it keeps others from its keys.
    pub(super) fn grant(&self) -> Option<(u64, Millis)> {
        match self.state {
            State::Held { token, since, .. } | State::Leaving { token, since } => {
                Some((token, since))
            }
            State::Waiting { .. } | State::Lost => None,
        }
    }

    /// Makes it a lock, and returns when that ends without any sign of life.
    pub(super) fn hold(&mut self, token: u64, since: Millis) -> Millis {
        let until = since.saturating_add(self.ttl);
        self.state = State::Held {
            token,
            since,
            until,
        };
        until
    }

    /// Makes it hold until `end`. What renews itself is not made shorter by that.
    pub(super) fn extend(&mut self, end: Millis) -> Result<(), LockError> {
        let State::Held { until, .. } = &mut self.state else {
            return Err(LockError::Lost);
        };
        *until = if self.renew { end.max(*until) } else { end };
        Ok(())
    }

    /// Has its lease end now.
    pub(super) fn cut(&mut self, now: Millis) {
        if let State::Held { until, .. } = &mut self.state {
            *until = now;
            self.renew = false;
        }
    }

    /// Returns when its lease ends if `heard` was its session's last sign of life; at once if it is not held.
    pub(super) fn lease_end(&self, heard: Millis) -> Millis {
        match self.state {
            State::Held { until, .. } if self.renew => until.max(heard.saturating_add(self.ttl)),
            State::Held { until, .. } => until,
            _ => 0,
        }
    }

    /// Moves the time at which to look at it.
    pub(super) fn set_alarm(&mut self, id: GuardId, at: Option<Millis>, alarms: &mut Alarms) {
        if let Some(at) = self.alarm {
            alarms.remove(&(at, id));
        }
        if let Some(at) = at {
            alarms.insert((at, id));
        }
        self.alarm = at;
    }
}
