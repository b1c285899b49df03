//! Opens what a generation needs, and brings what is open in line with its settings.
//!
//! What is open stays open: another generation may use it.

mod queues;

use super::bound::BoundDatabase;
use super::returning::Returning;
use super::servers::Servers;
use super::sessions::Sessions;
use super::stores::Stores;
use crate::config::shared::{self, Bound, Durability, Shared};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::log;
use crate::state::db::{Database as _, TxOptions, Want};
use crate::state::keyvalue;
use crate::state::lock::TTL_DEFAULT;
use crate::state::lock::embedded::{EmbeddedLocks, Outside, TOKEN_BLOCK};
use crate::state::queue::DEAD_SUFFIX;
use crate::state::queue::desk::Sink;
use crate::state::queue::embedded::EmbeddedQueue;
use crate::state::queue::stored::Stored;
use crate::state::sqlite::{FatalFn, Options, Sqlite};
use queues::embedded_queues;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use tokio::sync::mpsc;

/// The database that fencing tokens are kept in, and queues if nothing else is said.
const DEFAULT: &str = "default";

/// How large the default database may grow if the manifest does not mention it.
const DEFAULT_SIZE_MAX: u64 = 1 << 30;

/// Opens and updates.
pub(super) struct Configurator {
    stores: Rc<Stores>,
    sessions: Rc<Sessions>,
    returning: Rc<Returning>,
    servers: Servers,
    fatal: FatalFn,
    /// The queues of each database, and how many messages each may hold.
    depths: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Configurator {
    pub(super) fn new(
        stores: Rc<Stores>,
        sessions: Rc<Sessions>,
        returning: Rc<Returning>,
        servers: Servers,
        fatal: FatalFn,
    ) -> Self {
        Self {
            stores,
            sessions,
            returning,
            servers,
            fatal,
            depths: BTreeMap::new(),
        }
    }

    /// Makes everything ready for the workers of a generation.
    pub(super) async fn configure(
        &mut self,
        generation: u64,
        shared: Shared,
        live: &[i32],
    ) -> Result<(), Failure> {
        self.wait_for(live);
        self.check_homes(&shared)?;
        for (label, queue) in embedded_queues(&shared) {
            let depths = self.depths.entry(queue.database.clone()).or_default();
            depths.insert(label.clone(), queue.max_depth);
        }
        for (label, settings) in needed(&shared) {
            self.open(&label, &settings).await?;
        }
        for (label, settings) in &shared.databases {
            if let Some(bound) = &settings.bound {
                self.open_bound(label, bound, settings, !live.is_empty())
                    .await?;
            }
        }
        for label in shared.keyvalue.keys() {
            self.make_table(&keyvalue::database(label)).await?;
        }
        let is_again = !live.is_empty();
        for (label, space) in &shared.locks {
            match &space.bound {
                Some(bound) => self.open_bound_locks(label, bound, is_again).await?,
                None => self.open_locks().await?,
            }
        }
        self.open_queues(&shared).await?;
        self.open_bound_queues(&shared, is_again).await?;
        self.stores.grant(generation, shared);
        Ok(())
    }

    /// Holds back every lock until these workers know that they have lost theirs.
    fn wait_for(&self, live: &[i32]) {
        self.returning.expect(live);
        if live.is_empty() || !self.returning.is_waiting() {
            return;
        }
        if let Some(locks) = self.stores.locks.embedded() {
            locks.suspend();
        }
        let (stores, returning) = (self.stores.clone(), self.returning.clone());
        tokio::task::spawn_local(async move {
            // A worker that has heard nothing for so long believes in no lock of the usual lease.
            if tokio::time::timeout(TTL_DEFAULT, returning.over())
                .await
                .is_err()
            {
                tracing::warn!("locks are granted again, though not every worker has connected");
                returning.give_up();
            }
            if let Some(locks) = stores.locks.embedded() {
                locks.resume();
            }
        });
    }

    /// A queue's messages cannot move from one database to another.
    fn check_homes(&self, shared: &Shared) -> Result<(), Failure> {
        for (label, queue) in embedded_queues(shared) {
            let lives = |(_, queues): &(&String, &BTreeMap<_, _>)| queues.contains_key(label);
            if let Some((home, _)) = self.depths.iter().find(lives)
                && *home != queue.database
            {
                let what =
                    format!("queue {label} cannot move from database {home} while the server runs");
                let hint =
                    format!("restart the server, or leave `queues.{label}.database` as it was");
                return Err(Failure::new(ExitCode::Config, what).hint(hint));
            }
        }
        Ok(())
    }

    async fn open(&self, label: &str, settings: &shared::Database) -> Result<(), Failure> {
        let queues = self.depths.get(label).cloned().unwrap_or_default();
        let opened = self.stores.sqlite(label);
        let sqlite = match opened {
            Some(sqlite) => {
                sqlite.set_queues(queues);
                sqlite
            }
            None => {
                let (sender, sent) = mpsc::unbounded_channel();
                let options = Options {
                    path: self.stores.data().join(format!("{label}.db")),
                    label: label.to_owned(),
                    max_size: settings.max_size,
                    durability: settings.durability,
                    vfs: None,
                    sync: None,
                    fatal: self.fatal.clone(),
                    queues,
                };
                let sqlite = Sqlite::open(options, sender)?;
                tokio::task::spawn_local(pass_on(self.stores.clone(), sent));
                let mut databases = self.stores.databases.borrow_mut();
                databases.insert(label.to_owned(), sqlite.clone());
                sqlite
            }
        };
        if let Some(folder) = &settings.migrations {
            say_applied(label, sqlite.migrate(folder.clone()).await?);
        }
        Ok(())
    }

    /// Takes a database of a server. If it `is_again`, because the state process was replaced, the server may be away: who
    /// asks is told so, and all else goes on.
    async fn open_bound(
        &self,
        label: &str,
        bound: &Bound,
        settings: &shared::Database,
        is_again: bool,
    ) -> Result<(), Failure> {
        let opened = self.stores.bound.borrow().get(label).cloned();
        let database = match opened {
            Some(database) => database,
            None => {
                let address = self.servers.database(label);
                let address = address.map_err(|why| wrong_url("db", label, bound, &why))?;
                let replica = settings.replica.as_ref().map(|bound| {
                    let replica = self.servers.replica(label);
                    replica.map_err(|why| wrong_url("replica", label, bound, &why))
                });
                let database = BoundDatabase::open(label, address, replica.transpose()?);
                self.stores
                    .bound
                    .borrow_mut()
                    .insert(label.to_owned(), database.clone());
                database.meet_replica(label, is_again).await;
                database
            }
        };
        match database.prepare(settings.migrations.as_deref()).await {
            Ok(applied) => say_applied(label, applied),
            Err(failure) if is_again && failure.code == ExitCode::Unavailable => {
                tracing::warn!(db = label, error = %failure, "goes on without its server");
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// Makes a database a key-value store, if it is not one yet.
    async fn make_table(&self, label: &str) -> Result<(), Failure> {
        let statements = vec![(keyvalue::table(), Want::Done)];
        let made = self.sqlite(label)?;
        let made = made.batch(statements, TxOptions::default()).await;
        made.or_fail(ExitCode::CannotCreate, || {
            format!("database {label}: cannot make its table")
        })?;
        Ok(())
    }

    async fn open_locks(&self) -> Result<(), Failure> {
        if self.stores.locks.embedded().is_some() {
            return Ok(());
        }
        let sqlite = self.sqlite(DEFAULT)?;
        let failed = || "cannot reserve fencing tokens".to_owned();
        let reserved = sqlite.reserve_tokens(TOKEN_BLOCK).await;
        let end = reserved.or_fail(ExitCode::CannotCreate, failed)?;
        let sessions = self.sessions.clone();
        let outside = Outside {
            on_lost: Box::new(move |guard| sessions.tell_lost(guard)),
            reserve: Box::new(move || {
                let reserved = sqlite.reserve_tokens(TOKEN_BLOCK);
                Box::pin(async { reserved.await.map_err(|error| error.to_string()) })
            }),
        };
        let locks = EmbeddedLocks::new(end.saturating_sub(TOKEN_BLOCK).max(1)..end, outside);
        if self.returning.is_waiting() {
            locks.suspend();
        }
        self.stores.locks.embed(locks);
        Ok(())
    }

    /// Takes a space of locks of a server. What a state process before this one held there is released as soon as nobody
    /// believes in it any more.
    async fn open_bound_locks(
        &self,
        space: &str,
        bound: &Bound,
        is_again: bool,
    ) -> Result<(), Failure> {
        if self.stores.locks.bound().contains_key(space) {
            return Ok(());
        }
        let place = self.servers.locks(space);
        let place = place.map_err(|why| wrong_url("lock", space, bound, &why))?;
        let sessions = self.sessions.clone();
        let on_lost = Box::new(move |guard| sessions.tell_lost(guard));
        let locks = place.open(space, &self.servers.identity, on_lost);
        let locks = locks.or_fail(ExitCode::System, || {
            "there are no random numbers".to_owned()
        })?;
        locks.prepare(is_again).await?;
        let (returning, left_behind) = (self.returning.clone(), locks.clone());
        tokio::task::spawn_local(async move {
            // The same as for those that are embedded.
            let _ = tokio::time::timeout(TTL_DEFAULT, returning.over()).await;
            left_behind.sweep().await;
        });
        self.stores.locks.bind(space, locks);
        Ok(())
    }

    async fn open_queues(&self, shared: &Shared) -> Result<(), Failure> {
        let mut loaded = HashMap::new();
        for (label, settings) in embedded_queues(shared) {
            if let Some(queue) = self.stores.queues.borrow().get(label) {
                queue.configure(settings);
                continue;
            }
            let db = &settings.database;
            let sqlite = self.sqlite(db)?;
            if !loaded.contains_key(db) {
                let failed = || format!("cannot read the queues of database {db}");
                let stored = sqlite.load().await.or_fail(ExitCode::NoInput, failed)?;
                loaded.insert(db.clone(), by_queue(stored));
            }
            let stored = loaded.get_mut(db).and_then(|queues| queues.remove(label));
            let queue = EmbeddedQueue::new(
                label.clone(),
                settings,
                sqlite,
                self.sink(label),
                stored.unwrap_or_default(),
            );
            self.stores.queues.borrow_mut().insert(label.clone(), queue);
        }
        Ok(())
    }

    /// Returns what takes the deliveries of a queue to their sessions.
    fn sink(&self, queue: &str) -> Sink {
        let (sessions, queue) = (self.sessions.clone(), queue.to_owned());
        Rc::new(move |session, batch| sessions.deliver(session, queue.clone(), batch))
    }

    fn sqlite(&self, label: &str) -> Result<Sqlite, Failure> {
        let missing = || Failure::new(ExitCode::Config, format!("there is no database {label}"));
        self.stores.sqlite(label).ok_or_else(missing)
    }
}

fn wrong_url(kind: &str, label: &str, bound: &Bound, why: &str) -> Failure {
    let what = format!("{kind}.{label}: its URL ({}) is wrong: {why}", bound.shown);
    Failure::new(ExitCode::Config, what).hint(format!(
        "correct what the binding {kind}.{label} names, and restart the server"
    ))
}

fn say_applied(label: &str, migrations: Vec<String>) {
    for name in migrations {
        // Before the URL, which is the first line on stderr.
        log::say(&format!(
            "wrun: applied migration {name} to database {label}"
        ));
    }
}

/// Returns the embedded databases that a generation needs. The queues of one that is bound are embedded.
fn needed(shared: &Shared) -> BTreeMap<String, shared::Database> {
    let mut needed = shared.databases.clone();
    needed.retain(|label, settings| {
        let mut queues = embedded_queues(shared);
        settings.bound.is_none() || queues.any(|(_, queue)| queue.database == *label)
    });
    for settings in needed
        .values_mut()
        .filter(|settings| settings.bound.is_some())
    {
        settings.migrations = None;
    }
    for (label, store) in &shared.keyvalue {
        let settings = shared::Database {
            migrations: None,
            max_size: store.max_size,
            durability: store.durability,
            bound: None,
            replica: None,
        };
        needed.insert(keyvalue::database(label), settings);
    }
    let holds_queue = embedded_queues(shared).any(|(_, queue)| queue.database == DEFAULT);
    let has_locks = shared.locks.values().any(|space| space.bound.is_none());
    if has_locks || holds_queue {
        needed
            .entry(DEFAULT.to_owned())
            .or_insert(shared::Database {
                migrations: None,
                max_size: DEFAULT_SIZE_MAX,
                durability: Durability::Full,
                bound: None,
                replica: None,
            });
    }
    needed
}

/// Tells queues of the messages that were sent to them, for as long as their database is open.
async fn pass_on(stores: Rc<Stores>, mut sent: mpsc::UnboundedReceiver<Vec<Stored>>) {
    while let Some(stored) = sent.recv().await {
        for (label, stored) in by_queue(stored) {
            // A queue that is not there yet loads them when it comes.
            match stores.queues.borrow().get(&label) {
                Some(queue) => queue.arrived(stored),
                None => stores.relays.wake(&label),
            }
        }
    }
}

/// Sorts messages by the queue whose they are, dead letters included.
fn by_queue(stored: Vec<Stored>) -> HashMap<String, Vec<Stored>> {
    let mut queues = HashMap::<String, Vec<Stored>>::new();
    for message in stored {
        let label = message.queue.trim_end_matches(DEAD_SUFFIX).to_owned();
        queues.entry(label).or_default().push(message);
    }
    queues
}
