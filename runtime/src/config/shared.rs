//! What guests may share: the locks, databases, queues, consumers and key-value stores that manifest and flags grant, by
//! their labels.
//!
//! A label that is not here does not exist for a guest. Where its data lives is for the state process to say.

use super::units::{Size, Span};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database that queues are kept in unless told otherwise, and that need not be declared for that.
const DEFAULT_DATABASE: &str = "default";

/// The longest label in bytes.
const LABEL_MAX: usize = 63;

/// The smallest `max-size`: room for a few pages of SQLite's, without which nothing can be kept.
const DATABASE_SIZE_MIN: u64 = 64 << 10;

/// The largest `max-attempts`.
const ATTEMPTS_MAX: u32 = 1000;

/// The shortest and the longest `visibility-timeout`.
const VISIBILITY: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(12 * 3600);

/// The longest `max-backoff`.
const BACKOFF_MAX: Duration = Duration::from_secs(12 * 3600);

/// The largest `batch`.
const BATCH_MAX: u32 = 1000;

/// The largest `concurrency`.
const CONCURRENCY_MAX: u32 = 1000;

/// All that is granted. Settled: what the manifest left out has its default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// `[locks]`: spaces of lock keys.
    pub locks: BTreeMap<String, LockSpace>,
    /// `[databases]`.
    pub databases: BTreeMap<String, Database>,
    /// `[queues]`.
    pub queues: BTreeMap<String, Queue>,
    /// `[consumers]`: the queues whose messages the component handles.
    pub consumers: BTreeMap<String, Consumer>,
    /// `[keyvalue]`: key-value stores.
    pub keyvalue: BTreeMap<String, KeyValue>,
}

/// `[locks.LABEL]`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct LockSpace {
    /// The server that its locks are kept in; `None` if they are embedded, as they are unless somebody binds them.
    pub bound: Option<Bound>,
}

/// `[databases.LABEL]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// A folder of `.sql` files that are applied in the order of their names, each once.
    pub migrations: Option<PathBuf>,
    /// The largest size in bytes.
    pub max_size: u64,
    pub durability: Durability,
    /// The server that it is kept in; `None` if it is embedded, as it is unless somebody binds it.
    pub bound: Option<Bound>,
    /// A replica of that server, if one takes the transactions that only read.
    pub replica: Option<Bound>,
}

/// What may be known of the server that a label is bound to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The kind: `postgres`, `mysql` or `redis`.
    pub backend: String,
    /// Its URL, without user, password and parameters.
    pub shown: String,
}

/// `[keyvalue.LABEL]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The largest size in bytes.
    pub max_size: u64,
    pub durability: Durability,
}

/// When a change is acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Once it is on the disk: it survives a power failure.
    #[default]
    Full,
    /// Once it is written: it survives the death of any process, not a power failure.
    Relaxed,
}

/// `[queues.LABEL]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// The database that its messages are kept in, and whose transactions can send to it.
    pub database: String,
    /// Messages that it may hold.
    pub max_depth: u64,
    /// Tries before a message goes to the dead letters.
    pub max_attempts: u32,
    /// How long a try may take.
    pub visibility_timeout: Duration,
    /// The longest pause before the second try; it doubles with each further one. The pause is random up to that.
    pub backoff: Duration,
    /// What it does not grow beyond.
    pub backoff_max: Duration,
    /// The server that it is kept in; `None` if it is embedded, as it is unless somebody binds it.
    pub bound: Option<Bound>,
}

/// `[consumers.QUEUE]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    /// Messages handed over in one call, at most.
    pub batch: u32,
    /// Calls at a time, in each worker.
    pub concurrency: u32,
}

/// Labels as flags grant them, each with the manifest's settings or the defaults.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
pub struct SharedArgs {
    /// Let guests take locks in the space LABEL; repeatable
    #[arg(long = "lock", value_name = "LABEL")]
    pub locks: Vec<String>,
    /// Let guests use the database LABEL; repeatable
    #[arg(long = "db", value_name = "LABEL")]
    pub databases: Vec<String>,
    /// Let guests send to the queue LABEL; repeatable
    #[arg(long = "queue", value_name = "LABEL")]
    pub queues: Vec<String>,
    /// Let guests use the key-value store LABEL; repeatable
    #[arg(long, value_name = "LABEL")]
    pub keyvalue: Vec<String>,
}

