//! Where a transaction takes place: at the primary server, or at a replica if it only reads and that can be reached.

use super::Engine;
use super::pool::{Lent, Pool};
use crate::state::db::{DbError, Isolation, TxOptions};
use tokio::time::Instant;

/// The way of one transaction.
pub(in crate::state) struct Route<E: Engine> {
    primary: Pool<E>,
    /// `None` if there is none for it, or once it has found that away: it then stays with the primary.
    replica: Option<Pool<E>>,
    options: TxOptions,
}

impl<E: Engine> Route<E> {
    /// Chooses. Only who asked for a transaction that only reads has said that what it sees may be a little old.
    pub(in crate::state) fn new(
        primary: Pool<E>,
        replica: Option<&Pool<E>>,
        options: TxOptions,
    ) -> Self {
        Self {
            primary,
            replica: replica.filter(|_| options.read_only).cloned(),
            options,
        }
    }

    /// Returns what its database is bound as.
    pub(in crate::state) fn name(&self) -> &str {
        self.primary.name()
    }

    /// Returns how it is run where it takes place: no standby of PostgreSQL's is serializable, so there it sees a snapshot.
    pub(in crate::state) fn options(&self) -> TxOptions {
        let isolation = match self.options.isolation {
            Isolation::Serializable if self.replica.is_some() => Isolation::RepeatableRead,
            asked => asked,
        };
        TxOptions {
            isolation,
            ..self.options
        }
    }

    /// Returns a connection, at `deadline` at the latest.
    pub(in crate::state) async fn lend(&mut self, deadline: Instant) -> Result<Lent<E>, DbError> {
        // Its watch finds out when it is back: nobody has to wait for that here.
        if let Some(replica) = self.replica.take_if(|it| it.why_away().is_none()) {
            match replica.get(deadline).await {
                Err(DbError::Unavailable(_)) => {}
                // All of its connections may be in use: the primary has enough to do.
                lent => {
                    self.replica = Some(replica);
                    return lent;
                }
            }
        }
        self.replica = None;
        self.primary.get(deadline).await
    }

    /// Goes over to the primary; false if it was there, or on its way there.
    pub(in crate::state) fn leave_replica(&mut self) -> bool {
        self.replica.take().is_some()
    }
}
