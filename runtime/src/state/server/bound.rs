//! A database of a server that a label is bound to, whichever kind of server that is; `queue` has the queues.

pub(super) mod locks;
pub(super) mod queue;

use crate::failure::Failure;
use crate::ipc::Reach;
use crate::log;
use crate::state::db::Database;
use crate::state::mysql::{self, Mysql};
use crate::state::outbox::Outbox;
use crate::state::postgres::{self, Postgres};
use queue::BoundQueue;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::Notify;

/// Where one is.
#[derive(Clone)]
pub(super) enum Place {
    Postgres(Box<postgres::Address>),
    Mysql(mysql::Address),
}

impl Place {
    /// Reads a URL. What is said of a wrong one does not repeat it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("mysql" | "mariadb", _)) => mysql::Address::parse(url).map(Self::Mysql),
            _ => postgres::Address::parse(url).map(|it| Self::Postgres(Box::new(it))),
        }
    }

    /// Returns the TCP ports that it connects to.
    pub(super) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Postgres(address) => address.ports(),
            Self::Mysql(address) => address.ports(),
        }
    }

    /// Returns the folders of the Unix sockets that it connects to.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        match self {
            Self::Postgres(address) => address.sockets(),
            Self::Mysql(address) => address.sockets(),
        }
    }

    /// Tells whether a name has to be resolved.
    pub(super) fn resolves(&self) -> bool {
        match self {
            Self::Postgres(address) => address.resolves(),
            Self::Mysql(address) => address.resolves(),
        }
    }
}

/// One that is open. Clones are the same.
#[derive(Clone)]
pub(super) enum BoundDatabase {
    Postgres(Postgres),
    Mysql(Mysql),
}

impl BoundDatabase {
    /// Takes it, with a replica of the same kind if it has one, and watches both from now on; nobody is asked yet whether
    /// they are there. To be called within a `LocalSet`.
    pub(super) fn open(label: &str, place: Place, replica: Option<Place>) -> Self {
        match place {
            Place::Postgres(address) => {
                let mut postgres = Postgres::new(label, *address);
                if let Some(Place::Postgres(replica)) = replica {
                    postgres = postgres.with_replica(label, *replica);
                }
                tokio::task::spawn_local(postgres.clone().watch());
                Self::Postgres(postgres)
            }
            Place::Mysql(address) => {
                let mut mysql = Mysql::new(label, address);
                if let Some(Place::Mysql(replica)) = replica {
                    mysql = mysql.with_replica(label, replica);
                }
                tokio::task::spawn_local(mysql.clone().watch());
                Self::Mysql(mysql)
            }
        }
    }

    /// Makes wrun's tables, and applies migrations; returns the names of those that were not applied yet.
    pub(super) async fn prepare(&self, folder: Option<&Path>) -> Result<Vec<String>, Failure> {
        match self {
            Self::Postgres(postgres) => postgres.prepare(folder).await,
            Self::Mysql(mysql) => mysql.prepare(folder).await,
        }
    }

    pub(super) fn database(&self) -> Rc<dyn Database> {
        match self {
            Self::Postgres(postgres) => Rc::new(postgres.clone()),
            Self::Mysql(mysql) => Rc::new(mysql.clone()),
        }
    }

    /// Lets transactions send to a queue: at once if it is kept in the same database, or else by the outbox, whose relay has
    /// this bell.
    pub(super) fn know(&self, label: &str, queue: &BoundQueue, bell: Rc<Notify>) {
        match (self, queue) {
            (Self::Postgres(postgres), BoundQueue::Postgres(queue))
                if postgres.know(label, queue) => {}
            (Self::Postgres(postgres), _) => postgres.forward(label, bell),
            (Self::Mysql(mysql), _) => mysql.forward(label, bell),
        }
    }

    /// Returns where messages wait that its transactions send to queues that are kept elsewhere.
    pub(super) fn outbox(&self) -> Rc<dyn Outbox> {
        match self {
            Self::Postgres(postgres) => postgres.outbox(),
            Self::Mysql(mysql) => mysql.outbox(),
        }
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(super) fn why_away(&self) -> Option<String> {
        match self {
            Self::Postgres(postgres) => postgres.why_away(),
            Self::Mysql(mysql) => mysql.why_away(),
        }
    }

    /// Connects to its replica, if it has one, and says if that cannot be: a server starts without it.
    pub(super) async fn meet_replica(&self, label: &str, is_again: bool) {
        let away = match self {
            Self::Postgres(postgres) => postgres.meet_replica().await,
            Self::Mysql(mysql) => mysql.meet_replica().await,
        };
        match (away, is_again) {
            (None, _) => {}
            (Some(why), true) => {
                let bound = format!("replica.{label}");
                tracing::warn!(bound, why, "what only reads goes to the primary");
            }
            // Before the URL, which is the first line on stderr.
            (Some(why), false) => log::say(&format!(
                "wrun: replica.{label} is away, what only reads goes to the primary: {why}"
            )),
        }
    }

    /// Tells whether its replica can be reached, if it has one.
    pub(super) fn replica(&self) -> Option<Reach> {
        match self {
            Self::Postgres(postgres) => postgres.replica(),
            Self::Mysql(mysql) => mysql.replica(),
        }
    }

    /// Ends its connections. What is under way is rolled back by the server.
    pub(super) fn close(&self) {
        match self {
            Self::Postgres(postgres) => postgres.close(),
            Self::Mysql(mysql) => mysql.close(),
        }
    }

    /// Returns what it is called, and what makes a backup of it.
    pub(super) fn backup(&self) -> (&'static str, &'static str) {
        match self {
            Self::Postgres(_) => ("PostgreSQL", "pg_dump"),
            Self::Mysql(_) => ("MariaDB or MySQL", "mariadb-dump"),
        }
    }
}