/// The sections of the manifest, as they stand there.
#[derive(Debug, Default)]
pub struct SharedKeys {
    pub locks: BTreeMap<String, LockKeys>,
    pub databases: BTreeMap<String, DatabaseKeys>,
    pub queues: BTreeMap<String, QueueKeys>,
    pub consumers: BTreeMap<String, ConsumerKeys>,
    pub keyvalue: BTreeMap<String, KeyValueKeys>,
}

/// `[locks.LABEL]` as it stands in the manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockKeys {}

/// `[databases.LABEL]` as it stands in the manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DatabaseKeys {
    migrations: Option<PathBuf>,
    max_size: Option<Size>,
    durability: Option<Durability>,
}

/// `[keyvalue.LABEL]` as it stands in the manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeyValueKeys {
    max_size: Option<Size>,
    durability: Option<Durability>,
}

/// `[queues.LABEL]` as it stands in the manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueKeys {
    database: Option<String>,
    max_depth: Option<u64>,
    max_attempts: Option<u32>,
    visibility_timeout: Option<Span>,
    backoff: Option<Span>,
    max_backoff: Option<Span>,
}

/// `[consumers.QUEUE]` as it stands in the manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConsumerKeys {
    batch: Option<u32>,
    concurrency: Option<u32>,
}

impl Shared {
    /// Tells whether anything needs a state process.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
            && self.databases.is_empty()
            && self.queues.is_empty()
            && self.keyvalue.is_empty()
    }

    /// Settles what flags and manifest grant together; `folder` is where the manifest's paths start.
    pub fn merge(args: &SharedArgs, keys: SharedKeys, folder: &Path) -> Result<Self, Failure> {
        let mut keys = keys;
        for label in &args.locks {
            keys.locks.entry(label.clone()).or_default();
        }
        for label in &args.databases {
            keys.databases.entry(label.clone()).or_default();
        }
        for label in &args.queues {
            keys.queues.entry(label.clone()).or_default();
        }
        for label in &args.keyvalue {
            keys.keyvalue.entry(label.clone()).or_default();
        }
        for (section, labels) in [
            ("locks", keys.locks.keys().collect::<Vec<_>>()),
            ("databases", keys.databases.keys().collect()),
            ("queues", keys.queues.keys().collect()),
            ("consumers", keys.consumers.keys().collect()),
            ("keyvalue", keys.keyvalue.keys().collect()),
        ] {
            for label in labels {
                check_label(section, label)?;
            }
        }
        let mut shared = Self {
            locks: settle_all(keys.locks, |_, LockKeys {}| Ok(LockSpace::default()))?,
            databases: settle_all(keys.databases, |label, keys| keys.settle(label, folder))?,
            queues: settle_all(keys.queues, |label, keys| keys.settle(label))?,
            consumers: settle_all(keys.consumers, |queue, keys| keys.settle(queue))?,
            keyvalue: settle_all(keys.keyvalue, |label, keys| keys.settle(label))?,
        };
        shared.connect()?;
        Ok(shared)
    }

    /// Checks that what labels refer to is there.
    fn connect(&mut self) -> Result<(), Failure> {
        let queues: Vec<_> = self.queues.iter().collect();
        for (label, queue) in queues {
            let database = &queue.database;
            if self.databases.contains_key(database) {
                continue;
            }
            if database != DEFAULT_DATABASE {
                return Err(Failure::new(
                    ExitCode::Config,
                    format!(
                        "queue {label} is to be kept in database {database:?}, which is not there"
                    ),
                )
                .hint(format!(
                    "add [databases.{database}], or change `database` in [queues.{label}]"
                )));
            }
            let implied = DatabaseKeys::default().settle(database, Path::new(""))?;
            self.databases.insert(database.clone(), implied);
        }
        match self
            .consumers
            .keys()
            .find(|queue| !self.queues.contains_key(*queue))
        {
            Some(queue) => Err(Failure::new(
                ExitCode::Config,
                format!("[consumers.{queue}] is for a queue that is not there"),
            )
            .hint(format!("add [queues.{queue}]"))),
            None => Ok(()),
        }
    }
}

impl DatabaseKeys {
    fn settle(self, label: &str, folder: &Path) -> Result<Database, Failure> {
        Ok(Database {
            migrations: self.migrations.map(|dir| folder.join(dir)),
            max_size: max_size("databases", label, self.max_size)?,
            durability: self.durability.unwrap_or_default(),
            bound: None,
            replica: None,
        })
    }
}

impl KeyValueKeys {
    fn settle(self, label: &str) -> Result<KeyValue, Failure> {
        Ok(KeyValue {
            max_size: max_size("keyvalue", label, self.max_size)?,
            durability: self.durability.unwrap_or_default(),
        })
    }
}

