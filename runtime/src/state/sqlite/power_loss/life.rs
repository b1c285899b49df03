//! One life of the engine, and its users.

use super::super::*;
use super::known::{Fact, Id, TABLES, body, filler};
use super::random::Random;
use super::tape::{self, Event, Tape};
use super::vfs::{self, Recording};
use crate::state::db::{Statement, TxOptions, Value, Want};
use crate::state::queue::stored::Change;
use crate::state::queue::{Message, QueueError};
use rusqlite::wal::CheckpointMode;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet, yield_now};

/// Transactions of each user.
const TRANSACTIONS: i64 = 40;
/// The parts of a large transaction: more than the writer's cache holds, and than the log may grow by.
const LARGE_PARTS: i64 = 5;
const LARGE_PART_SIZE: usize = 3_700_000;
/// A life takes no longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// How the database is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Load {
    /// By many at once, in small transactions, with checkpoints more often than the engine does them by itself.
    Many,
    /// With transactions that are in the log before they are committed, and with the engine's own checkpoints alone.
    Large,
}

/// What is wrong with the engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    None,
    /// Commits are acknowledged though nothing synced the log.
    NoSync,
    /// Checkpoints sync neither the log before nor the database's file after.
    LooseCheckpoints,
}

/// What the users have in common.
#[derive(Clone)]
struct On {
    db: Sqlite,
    tape: Arc<Tape>,
    checkpoints: Sender<CheckpointMode>,
}

/// Opens the database in a folder, has it used, closes it, and returns what has happened. `life` tells the users of several
/// lives apart.
pub(super) fn live(
    folder: &Path,
    life: i64,
    load: Load,
    flaw: Flaw,
    random: &mut Random,
) -> Vec<Event> {
    let folder = folder.canonicalize().unwrap();
    let tape = Arc::new(Tape::default());
    let recording = Recording::new(&folder, Arc::clone(&tape));
    let options = options(&folder, &tape, flaw);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let whole = async {
            let (sender, _sent) = tokio::sync::mpsc::unbounded_channel();
            let db = Sqlite::open(options.clone(), sender).unwrap();
            let (checkpoints, requests) = mpsc::channel();
            let shared = Arc::clone(&db.inner.shared);
            let keeper = thread::spawn(move || keep(&options, flaw, &shared, &requests));
            let on = On {
                db: db.clone(),
                tape: Arc::clone(&tape),
                checkpoints,
            };
            use_all(on, life, load, random).await;
            keeper.join().unwrap();
            db.close().await;
        };
        let lived = tokio::time::timeout(DEADLINE, whole).await;
        lived.expect("the users hang");
    });
    drop(recording);
    tape.take()
}

fn options(folder: &Path, tape: &Arc<Tape>, flaw: Flaw) -> Options {
    let syncing = Arc::clone(tape);
    Options {
        path: folder.join(tape::File::Database.name()),
        label: "default".to_owned(),
        max_size: 1 << 30,
        durability: Durability::Full,
        vfs: Some(vfs::NAME.to_owned()),
        sync: Some(Arc::new(move |_: &Path| {
            if flaw != Flaw::NoSync {
                syncing.sync(tape::File::Log, false);
            }
            Ok(())
        })),
        fatal: Arc::new(|reason| panic!("{reason}")),
        queues: [("jobs".to_owned(), 1_000_000)].into(),
    }
}

/// Does checkpoints beside the engine's own threads, as these do them.
fn keep(options: &Options, flaw: Flaw, shared: &Shared, requests: &Receiver<CheckpointMode>) {
    let Connection { sqlite, .. } = Connection::open(options, Role::Keeper).unwrap();
    sqlite.busy_timeout(Duration::from_millis(2)).unwrap();
    if flaw == Flaw::LooseCheckpoints {
        sqlite.pragma_update(None, "synchronous", "off").unwrap();
    }
    for mode in requests {
        let _one_at_a_time = shared.lock_checkpoint();
        if let Err(error) = sqlite.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), mode) {
            let busy = Some(rusqlite::ErrorCode::DatabaseBusy);
            assert_eq!(error.sqlite_error_code(), busy, "{error}");
        }
    }
}

