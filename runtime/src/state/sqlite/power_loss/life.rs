//! One life of the engine: several users at once, and checkpoints more often than it does them by itself.

use super::super::messages::Change;
use super::super::*;
use super::known::{Fact, Id, TABLES, body, filler};
use super::random::Random;
use super::tape::{self, Event, Tape};
use super::vfs::{self, Recording};
use crate::state::db::{Statement, TxOptions, Value, Want};
use crate::state::queue::Message;
use rusqlite::wal::CheckpointMode;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet, yield_now};

/// Transactions of each user.
const TRANSACTIONS: i64 = 40;
/// A life takes no longer.
const DEADLINE: Duration = Duration::from_secs(120);

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
pub(super) fn live(folder: &Path, life: i64, flaw: Flaw, random: &mut Random) -> Vec<Event> {
    let folder = folder.canonicalize().unwrap();
    let tape = Arc::new(Tape::default());
    let recording = Recording::new(&folder, Arc::clone(&tape));
    let options = options(&folder, &tape, flaw);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let users = use_all(options, &tape, life, flaw, random);
        let used = tokio::time::timeout(DEADLINE, users).await;
        used.expect("the users hang");
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

async fn use_all(
    options: Options,
    tape: &Arc<Tape>,
    life: i64,
    flaw: Flaw,
    random: &mut Random,
) {
    let (sender, _sent) = tokio::sync::mpsc::unbounded_channel();
    let db = Sqlite::open(options.clone(), sender).unwrap();
    let (checkpoints, requests) = mpsc::channel();
    let shared = Arc::clone(&db.inner.shared);
    let keeper = thread::spawn(move || keep(&options, flaw, &shared, &requests));
    let on = On {
        db,
        tape: Arc::clone(tape),
        checkpoints,
    };
    for table in TABLES {
        let table = table.replace("TABLE", "TABLE IF NOT EXISTS");
        on.batch(vec![statement(&table, [])]).await;
    }
    let mut users = JoinSet::new();
    let mut ids = (life * 100..).map(|who| (who, random.fork()));
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
    while let Some(user) = users.join_next().await {
        user.unwrap();
    }
    let On {
        db, checkpoints, ..
    } = on;
    drop(checkpoints);
    keeper.join().unwrap();
    db.close().await;
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
        match sqlite.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), mode) {
            Ok(_) => {}
            Err(error) => assert_eq!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy)
            ),
        }
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
                    let batch = self.batch(transaction((who, number), 0, &mut random));
                    (number, batch)
                })
                .collect();
            for (number, batch) in batches {
                batch.await;
                self.tape.tell(Fact::Committed((who, number)));
            }
            number += together;
            self.maybe_checkpoint(&mut random);
        }
    }

    /// Runs transactions step by step, some of which send messages, and some of which are given up.
    async fn use_transactions(self, who: i64, mut random: Random) {
        for number in 0..TRANSACTIONS {
            let id = (who, number);
            let tx = self.db.begin(TxOptions::default()).await.unwrap();
            let count = random.below(3) as i64;
            for statement in transaction(id, count, &mut random) {
                tx.run(statement, Want::Done).await.unwrap();
                if random.one_in(4) {
                    yield_now().await;
                }
            }
            if count > 0 {
                let send = tx.send("jobs".to_owned(), messages(id, count));
                send.await.unwrap();
            }
            match random.below(8) {
                0 => drop(tx),
                1 => tx.rollback().await,
                _ => {
                    tx.commit().await.unwrap();
                    self.tape.tell(Fact::Committed(id));
                    self.maybe_checkpoint(&mut random);
                }
            }
        }
    }

    /// Sends messages, and settles some of them.
    async fn use_queue(self, who: i64, mut random: Random) {
        for number in 0..TRANSACTIONS {
            let id = (who, number);
            let count = 1 + random.below(5) as i64;
            let send = self.db.send("jobs".to_owned(), messages(id, count));
            let ids = send.await.unwrap();
            self.tape.tell(Fact::Sent(id, count));
            let mut changes = Vec::new();
            for (index, message) in (0..).zip(ids) {
                let row = message.strip_prefix("default-").unwrap().parse().unwrap();
                changes.extend(match random.below(5) {
                    0..2 => {
                        self.tape.tell(Fact::Removing(id, index));
                        Some(Change::Remove { id: row })
                    }
                    2 => Some(Change::Retry {
                        id: row,
                        attempts: 1,
                        ready_at_ms: 0,
                        alone: true,
                    }),
                    3 => Some(Change::Dead {
                        id: row,
                        attempts: 2,
                        reason: "no".to_owned(),
                    }),
                    _ => None,
                });
            }
            self.db.settle("jobs".to_owned(), changes).await.unwrap();
            self.maybe_checkpoint(&mut random);
        }
    }

    async fn use_tokens(self) {
        for _ in 0..TRANSACTIONS / 4 {
            let token = self.db.reserve_tokens(10).await.unwrap();
            self.tape.tell(Fact::Reserved(token as i64));
        }
    }

    /// Reads, and so keeps checkpoints from getting to the end of the log.
    async fn use_snapshots(self) {
        let options = TxOptions {
            read_only: true,
            ..TxOptions::default()
        };
        for turns in 0..TRANSACTIONS {
            let tx = self.db.begin(options).await.unwrap();
            let count = statement("SELECT count(*) FROM part", []);
            tx.run(count, Want::Rows).await.unwrap();
            for _ in 0..turns % 8 * 5 {
                yield_now().await;
            }
        }
    }

    /// Runs statements in one transaction. They are on their way when this returns.
    fn batch(&self, statements: Vec<Statement>) -> BoxFuture<'_, ()> {
        let wanted = statements
            .into_iter()
            .map(|statement| (statement, Want::Done));
        let batch = self.db.batch(wanted.collect(), TxOptions::default());
        Box::pin(async { drop(batch.await.unwrap()) })
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

/// Returns the statements of a transaction: they note it, add its parts, and sometimes remove those of former ones.
fn transaction(id: Id, messages: i64, random: &mut Random) -> Vec<Statement> {
    let (who, number) = id;
    let parts = 1 + random.below(4) as i64;
    let mut statements = vec![statement(
        "INSERT INTO ledger (who, number, parts, messages) VALUES (?, ?, ?, ?)",
        [who, number, parts, messages].map(Value::Integer),
    )];
    for part in 0..parts {
        let size = match random.below(64) {
            0 => 60_000,
            1..6 => 8000,
            _ => 400,
        };
        let size = random.index(size);
        let [who, number, part_number, length] =
            [who, number, part, size as i64].map(Value::Integer);
        let content = Value::Blob(filler(id, part, size));
        statements.push(statement(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?)",
            [who, number, part_number, length, content],
        ));
    }
    if random.one_in(5) {
        for sql in [
            "UPDATE ledger SET gone = 1 WHERE who = ? AND number < ?",
            "DELETE FROM part WHERE who = ? AND number < ?",
        ] {
            statements.push(statement(sql, [who, number].map(Value::Integer)));
        }
    }
    statements
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