impl QueueKeys {
    fn settle(self, label: &str) -> Result<Queue, Failure> {
        let wrong = |key, why: &str| Err(wrong("queues", label, key, why));
        let span =
            |key: Option<Span>, seconds| key.map_or(Duration::from_secs(seconds), Span::duration);
        let queue = Queue {
            database: self.database.unwrap_or_else(|| DEFAULT_DATABASE.to_owned()),
            max_depth: self.max_depth.unwrap_or(100_000),
            max_attempts: self.max_attempts.unwrap_or(5),
            visibility_timeout: span(self.visibility_timeout, 30),
            backoff: span(self.backoff, 1),
            backoff_max: span(self.max_backoff, 300),
            bound: None,
        };
        if queue.max_depth == 0 {
            return wrong("max-depth", "is 0");
        }
        if !(1..=ATTEMPTS_MAX).contains(&queue.max_attempts) {
            return wrong("max-attempts", "is not between 1 and 1000");
        }
        if !VISIBILITY.contains(&queue.visibility_timeout) {
            return wrong("visibility-timeout", "is not between 1s and 12h");
        }
        if queue.backoff_max > BACKOFF_MAX {
            return wrong("max-backoff", "is over 12h");
        }
        if queue.backoff > queue.backoff_max {
            return wrong("backoff", "is over max-backoff");
        }
        Ok(queue)
    }
}

impl ConsumerKeys {
    fn settle(self, queue: &str) -> Result<Consumer, Failure> {
        let wrong = |key, why: &str| Err(wrong("consumers", queue, key, why));
        let consumer = Consumer {
            batch: self.batch.unwrap_or(10),
            concurrency: self.concurrency.unwrap_or(4),
        };
        if !(1..=BATCH_MAX).contains(&consumer.batch) {
            return wrong("batch", "is not between 1 and 1000");
        }
        if !(1..=CONCURRENCY_MAX).contains(&consumer.concurrency) {
            return wrong("concurrency", "is not between 1 and 1000");
        }
        Ok(consumer)
    }
}

fn max_size(section: &str, label: &str, key: Option<Size>) -> Result<u64, Failure> {
    let max_size = key.map_or(1 << 30, Size::bytes);
    if max_size < DATABASE_SIZE_MIN {
        return Err(wrong(section, label, "max-size", "is under 64KiB"));
    }
    Ok(max_size)
}

fn settle_all<K, S>(
    keys: BTreeMap<String, K>,
    settle: impl Fn(&str, K) -> Result<S, Failure>,
) -> Result<BTreeMap<String, S>, Failure> {
    keys.into_iter()
        .map(|(label, keys)| settle(&label, keys).map(|settled| (label, settled)))
        .collect()
}

/// Refuses what could not be the name of a file, a row and a flag's value alike.
fn check_label(section: &str, label: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins_well = label.bytes().next().is_some_and(is_plain);
    let goes_on_well = label
        .bytes()
        .all(|byte| is_plain(byte) || matches!(byte, b'_' | b'-'));
    if begins_well && goes_on_well && label.len() <= LABEL_MAX {
        return Ok(());
    }
    let shown: String = label.chars().take(LABEL_MAX + 1).collect();
    Err(Failure::new(
        ExitCode::Config,
        format!("{shown:?} in [{section}] is no label"),
    )
    .hint("a label is up to 63 of a-z, 0-9, - and _, and begins with a letter or a digit"))
}

