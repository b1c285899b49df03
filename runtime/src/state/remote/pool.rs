//! The connections to one database: made when they are needed, lent to one transaction at a time, cleaned in between.
//!
//! A pool of its own, because three things have to be so that ready-made ones leave to chance: a connection whose
//! transaction is not known to be over is not lent again, what is prepared on it is bounded, and while the server is
//! away nobody waits for it.

use super::{Connection as _, Engine};
use crate::state::db::{DbError, WRITER_WAIT_MAX};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a connection may take to get clean.
const CLEAN_MAX: Duration = Duration::from_secs(2);

/// The first and the longest time for which a server that was away is taken to be away.
const AWAY_MIN: Duration = Duration::from_millis(50);
const AWAY_MAX: Duration = Duration::from_secs(1);

/// A connection that was used so recently is taken to be there still.
const FRESH: Duration = Duration::from_secs(1);

/// A pool. Clones are the same.
pub(in crate::state) struct Pool<E: Engine>(Rc<Inner<E>>);

impl<E: Engine> Clone for Pool<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<E: Engine> {
    /// What it is for, such as `db.default`.
    name: String,
    engine: E,
    /// With the times at which they came back.
    idle: RefCell<Vec<(E::Connection, Instant)>>,
    places: Arc<Semaphore>,
    away: RefCell<Option<Away>>,
    is_closed: Cell<bool>,
    /// What is written elsewhere arrives here; nothing is written here.
    is_replica: bool,
    /// It could be reached at some time.
    was_here: Cell<bool>,
}

/// The server could not be reached.
struct Away {
    why: String,
    /// When somebody may try again.
    retry_at: Instant,
    pause: Duration,
}

/// A connection that is lent.
pub(in crate::state) struct Lent<E: Engine> {
    connection: E::Connection,
    pool: Pool<E>,
    place: OwnedSemaphorePermit,
}

impl<E: Engine> std::ops::Deref for Lent<E> {
    type Target = E::Connection;

    fn deref(&self) -> &E::Connection {
        &self.connection
    }
}

impl<E: Engine> Lent<E> {
    /// Gives back what ran wrun's own statements, each to its end: nothing is left behind.
    pub(in crate::state) fn give_back_clean(self) {
        if !self.connection.is_closed() && !self.pool.0.is_closed.get() {
            let mut idle = self.pool.0.idle.borrow_mut();
            idle.push((self.connection, Instant::now()));
        }
    }

    /// Gives it back: others get it once it is clean.
    pub(in crate::state) fn give_back(self) {
        let Self {
            connection,
            pool,
            place,
        } = self;
        if connection.is_closed() || pool.0.is_closed.get() {
            return;
        }
        tokio::task::spawn_local(async move {
            let is_clean = timeout(CLEAN_MAX, connection.clean()).await;
            if is_clean.unwrap_or(false) && !pool.0.is_closed.get() {
                let mut idle = pool.0.idle.borrow_mut();
                idle.push((connection, Instant::now()));
            }
            drop(place);
        });
    }
}

impl<E: Engine> Pool<E> {
    /// Returns one of up to `most` connections, for what is bound by this name.
    pub(in crate::state) fn new(name: String, engine: E, most: usize) -> Self {
        Self::make(name, engine, most, false)
    }

    /// Returns one of up to `most` connections to a replica of the server that a database is bound to by this label.
    pub(in crate::state) fn of_replica(label: &str, engine: E, most: usize) -> Self {
        Self::make(format!("replica.{label}"), engine, most, true)
    }

    fn make(name: String, engine: E, most: usize, is_replica: bool) -> Self {
        Self(Rc::new(Inner {
            name,
            engine,
            idle: RefCell::default(),
            places: Arc::new(Semaphore::new(most)),
            away: RefCell::default(),
            is_closed: Cell::new(false),
            is_replica,
            was_here: Cell::new(false),
        }))
    }

    /// Returns the name of what it is for.
    pub(in crate::state) fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells whether it is a replica's.
    pub(in crate::state) fn is_replica(&self) -> bool {
        self.0.is_replica
    }

    /// Returns what it connects to.
    pub(in crate::state) fn engine(&self) -> &E {
        &self.0.engine
    }

