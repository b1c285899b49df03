//! A lock as its holder's process sees it.
//!
//! It would rather believe a lock lost too early than too late: time counts from before a request was sent.

use super::link::{Link, USUAL_BEAT, Unanswered};
use super::{Line, UNEXPECTED, UNREACHABLE, locked};
use crate::state::lock::{Acquire, LockError};
use crate::state::protocol::{Call, Reply};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The state process counts time in these: it may end a guard so much earlier.
const TICK: Duration = Duration::from_millis(1);

/// Locks that are held together. Dropped, they are free.
#[derive(Debug)]
pub struct Guard {
    link: Arc<Link>,
    token: u64,
    held: Arc<Held>,
    /// The state process knows nothing of it any more.
    given_back: AtomicBool,
}

/// What is known of a guard, shared with the connection that hears of its loss.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: u64,
    /// It holds no more.
    over: AtomicBool,
    /// When it is over without a sign of life from now on.
    until: Mutex<Instant>,
    /// How long after a sign of life it holds, if those prolong it.
    renewing_ttl: Option<Duration>,
}

impl Held {
    pub(super) fn lose(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Returns how long it holds without a sign of life, if signs of life prolong it.
    pub(super) fn renewing_ttl(&self) -> Option<Duration> {
        self.renewing_ttl
            .filter(|_| !self.over.load(Ordering::Acquire))
    }
}

impl Guard {
    /// Asks for locks. Dropping the future gives them up.
    pub(super) async fn acquire(line: &Line, request: Acquire) -> Result<Self, LockError> {
        let ttl = Duration::from_millis(request.ttl_ms.into());
        let sent = Instant::now();
        let held = Arc::new(Held {
            number: line.number(),
            over: AtomicBool::new(false),
            until: Mutex::new(sent + ttl),
            renewing_ttl: request.renew.then_some(ttl),
        });
        let guard = held.number;
        let call = Call::Acquire { guard, request };
        let asked = line.on(None, call, |link, call| link.ask_for(&held, call));
        let (link, pending) = asked.await.map_err(unanswered)?;
        // From here on, dropping the guard takes the request back.
        let mut guard = Self {
            link,
            token: 0,
            held,
            given_back: AtomicBool::new(false),
        };
        match pending.reply().await {
            Ok(Reply::Token { token, waited_ms }) => {
                guard.token = token;
                guard.hold(sent + Duration::from_millis(waited_ms) + ttl);
                Ok(guard)
            }
            Ok(reply) => {
                guard.give_back();
                Err(refused(reply))
            }
            Err(error) => Err(unanswered(error)),
        }
    }

    /// It was granted, and holds until then at least.
    fn hold(&self, until: Instant) {
        *locked(&self.held.until) = until;
        if self
            .held
            .renewing_ttl
            .is_some_and(|ttl| ttl < 3 * USUAL_BEAT)
        {
            self.link.hurry();
        }
    }

    /// Returns the fencing token.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Tells whether it still holds, as far as is known. Once false, always false.
    pub fn is_held(&self) -> bool {
        if self.held.over.load(Ordering::Acquire) || !self.link.is_open() {
            return false;
        }
        let mut until = *locked(&self.held.until);
        if let Some(ttl) = self.held.renewing_ttl {
            until = until.max(self.link.renewed() + ttl);
        }
        let holds = Instant::now() + TICK < until;
        if !holds {
            self.held.lose();
        }
        holds
    }

    /// Makes it hold for `ttl_ms` from now.
    pub async fn extend(&self, ttl_ms: u32) -> Result<(), LockError> {
        self.still_kept()?;
        let until = Instant::now() + Duration::from_millis(ttl_ms.into());
        let call = Call::Extend {
            guard: self.held.number,
            ttl_ms,
        };
        match self
            .link
            .ask(call)
            .map_err(|_| LockError::Lost)?
            .reply()
            .await
        {
            Ok(Reply::Done) => {
                *locked(&self.held.until) = until;
                Ok(())
            }
            Ok(reply) => {
                let error = refused(reply);
                if error == LockError::Lost {
                    self.held.lose();
                }
                Err(error)
            }
            Err(_) => Err(LockError::Lost),
        }
    }

    /// Releases it and tells whether it held until now.
    pub async fn release(&self) -> Result<(), LockError> {
        if self.given_back.load(Ordering::Acquire) {
            return Err(LockError::Lost);
        }
        let guard = self.held.number;
        if self.is_held() {
            // Its time is not up, so nobody else has it, and nobody can say more. With its connection, a guard is over.
            let told = self.link.tell(Call::Release { guard });
            self.give_back();
            return told.then_some(()).ok_or(LockError::Lost);
        }
        // Sent before anything is waited for, so a caller that stops waiting has released it all the same.
        let released = self.link.ask(Call::Release { guard });
        self.give_back();
        // With its connection, a guard is over.
        let reply = released.map_err(|_| LockError::Lost)?.reply().await;
        match reply.map_err(|_| LockError::Lost)? {
            Reply::Done => Ok(()),
            reply => Err(refused(reply)),
        }
    }

    /// Returns the connection that it was granted on, if it is not known to be lost.
    pub(super) fn kept_on(&self) -> Option<&Arc<Link>> {
        self.still_kept().is_ok().then_some(&self.link)
    }

    /// Returns the number by which its connection knows it.
    pub(super) fn number(&self) -> u64 {
        self.held.number
    }

    /// Says that it is lost if it is known to be.
    fn still_kept(&self) -> Result<(), LockError> {
        match self.held.over.load(Ordering::Acquire) {
            true => Err(LockError::Lost),
            false => Ok(()),
        }
    }

    /// Notes that the state process forgets it.
    fn give_back(&self) {
        self.given_back.store(true, Ordering::Release);
        self.held.lose();
        self.link.forget(self.held.number);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A lost one, too: until then it counts among this worker's locks.
        if !self.given_back.load(Ordering::Acquire) {
            self.link.tell(Call::DropGuard {
                guard: self.held.number,
            });
            self.give_back();
        }
    }
}

fn unanswered(error: Unanswered) -> LockError {
    match error {
        Unanswered::TooLarge => LockError::Invalid("the request is too large".to_owned()),
        Unanswered::NotSent | Unanswered::Broken => LockError::Unavailable(UNREACHABLE.to_owned()),
    }
}

fn refused(reply: Reply) -> LockError {
    match reply {
        Reply::Lock(error) => error,
        Reply::Refused(why) => LockError::Other(why),
        _ => LockError::Other(UNEXPECTED.to_owned()),
    }
}