async fn use_all(on: On, life: i64, load: Load, random: &mut Random) {
    for table in TABLES {
        let table = table.replace("TABLE", "TABLE IF NOT EXISTS");
        on.batch(vec![statement(&table, [])]).await.unwrap();
    }
    let mut users = JoinSet::new();
    let mut ids = (life * 100..).map(|who| (who, random.split()));
    match load {
        Load::Many => {
            for (who, random) in ids.by_ref().take(3) {
                users.spawn_local(on.clone().use_batches(who, random));
            }
            for (who, random) in ids.by_ref().take(2) {
                users.spawn_local(on.clone().use_transactions(who, random));
            }
            for (who, random) in ids.by_ref().take(2) {
                users.spawn_local(on.clone().use_queue(who, random));
            }
            users.spawn_local(on.clone().use_tokens());
            users.spawn_local(on.clone().use_snapshots());
        }
        Load::Large => {
            for (who, random) in ids.by_ref().take(2) {
                users.spawn_local(on.clone().use_large(who, random));
            }
        }
    }
    while let Some(user) = users.join_next().await {
        user.unwrap();
    }
}

impl On {
    /// Runs batches, some of them several at a time.
    async fn use_batches(self, who: i64, mut random: Random) {
        let mut number = 0;
        while number < TRANSACTIONS {
            let together = 1 + random.below(4) as i64;
            let batches: Vec<_> = (number..number + together)
                .map(|number| {
                    let id = (who, number);
                    (id, self.batch(transaction(id, 0, &mut random)))
                })
                .collect();
            for (id, batch) in batches {
                if batch.await.is_some() {
                    self.tape.tell(Fact::Committed(id));
                }
            }
            number += together;
            self.maybe_checkpoint(&mut random);
        }
    }

    /// Runs transactions step by step, some of which send messages, and some of which are given up.
    async fn use_transactions(self, who: i64, mut random: Random) {
        for number in 0..TRANSACTIONS {
            let id = (who, number);
            let messages = random.below(3) as i64;
            let statements = transaction(id, messages, &mut random);
            self.transaction(id, statements, messages, &mut random)
                .await;
            self.maybe_checkpoint(&mut random);
        }
    }

    /// Runs large transactions and small ones in turn. The small ones wait in the log while the next large one is written.
    async fn use_large(self, who: i64, mut random: Random) {
        for number in 0..4 {
            let id = (who, number);
            if number % 2 == 0 {
                let batch = self.batch(transaction(id, 0, &mut random));
                if batch.await.is_some() {
                    self.tape.tell(Fact::Committed(id));
                }
                continue;
            }
            let mut statements = vec![entry(id, LARGE_PARTS, 0)];
            statements.extend((0..LARGE_PARTS).map(|number| part(id, number, LARGE_PART_SIZE)));
            statements.extend(removal(id));
            self.transaction(id, statements, 0, &mut random).await;
        }
    }

    /// Runs a transaction step by step, or gives it up.
    async fn transaction(
        &self,
        id: Id,
        statements: Vec<Statement>,
        count: i64,
        random: &mut Random,
    ) -> Option<()> {
        let tx = in_time(self.db.begin(TxOptions::default()).await)?;
        for statement in statements {
            in_time(tx.run(statement, Want::Done).await)?;
            if random.one_in(4) {
                yield_now().await;
            }
        }
        if count > 0 {
            in_time(tx.send("jobs".to_owned(), messages(id, count)).await)?;
        }
        match random.below(8) {
            0 => drop(tx),
            1 => tx.rollback().await,
            _ => {
                in_time(tx.commit().await)?;
                self.tape.tell(Fact::Committed(id));
            }
        }
        Some(())
    }

    /// Sends messages, and settles some of them.
    async fn use_queue(self, who: i64, mut random: Random) {
        for number in 0..TRANSACTIONS {
            let id = (who, number);
            let count = 1 + random.below(5) as i64;
            let send = self.db.send("jobs".to_owned(), messages(id, count));
            let Some(ids) = in_time(send.await) else {
                continue;
            };
            self.tape.tell(Fact::Sent(id, count));
            let changes = (0..).zip(ids).filter_map(|(index, message)| {
                let row = message.strip_prefix("default-").unwrap().parse().unwrap();
                let change = change(row, &mut random)?;
                if matches!(change, Change::Remove { .. }) {
                    self.tape.tell(Fact::Removing(id, index));
                }
                Some(change)
            });
            let settle = self.db.settle("jobs".to_owned(), changes.collect());
            in_time(settle.await);
            self.maybe_checkpoint(&mut random);
        }
    }