fn wrong(section: &str, label: &str, key: &str, why: &str) -> Failure {
    Failure::new(
        ExitCode::Config,
        format!("{key} of [{section}.{label}] {why}"),
    )
    .hint(format!("change `{key}` in [{section}.{label}]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Manifest;

    fn settle(toml: &str) -> Result<Shared, Failure> {
        let mut manifest = Manifest::parse(toml).unwrap();
        Shared::merge(&SharedArgs::default(), manifest.shared(), Path::new("app"))
    }

    fn refused(toml: &str) -> Failure {
        let failure = settle(toml).unwrap_err();
        assert_eq!(failure.code, ExitCode::Config);
        failure
    }

    #[test]
    fn empty_tables_grant_with_defaults() {
        let shared = settle("[locks]\nstock = {}\n[databases.default]\n[queues.orders]\n").unwrap();
        assert_eq!(shared.locks["stock"], LockSpace::default());
        let database = Database {
            migrations: None,
            max_size: 1 << 30,
            durability: Durability::Full,
            bound: None,
            replica: None,
        };
        assert_eq!(shared.databases["default"], database);
        let queue = Queue {
            database: "default".into(),
            max_depth: 100_000,
            max_attempts: 5,
            visibility_timeout: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            bound: None,
        };
        assert_eq!(shared.queues["orders"], queue);
        assert!(shared.consumers.is_empty());
    }

    #[test]
    fn every_key_is_read() {
        let shared = settle(
            "[databases.shop]\nmigrations = \"sql\"\nmax-size = \"2GiB\"\ndurability = \"relaxed\"\n\
             [queues.orders]\ndatabase = \"shop\"\nmax-depth = 7\nmax-attempts = 3\nvisibility-timeout = \"5s\"\n\
             backoff = \"2s\"\nmax-backoff = \"3s\"\n[consumers.orders]\nbatch = 2\nconcurrency = 1\n",
        )
        .unwrap();
        let database = &shared.databases["shop"];
        assert_eq!(database.migrations.as_deref(), Some(Path::new("app/sql")));
        assert_eq!(
            (database.max_size, database.durability),
            (2 << 30, Durability::Relaxed)
        );
        let queue = &shared.queues["orders"];
        assert_eq!(
            (
                queue.max_depth,
                queue.max_attempts,
                queue.backoff.as_secs(),
                queue.backoff_max.as_secs()
            ),
            (7, 3, 2, 3)
        );
        let consumer = Consumer {
            batch: 2,
            concurrency: 1,
        };
        assert_eq!(shared.consumers["orders"], consumer);
        assert!(!shared.databases.contains_key("default"));
    }

    #[test]
    fn flags_grant_without_a_manifest_and_leave_its_settings_alone() {
        let args = SharedArgs {
            locks: vec!["stock".into()],
            databases: vec!["shop".into()],
            queues: vec!["orders".into()],
            keyvalue: vec!["default".into()],
        };
        let shared = Shared::merge(&args, SharedKeys::default(), Path::new(".")).unwrap();
        let databases: Vec<_> = shared.databases.keys().collect();
        assert_eq!(
            databases,
            ["default", "shop"],
            "a queue brings its database"
        );
        assert_eq!(shared.keyvalue["default"].max_size, 1 << 30);
        let mut manifest = Manifest::parse("[queues.orders]\nmax-attempts = 9\n").unwrap();
        let shared = Shared::merge(&args, manifest.shared(), Path::new(".")).unwrap();
        assert_eq!(shared.queues["orders"].max_attempts, 9);
    }

    #[test]
    fn queue_in_a_database_that_is_not_there_is_refused() {
        let failure = refused("[queues.orders]\ndatabase = \"shop\"\n");
        assert!(failure.hint.unwrap().contains("[databases.shop]"));
    }

    #[test]
    fn consumer_of_a_queue_that_is_not_there_is_refused() {
        let failure = refused("[consumers.orders]\n");
        assert!(failure.hint.unwrap().contains("[queues.orders]"));
    }

    #[test]
    fn label_that_is_no_plain_word_is_refused_by_name() {
        let long = "x".repeat(64);
        for label in [
            "", "Orders", "-a", "_a", "a.dead", "../a", "a b", "ä", "a\\u0000", &long,
        ] {
            for section in ["locks", "databases", "queues", "consumers", "keyvalue"] {
                let failure = refused(&format!("[{section}.\"{label}\"]\n"));
                assert!(failure.message.contains("is no label"), "{failure}");
                assert!(failure.message.contains(section), "{failure}");
            }
        }
        settle(&format!("[locks.{}]\n[locks.0-a_b]\n", "x".repeat(63))).unwrap();
    }

    #[test]
    fn value_out_of_range_is_refused_and_names_its_key() {
        for (section, key, values) in [
            ("databases", "max-size", &["1024", "\"1KiB\""][..]),
            ("keyvalue", "max-size", &["\"63KiB\""]),
            ("queues", "max-depth", &["0"]),
            ("queues", "max-attempts", &["0", "1001"]),
            ("queues", "visibility-timeout", &["\"999ms\"", "\"13h\""]),
            ("queues", "backoff", &["\"6min\""]),
            ("queues", "max-backoff", &["\"13h\"", "\"1day\""]),
            ("consumers", "batch", &["0", "1001"]),
            ("consumers", "concurrency", &["0", "1001"]),
        ] {
            for value in values {
                let failure = refused(&format!("[{section}.x]\n{key} = {value}\n"));
                assert!(failure.message.contains(key), "{failure}");
                assert!(failure.hint.unwrap().contains(&format!("[{section}.x]")));
            }
        }
    }
}
