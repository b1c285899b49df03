//! Connections that are lent to an engine: a worker's lane, for one transaction after the other.
//!
//! What the engine cannot serve like that is served here like everybody's.

use super::db::bounded;
use super::{Answer, Fault, Session, queue};
use crate::config::shared::Shared;
use crate::state::db::TxOptions;
use crate::state::protocol::{Call, Exchange, Incoming, Reply, Stream};
use crate::state::sqlite::{MaySend, Returned, Sqlite};
use std::sync::Arc;

/// What a connection is to be lent for.
pub(super) struct Loan {
    tx: u64,
    database: Sqlite,
    options: TxOptions,
    may_send: MaySend,
}

impl Session {
    /// Carries out a call of a worker's lane.
    pub(super) fn serve_lane(
        &mut self,
        granted: &Arc<Shared>,
        id: u64,
        call: Call,
    ) -> Result<Answer, Fault> {
        match call {
            Call::Begin {
                tx,
                db,
                options,
                fences,
            } if fences.is_empty() => {
                if !self.lends(granted, tx, &db, options) {
                    return self.begin(granted, tx, db, options, fences);
                }
                Ok(Answer::Now(Reply::Done))
            }
            Call::Run { .. }
            | Call::OpenCursor { .. }
            | Call::Next { .. }
            | Call::CloseCursor { .. }
            | Call::MarkProcessed { .. }
            | Call::SendIn { .. }
            | Call::Commit { .. }
            | Call::Rollback { .. } => self.serve_guests(granted, id, call),
            _ => Err(Fault::Refused("a lane is for transactions")),
        }
    }

    /// Has the connection lent for a transaction, if nothing else is in progress on it and the engine is one that borrows.
    fn lends(&mut self, granted: &Arc<Shared>, tx: u64, db: &str, options: TxOptions) -> bool {
        if !self.flight.is_empty() || !self.transactions.none_is_open() {
            return false;
        }
        // What is bound to a server has no embedded database.
        let Some(database) = self.stores.embedded(db) else {
            return false;
        };
        if self.database(granted, db).is_err() {
            return false;
        }
        let (granted, db) = (granted.clone(), db.to_owned());
        self.loan = Some(Loan {
            tx,
            database,
            options: bounded(options),
            may_send: Box::new(move |queue| queue::may_send(&granted, queue, &db)),
        });
        true
    }

    /// Lends the connection until it is given back.
    pub(super) async fn lend(
        &self,
        loan: Loan,
        stream: Stream,
        incoming: Incoming,
    ) -> Result<(Stream, Incoming), Fault> {
        let exchange = Exchange::of(stream, incoming, self.outbox.take());
        // With the session it ends, wherever it is.
        let hold = exchange.hold();
        let lent = loan
            .database
            .begin_on(exchange, loan.options, loan.may_send);
        let Returned { exchange, why } = lent.await?;
        hold.let_go();
        if let Some(why) = why {
            self.transactions.over(loan.tx, why);
        }
        let (stream, incoming, outgoing) = exchange.into_stream()?;
        self.outbox.put_back(outgoing);
        Ok((stream, incoming))
    }
}