    async fn use_tokens(self) {
        for _ in 0..TRANSACTIONS / 4 {
            if let Some(token) = in_time(self.db.reserve_tokens(10).await) {
                self.tape.tell(Fact::Reserved(token as i64));
            }
        }
    }

    /// Reads, and so keeps checkpoints from getting to the end of the log.
    async fn use_snapshots(self) {
        let options = TxOptions {
            read_only: true,
            ..TxOptions::default()
        };
        for turns in 0..TRANSACTIONS {
            let Some(tx) = in_time(self.db.begin(options).await) else {
                continue;
            };
            let count = statement("SELECT count(*) FROM part", []);
            in_time(tx.run(count, Want::Rows).await);
            for _ in 0..turns % 8 * 5 {
                yield_now().await;
            }
        }
    }

    /// Runs statements in one transaction. They are on their way when this returns.
    fn batch(&self, statements: Vec<Statement>) -> BoxFuture<'_, Option<()>> {
        let wanted = statements
            .into_iter()
            .map(|statement| (statement, Want::Done));
        let batch = self.db.batch(wanted.collect(), TxOptions::default());
        Box::pin(async { in_time(batch.await).map(drop) })
    }

    fn maybe_checkpoint(&self, random: &mut Random) {
        let mode = match random.below(16) {
            0..4 => CheckpointMode::PASSIVE,
            4 => CheckpointMode::FULL,
            5 => CheckpointMode::RESTART,
            6 => CheckpointMode::TRUNCATE,
            _ => return,
        };
        self.checkpoints.send(mode).unwrap();
    }
}

/// Returns what was answered, or none if a machine that is busy with other things took too long.
fn in_time<T>(answer: Result<T, impl Into<QueueError>>) -> Option<T> {
    match answer.map_err(Into::into) {
        Ok(answer) => Some(answer),
        Err(QueueError::Unavailable(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Returns what becomes of a message.
fn change(id: i64, random: &mut Random) -> Option<Change> {
    Some(match random.below(5) {
        0..2 => Change::Remove { id },
        2 => Change::Retry {
            id,
            attempts: 1,
            ready_at_ms: 0,
            alone: true,
        },
        3 => Change::Dead {
            id,
            attempts: 2,
            reason: "no".to_owned(),
        },
        _ => return None,
    })
}

/// Returns the statements of a transaction: they note it, add its parts, and sometimes remove those of former ones.
fn transaction(id: Id, messages: i64, random: &mut Random) -> Vec<Statement> {
    let parts = 1 + random.below(4) as i64;
    let mut statements = vec![entry(id, parts, messages)];
    for number in 0..parts {
        let size_max = match random.below(64) {
            0 => 60_000,
            1..6 => 8000,
            _ => 400,
        };
        statements.push(part(id, number, random.index(size_max)));
    }
    if random.one_in(5) {
        statements.extend(removal(id));
    }
    statements
}

fn entry((who, number): Id, parts: i64, messages: i64) -> Statement {
    statement(
        "INSERT INTO ledger (who, number, parts, messages) VALUES (?, ?, ?, ?)",
        [who, number, parts, messages].map(Value::Integer),
    )
}

fn part(id: Id, part: i64, size: usize) -> Statement {
    let [who, number, part_number, length] = [id.0, id.1, part, size as i64].map(Value::Integer);
    let content = Value::Blob(filler(id, part, size));
    statement(
        "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
        [who, number, part_number, length, content],
    )
}

/// Returns the statements that remove the parts of the user's former transactions.
fn removal((who, number): Id) -> [Statement; 2] {
    [
        "UPDATE ledger SET gone = 1 WHERE who = ? AND number < ?",
        "DELETE FROM part WHERE who = ? AND number < ?",
    ]
    .map(|sql| statement(sql, [who, number].map(Value::Integer)))
}

fn messages(id: Id, count: i64) -> Vec<Message> {
    let message = |index| Message {
        body: body(id, index, count),
        ..Message::default()
    };
    (0..count).map(message).collect()
}

fn statement(sql: &str, params: impl IntoIterator<Item = Value>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params: params.into_iter().collect(),
    }
}
