//! What a replica says of itself, for `wrun doctor`: whether it is one, of whom, and how far behind.

/// A replica as it was found.
#[derive(Clone, Debug)]
pub struct Replica {
    /// What it runs, such as `PostgreSQL 15.1`.
    pub server: String,
    /// The version of TLS, if the connection is encrypted.
    pub tls: Option<String>,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// Whether it takes writes of its own, as no replica should.
    pub takes_writes: bool,
    /// Whether it follows the server that its database is bound to; `None` if nobody could tell.
    pub is_of_primary: Option<bool>,
    pub following: Following,
    /// How far it is behind, if that is known.
    pub lag: Option<String>,
}

/// Whether it follows its primary.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Following {
    Yes,
    /// It does not, just now.
    No(String),
    /// Its user may not look.
    Unknown,
}
