//! Where the locks of a space are kept that a label is bound to, whichever kind of server that is.

use crate::config::each_url;
use crate::state::lock::GuardId;
use crate::state::lock::leased::LeasedLocks;
use crate::state::lock::leased::ledger::{Identity, Ledger};
use crate::state::postgres::PostgresLocks;
use crate::state::{postgres, redis};
use std::path::PathBuf;
use std::rc::Rc;

/// Where they are.
#[derive(Clone)]
pub(in crate::state::server) enum Place {
    /// One server, or several of which a majority decides.
    Redis(Vec<redis::Address>),
    Postgres(Box<postgres::Address>),
}

impl Place {
    /// Reads a URL, or several. What is said of a wrong one does not repeat it.
    pub(in crate::state::server) fn parse(urls: &str) -> Result<Self, String> {
        match urls.split_once("://") {
            Some(("postgres" | "postgresql", _)) => {
                postgres::Address::parse(urls).map(|it| Self::Postgres(Box::new(it)))
            }
            _ => redis::parse(&each_url(urls)).map(Self::Redis),
        }
    }

    /// Takes the locks of a space; nobody is asked yet whether they are there. To be called within a `LocalSet`.
    pub(in crate::state::server) fn open(
        self,
        space: &str,
        server: &str,
        on_lost: Box<dyn Fn(GuardId)>,
    ) -> Result<LeasedLocks, getrandom::Error> {
        let identity = Identity::new(server)?;
        let ledger: Rc<dyn Ledger> = match self {
            Self::Redis(nodes) => Rc::new(redis::Nodes::new(space, nodes, identity)),
            Self::Postgres(address) => Rc::new(PostgresLocks::new(space, *address, identity)),
        };
        Ok(LeasedLocks::new(space, ledger, on_lost))
    }

    /// Returns the TCP ports that are connected to.
    pub(in crate::state::server) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Redis(nodes) => nodes.iter().filter_map(redis::Address::port).collect(),
            Self::Postgres(address) => address.ports(),
        }
    }

    /// Returns the folders of the Unix sockets that are connected to.
    pub(in crate::state::server) fn sockets(&self) -> Vec<PathBuf> {
        match self {
            Self::Redis(nodes) => nodes.iter().filter_map(redis::Address::socket).collect(),
            Self::Postgres(address) => address.sockets(),
        }
    }

    /// Tells whether a name has to be resolved.
    pub(in crate::state::server) fn resolves(&self) -> bool {
        match self {
            Self::Redis(nodes) => nodes.iter().any(redis::Address::resolves),
            Self::Postgres(address) => address.resolves(),
        }
    }
}
