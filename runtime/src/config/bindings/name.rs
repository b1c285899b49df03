//! What can be bound, by name: `db.default`, `lock.stock`, `queue.orders`, `replica.default`.

use crate::config::shared::Shared;

/// What a variable of the environment that binds something begins with.
pub(super) const VARIABLE: &str = "WRUN_BIND_";

/// What can be bound.
pub(super) const KINDS: [Kind; 4] = [Kind::Db, Kind::Lock, Kind::Queue, Kind::Replica];

/// A label, and the label of what it is; shown as `db.default`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    pub(super) kind: Kind,
    pub(super) label: String,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Db,
    Lock,
    Queue,
    /// A replica of a database's server.
    Replica,
}

impl Kind {
    /// Returns its name in bindings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Lock => "lock",
            Self::Queue => "queue",
            Self::Replica => "replica",
        }
    }

    /// Returns the flag that grants what it is for.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Replica => Self::Db.name(),
            kind => kind.name(),
        }
    }

    /// Returns what people call it, and its section in `wrun.toml`.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Db => ("database", "databases"),
            Self::Lock => ("lock space", "locks"),
            Self::Queue => ("queue", "queues"),
            Self::Replica => ("replica of database", "databases"),
        }
    }

    /// Returns the backend that the scheme of a URL stands for, if there is one.
    pub(super) fn backend(self, scheme: &str) -> Option<&'static str> {
        match (self, scheme) {
            (_, "postgres" | "postgresql") => Some("postgres"),
            (Self::Db | Self::Replica, "mysql" | "mariadb") => Some("mysql"),
            (
                Self::Lock | Self::Queue,
                "redis" | "rediss" | "valkey" | "valkeys" | "redis+unix",
            ) => Some("redis"),
            (Self::Queue, "amqp" | "amqps") => Some("rabbitmq"),
            (Self::Queue, "nats" | "tls" | "nats+tls") => Some("nats"),
            (Self::Queue, "kafka" | "kafkas") => Some("kafka"),
            _ => None,
        }
    }

    /// Returns URLs for a hint.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Db | Self::Replica => {
                "postgres://USER@HOST:PORT/DATABASE, mysql://USER@HOST:PORT/DATABASE"
            }
            Self::Queue => {
                "postgres://USER@HOST:PORT/DATABASE, redis://USER@HOST:PORT/NUMBER, amqp://USER@HOST:PORT/VHOST, nats://HOST:PORT, kafka://HOST:PORT,HOST:PORT/PREFIX"
            }
            Self::Lock => {
                "redis://USER@HOST:PORT/NUMBER, redis://A,redis://B,redis://C, postgres://USER@HOST:PORT/DATABASE"
            }
        }
    }

    /// Returns the labels that are granted.
    pub(super) fn labels(self, shared: &Shared) -> Vec<&String> {
        match self {
            Self::Db | Self::Replica => shared.databases.keys().collect(),
            Self::Lock => shared.locks.keys().collect(),
            Self::Queue => shared.queues.keys().collect(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.kind.name(), self.label)
    }
}

impl Name {
    /// Reads `KIND.LABEL`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, label) = text.split_once('.')?;
        let kind = KINDS.into_iter().find(|known| known.name() == kind)?;
        let label = label.to_owned();
        Some(Self { kind, label })
    }

    /// Returns the variable that binds it.
    pub(super) fn variable(&self) -> String {
        let name = self.to_string().to_ascii_uppercase();
        format!("{VARIABLE}{}", name.replace(['.', '-'], "_"))
    }
}
