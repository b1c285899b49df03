//! Work for the writer that is a transaction by itself: batches of statements, and what queues ask for.
//!
//! The writer puts many of them into one transaction of SQLite, and does one again, alone, if that failed.

use super::sync::Ack;
use super::ticket::Ticket;
use super::writer::Writer;
use crate::state::db::DbError;
use tokio::sync::oneshot;

/// One piece of work, whatever its answer is.
pub(super) trait Work: Send {
    /// Its turn has come; false if nobody waits for it any more.
    fn start(&self) -> bool;

    /// Whether a failure of it leaves nothing behind, because it is one statement.
    fn is_atomic(&self) -> bool;

    /// Whether it is answered only when it is on the disk.
    fn is_durable(&self) -> bool;

    /// Does it, inside of a transaction; true if it succeeded. Can be called again when that was rolled back.
    fn run(&mut self, writer: &mut Writer<'_>) -> bool;

    /// It was rolled back, or never begun, for this reason.
    fn fail(&mut self, error: DbError);

    /// Returns what answers.
    fn into_ack(self: Box<Self>) -> Ack;
}

/// How a piece of work is to be treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) atomic: bool,
    pub(super) durable: bool,
}

/// Work with an answer of type `T`.
pub(super) struct OneShot<T, E, F> {
    ticket: Ticket,
    manner: Manner,
    action: F,
    outcome: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> OneShot<T, E, F>
where
    F: FnMut(&mut Writer<'_>, &Ticket) -> Result<T, E> + Send,
{
    pub(super) fn new(
        ticket: Ticket,
        manner: Manner,
        answer: oneshot::Sender<Result<T, E>>,
        action: F,
    ) -> Self {
        Self {
            ticket,
            manner,
            action,
            outcome: None,
            answer,
        }
    }
}

impl<T, E, F> Work for OneShot<T, E, F>
where
    T: Send + 'static,
    E: From<DbError> + Send + 'static,
    F: FnMut(&mut Writer<'_>, &Ticket) -> Result<T, E> + Send,
{
    fn start(&self) -> bool {
        self.ticket.start()
    }

    fn is_atomic(&self) -> bool {
        self.manner.atomic
    }

    fn is_durable(&self) -> bool {
        self.manner.durable
    }

    fn run(&mut self, writer: &mut Writer<'_>) -> bool {
        let outcome = (self.action)(writer, &self.ticket);
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn fail(&mut self, error: DbError) {
        self.outcome = Some(Err(error.into()));
    }

    fn into_ack(self: Box<Self>) -> Ack {
        let Self {
            outcome, answer, ..
        } = *self;
        Box::new(move || {
            if let Some(outcome) = outcome {
                // Whoever asked may have gone.
                let _ = answer.send(outcome);
            }
        })
    }
}
