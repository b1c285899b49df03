//! The connections to one database: made when they are needed, lent to one transaction at a time, cleaned in between.
//!
//! A pool of its own, because three things have to be so that ready-made ones leave to chance: a connection whose
//! transaction is not known to be over is not lent again, what is prepared on it is bounded, and while the server is
//! away nobody waits for it.

use super::address::Address;
use super::connection::Connection;
use super::error::whole;
use crate::state::db::{DbError, WRITER_WAIT_MAX};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Connections to one database.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take to get clean.
const CLEAN_MAX: Duration = Duration::from_secs(2);

/// The first and the longest time for which a server that was away is taken to be away.
const AWAY_MIN: Duration = Duration::from_millis(50);
const AWAY_MAX: Duration = Duration::from_secs(1);

/// What a guest may have left behind. Its transaction comes first: in it nothing else would be done.
const CLEAN: &str = "ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
    SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// A pool. Clones are the same.
#[derive(Clone)]
pub(super) struct Pool(Rc<Inner>);

struct Inner {
    label: String,
    address: Address,
    idle: RefCell<Vec<Connection>>,
    places: Arc<Semaphore>,
    away: RefCell<Option<Away>>,
    is_closed: Cell<bool>,
}

/// The server could not be reached.
struct Away {
    why: String,
    /// When somebody may try again.
    retry_at: Instant,
    pause: Duration,
}

/// A connection that is lent.
pub(super) struct Lent {
    connection: Connection,
    pool: Pool,
    place: OwnedSemaphorePermit,
}

impl std::ops::Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Lent {
    /// Gives it back: others get it once it is clean.
    pub(super) fn give_back(self) {
        let Self {
            connection,
            pool,
            place,
        } = self;
        if connection.client.is_closed() || pool.0.is_closed.get() {
            return;
        }
        tokio::task::spawn_local(async move {
            let clean = connection.client.batch_execute(CLEAN);
            if matches!(timeout(CLEAN_MAX, clean).await, Ok(Ok(()))) && !pool.0.is_closed.get() {
                pool.0.idle.borrow_mut().push(connection);
            }
            drop(place);
        });
    }
}

impl Pool {
    pub(super) fn new(label: String, address: Address) -> Self {
        Self(Rc::new(Inner {
            label,
            address,
            idle: RefCell::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            away: RefCell::default(),
            is_closed: Cell::new(false),
        }))
    }

    pub(super) fn label(&self) -> &str {
        &self.0.label
    }

    /// Returns a connection, at `deadline` at the latest.
    pub(super) async fn get(&self, deadline: Instant) -> Result<Lent, DbError> {
        self.check()?;
        let until = deadline.min(Instant::now() + WRITER_WAIT_MAX);
        let waited = timeout_at(until, self.0.places.clone().acquire_owned());
        let busy = || DbError::Timeout("all connections to PostgreSQL are in use".to_owned());
        let place = waited.await.map_err(|_| busy())?.map_err(|_| closed())?;
        let lend = |connection| Lent {
            connection,
            pool: self.clone(),
            place,
        };
        let idle = || self.0.idle.borrow_mut().pop();
        while let Some(connection) = idle() {
            if !connection.client.is_closed() {
                return Ok(lend(connection));
            }
        }
        let connected = timeout_at(deadline, self.connect());
        let slow = || DbError::Timeout("it took too long to connect to PostgreSQL".to_owned());
        connected.await.map_err(|_| slow())?.map(lend)
    }

    /// Makes a connection that is not counted, for work of wrun's own.
    pub(super) async fn connect(&self) -> Result<Connection, DbError> {
        self.check()?;
        if let Some(away) = &mut *self.0.away.borrow_mut() {
            // One at a time finds out.
            away.retry_at = Instant::now() + AWAY_MAX;
        }
        let Address { config, tls } = &self.0.address;
        match tls.connect(config).await {
            Ok((client, driver)) => {
                self.is_here();
                Ok(Connection::new(client, driver, tls.clone()))
            }
            Err(error) => Err(self.is_away(whole(&error))),
        }
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(super) fn why_away(&self) -> Option<String> {
        self.0.away.borrow().as_ref().map(|away| away.why.clone())
    }

    /// Notes that the server has answered.
    pub(super) fn is_here(&self) {
        if self.0.away.take().is_some() {
            tracing::info!(db = self.0.label, "PostgreSQL is back");
        }
    }

    /// Ends every connection that is not lent, and lends no more.
    pub(super) fn close(&self) {
        self.0.is_closed.set(true);
        self.0.places.close();
        self.0.idle.take();
    }

    /// Says at once what trying would take time to find.
    fn check(&self) -> Result<(), DbError> {
        match &*self.0.away.borrow() {
            Some(away) if Instant::now() < away.retry_at => {
                Err(DbError::Unavailable(format!("PostgreSQL: {}", away.why)))
            }
            _ => Ok(()),
        }
    }

    /// Notes that the server is away.
    pub(super) fn is_away(&self, why: String) -> DbError {
        let mut away = self.0.away.borrow_mut();
        let pause = match &*away {
            Some(away) => (away.pause * 2).min(AWAY_MAX),
            None => {
                tracing::warn!(db = self.0.label, why, "PostgreSQL is away");
                AWAY_MIN
            }
        };
        *away = Some(Away {
            why: why.clone(),
            retry_at: Instant::now() + pause,
            pause,
        });
        DbError::Unavailable(format!("PostgreSQL: {why}"))
    }
}

fn closed() -> DbError {
    DbError::Unavailable("the state process ends".to_owned())
}
