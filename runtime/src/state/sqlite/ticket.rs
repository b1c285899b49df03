//! A place in the queue for a thread of the engine: given up when its turn does not come in time.

use crate::state::db::{DbError, GivenUp, TX_TIME_MAX, WRITER_WAIT_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// The waiting side's part and the serving side's part are clones.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    state: Arc<AtomicU8>,
    /// `None` waits for as long as it takes.
    wait_until: Option<Instant>,
    /// When what it is for is over.
    pub(super) deadline: Instant,
    pub(super) given_up: GivenUp,
}

impl Ticket {
    /// For a transaction that may take this long in all.
    pub(super) fn new(timeout: Duration) -> Self {
        let now = Instant::now();
        let timeout = timeout.min(TX_TIME_MAX);
        Self {
            state: Arc::default(),
            wait_until: Some(now + timeout.min(WRITER_WAIT_MAX)),
            deadline: now + timeout,
            given_up: GivenUp::default(),
        }
    }

    /// For work that can be given up.
    pub(super) fn unless(self, given_up: GivenUp) -> Self {
        Self { given_up, ..self }
    }

    /// For what the engine must do sooner or later.
    pub(super) fn patient() -> Self {
        Self {
            wait_until: None,
            ..Self::new(TX_TIME_MAX)
        }
    }

    /// Its turn has come. False if it is too late: then nothing may be done.
    pub(super) fn start(&self) -> bool {
        let late = self.given_up.is_given_up()
            || self.wait_until.is_some_and(|until| Instant::now() > until);
        let next = if late { GIVEN_UP } else { STARTED };
        let was = self
            .state
            .compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire);
        was.is_ok() && !late
    }

    /// It is not waited for any more; false if its turn has come already.
    pub(super) fn give_up(&self) -> bool {
        self.state
            .compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Waits for the answer. None was given if the engine stopped: before it began, nothing happened.
    pub(super) async fn answer<T, E: From<DbError>>(
        self,
        answer: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        self.wait(answer).await.unwrap_or_else(|| {
            let error = self.not_started().unwrap_or(DbError::OutcomeUnknown);
            Err(error.into())
        })
    }

    /// Waits for an answer; `None` says that there will be none.
    pub(super) async fn wait<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        if let Some(until) = self.wait_until
            && self.state.load(Ordering::Acquire) == WAITING
        {
            let answered = tokio::time::timeout_at(until.into(), &mut answer).await;
            if let Ok(answered) = answered {
                return answered.ok();
            }
            self.give_up();
        }
        match self.state.load(Ordering::Acquire) {
            GIVEN_UP => None,
            _ => answer.await.ok(),
        }
    }

    /// Returns why it has not started, unless it has.
    pub(super) fn not_started(&self) -> Option<DbError> {
        match self.state.load(Ordering::Acquire) {
            STARTED => None,
            GIVEN_UP => Some(too_late()),
            _ => Some(stopped()),
        }
    }
}

/// What is answered when the engine has stopped, or stops before anything was done.
pub(super) fn stopped() -> DbError {
    DbError::Unavailable("the database does not answer".to_owned())
}

fn too_late() -> DbError {
    DbError::Timeout("the database was busy for too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turn_that_does_not_come_is_given_up_and_then_never_taken() {
        let ticket = Ticket::new(Duration::ZERO);
        let (_held, answer) = oneshot::channel::<Result<(), DbError>>();
        let error = ticket.clone().answer(answer).await.unwrap_err();
        assert!(matches!(error, DbError::Timeout(_)));
        assert!(!ticket.start());
    }

    #[test]
    fn turn_that_comes_late_is_not_taken() {
        let mut ticket = Ticket::new(Duration::ZERO);
        ticket.wait_until = Some(Instant::now() - Duration::from_secs(1));
        assert!(!ticket.start());
        assert!(Ticket::patient().start());
    }

    #[tokio::test]
    async fn what_has_started_is_waited_for() {
        let ticket = Ticket::new(Duration::from_millis(1));
        let (send, answer) = oneshot::channel::<Result<u8, DbError>>();
        let serving = ticket.clone();
        assert!(serving.start());
        let waiting = ticket.clone().answer(answer);
        let later = async {
            tokio::time::sleep_until((ticket.deadline + Duration::from_millis(1)).into()).await;
            send.send(Ok(7)).unwrap();
        };
        assert_eq!(tokio::join!(waiting, later).0, Ok(7));
    }

    #[tokio::test]
    async fn lost_answer_is_unknown_only_once_it_has_started() {
        for (started, expected) in [(false, stopped()), (true, DbError::OutcomeUnknown)] {
            let ticket = Ticket::new(TX_TIME_MAX);
            if started {
                assert!(ticket.start());
            }
            let (send, answer) = oneshot::channel::<Result<(), DbError>>();
            drop(send);
            assert_eq!(ticket.answer(answer).await, Err(expected));
        }
    }
}