    /// Returns a connection, at `deadline` at the latest.
    pub(in crate::state) async fn get(&self, deadline: Instant) -> Result<Lent<E>, DbError> {
        self.check()?;
        let until = deadline.min(Instant::now() + WRITER_WAIT_MAX);
        let waited = timeout_at(until, self.0.places.clone().acquire_owned());
        let busy = || DbError::Timeout(format!("all connections to {} are in use", E::PRODUCT));
        let place = waited.await.map_err(|_| busy())?.map_err(|_| closed())?;
        let lend = |connection| Lent {
            connection,
            pool: self.clone(),
            place,
        };
        let idle = || self.0.idle.borrow_mut().pop();
        while let Some((connection, since)) = idle() {
            if connection.is_closed() {
                continue;
            }
            if E::Connection::KNOWS_ITS_END || since.elapsed() < FRESH {
                return Ok(lend(connection));
            }
            if timeout_at(until, connection.ping()).await.unwrap_or(false) {
                return Ok(lend(connection));
            }
        }
        let connected = timeout_at(deadline, self.connect());
        let slow = || DbError::Timeout(format!("it took too long to connect to {}", E::PRODUCT));
        connected.await.map_err(|_| slow())?.map(lend)
    }

    /// Makes a connection that is not counted, for work of wrun's own.
    pub(in crate::state) async fn connect(&self) -> Result<E::Connection, DbError> {
        self.connect_by(E::connect).await
    }

    /// Does the same in a way that the engine has beside the usual one.
    pub(in crate::state) async fn connect_by(
        &self,
        way: impl AsyncFnOnce(&E) -> Result<E::Connection, String>,
    ) -> Result<E::Connection, DbError> {
        self.check()?;
        if let Some(away) = &mut *self.0.away.borrow_mut() {
            // One at a time finds out.
            away.retry_at = Instant::now() + AWAY_MAX;
        }
        match way(&self.0.engine).await {
            Ok(connection) => {
                self.is_here();
                Ok(connection)
            }
            Err(why) => Err(self.is_away(why)),
        }
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(in crate::state) fn why_away(&self) -> Option<String> {
        self.0.away.borrow().as_ref().map(|away| away.why.clone())
    }

    /// Notes that the server has answered.
    pub(in crate::state) fn is_here(&self) {
        self.0.was_here.set(true);
        if self.0.away.take().is_some() {
            tracing::info!(bound = self.0.name, "{} is back", E::PRODUCT);
        }
    }

    /// Ends every connection that is not lent, and lends no more.
    pub(in crate::state) fn close(&self) {
        self.0.is_closed.set(true);
        self.0.places.close();
        self.0.idle.take();
    }

    /// Says at once what trying would take time to find.
    fn check(&self) -> Result<(), DbError> {
        match &*self.0.away.borrow() {
            Some(away) if Instant::now() < away.retry_at => Err(DbError::Unavailable(format!(
                "{}: {}",
                E::PRODUCT,
                away.why
            ))),
            _ => Ok(()),
        }
    }

    /// Whoever opens a replica says that it is away from the start: before the URL there is nothing in the log.
    fn say_away(&self, why: &str) {
        let Inner { name, .. } = &*self.0;
        match (self.0.is_replica, self.0.was_here.get()) {
            (false, _) => tracing::warn!(bound = name, why, "{} is away", E::PRODUCT),
            (true, true) => tracing::warn!(
                bound = name,
                why,
                "{} is away: what only reads goes to the primary",
                E::PRODUCT
            ),
            (true, false) => {}
        }
    }

    /// Notes that the server is away.
    pub(in crate::state) fn is_away(&self, why: String) -> DbError {
        let mut away = self.0.away.borrow_mut();
        let pause = match &*away {
            Some(away) => (away.pause * 2).min(AWAY_MAX),
            None => {
                self.say_away(&why);
                AWAY_MIN
            }
        };
        *away = Some(Away {
            why: why.clone(),
            retry_at: Instant::now() + pause,
            pause,
        });
        DbError::Unavailable(format!("{}: {why}", E::PRODUCT))
    }
}

fn closed() -> DbError {
    DbError::Unavailable("the state process ends".to_owned())
}
