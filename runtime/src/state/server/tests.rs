//! A whole state process in a thread, and those who connect to it.

mod lanes;

use super::*;
use crate::config::shared::{Consumer, Database, Durability, LockSpace, Queue};
use crate::state::client::{Client, Guard};
use crate::state::db::{DbError, Rows, Statement, Step, TxOptions, Value, Want};
use crate::state::lock::{Acquire, LockError};
use crate::state::operator;
use crate::state::protocol::{
    Call, FRAME_MAX, FromState, Incoming, OperatorCall, Outgoing, Reply, Request, Role,
    TRANSACTIONS_MAX,
};
use crate::state::queue::{Delivery, Message, Outcome, QueueError};
use nix::poll::{PollFd, PollFlags, poll};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

const GENERATION: u64 = 1;

/// A server's folder and socket, and the state process that works with them.
struct Fixture {
    folder: TempDir,
    listener: UnixListener,
    running: Option<Running>,
}

struct Running {
    channel: Channel,
    thread: JoinHandle<ExitCode>,
}

impl Fixture {
    /// Starts a state process that serves one generation.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = listener(&folder.path().join("state.sock"));
        let mut server = Self {
            folder,
            listener,
            running: None,
        };
        server.run();
        server.configure(GENERATION, shared(), Vec::new()).unwrap();
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("state.sock")
    }

    /// Starts a state process that serves nobody yet.
    fn run(&mut self) {
        let (ours, theirs) = Channel::pair().unwrap();
        let boot = Boot {
            data: self.folder.path().to_path_buf(),
            listener: self.listener.try_clone().unwrap(),
            channel: theirs,
            reads: Vec::new(),
            servers: BTreeMap::new(),
            identity: String::new(),
            sandbox: Mode::Off,
        };
        // No process has the pid 0, so this one may be an operator.
        let thread = std::thread::spawn(|| serve_as_child_of(boot, Servers::default(), 0));
        self.running = Some(Running {
            channel: ours,
            thread,
        });
    }

    fn configure(
        &self,
        generation: u64,
        shared: Shared,
        live: Vec<i32>,
    ) -> Result<(), crate::failure::Failure> {
        let channel = &self.running.as_ref().unwrap().channel;
        let message = ToState::Configure {
            generation,
            shared,
            live,
        };
        channel.send(&message).unwrap();
        loop {
            let mut ready = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, 20_000_u16).unwrap();
            match channel.recv().unwrap().unwrap() {
                StateReport::Configured { .. } => return Ok(()),
                StateReport::Failed { failure, .. } => return Err(failure),
                StateReport::Heartbeat(_) => {}
            }
        }
    }

    /// Ends the state process, as the end of the supervisor would.
    fn stop(&mut self) -> ExitCode {
        let Running { channel, thread } = self.running.take().unwrap();
        drop(channel);
        thread.join().unwrap()
    }

    fn client(&self) -> Client {
        Client::start(&self.socket(), GENERATION).unwrap()
    }

    /// Connects without a word.
    fn peer(&self) -> Peer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Peer {
            stream,
            incoming: Incoming::default(),
        }
    }

    /// Connects as a worker.
    fn worker(&self) -> Peer {
        let mut peer = self.peer();
        let role = Role::Worker {
            generation: GENERATION,
        };
        assert!(matches!(peer.call(Call::Hello { role }), Reply::Done));
        peer
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stop();
        }
    }
}

fn shared() -> Shared {
    let database = Database {
        migrations: None,
        max_size: 64 << 20,
        durability: Durability::Relaxed,
        bound: None,
        replica: None,
    };
    let queue = Queue {
        database: "default".to_owned(),
        max_depth: 1000,
        max_attempts: 5,
        visibility_timeout: Duration::from_secs(30),
        backoff: Duration::ZERO,
        backoff_max: Duration::ZERO,
        bound: None,
    };
    let consumer = Consumer {
        batch: 1,
        concurrency: 1,
    };
    Shared {
        locks: [("space".to_owned(), LockSpace::default())].into(),
        databases: [("default".to_owned(), database)].into(),
        queues: [("jobs".to_owned(), queue)].into(),
        consumers: [("jobs".to_owned(), consumer)].into(),
        ..Shared::default()
    }
}

/// One connection, by hand.
struct Peer {
    stream: UnixStream,
    incoming: Incoming,
}

impl Peer {
    fn send(&mut self, id: u64, call: Call) {
        let mut out = Outgoing::default();
        out.push(&Request { id, call }).unwrap();
        out.write(|bytes| self.stream.write(bytes)).unwrap();
    }

    /// Returns the next message; `None` at the end.
    fn receive(&mut self) -> Option<FromState> {
        loop {
            if let Some(message) = self.incoming.take().unwrap() {
                return Some(message);
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some).unwrap() {
                0 => return None,
                count => self.incoming.room().extend_from_slice(&some[..count]),
            }
        }
    }

    fn reply(&mut self) -> (u64, Reply) {
        match self.receive() {
            Some(FromState::Reply { id, reply }) => (id, reply),
            other => panic!("no reply: {other:?}"),
        }
    }

    fn call(&mut self, call: Call) -> Reply {
        self.send(7, call);
        let (id, reply) = self.reply();
        assert_eq!(id, 7);
        reply
    }

    /// Reads to the end.
    fn ended(&mut self) {
        while self.receive().is_some() {}
    }
}

fn acquire(guard: u64, key: &str) -> Call {
    let request = Acquire::new("space".to_owned(), vec![key.to_owned()], guard);
    Call::Acquire { guard, request }
}

#[track_caller]
fn token(reply: Reply) -> u64 {
    match reply {
        Reply::Token { token, .. } => token,
        other => panic!("no token: {other:?}"),
    }
}

#[test]
fn calls_behind_one_that_waits_are_answered_before_it() {
    let server = Fixture::start();
    let (mut first, mut second) = (server.worker(), server.worker());
    let held = token(first.call(acquire(1, "a")));
    second.send(1, acquire(1, "a"));
    second.send(2, acquire(2, "b"));
    second.send(3, Call::Heartbeat);
    let (id, reply) = second.reply();
    assert_eq!(id, 2);
    token(reply);
    assert!(matches!(second.reply(), (3, Reply::Done)));
    assert!(matches!(
        first.call(Call::Release { guard: 1 }),
        Reply::Done
    ));
    let (id, reply) = second.reply();
    assert_eq!(id, 1);
    assert!(token(reply) > held);
}

#[test]
fn garbage_and_oversized_frames_cost_their_sender_the_connection_and_nobody_else() {
    let server = Fixture::start();
    let mut other = server.worker();
    let too_long = (FRAME_MAX as u32 + 1).to_le_bytes();
    for bytes in [&[2, 0, 0, 0, 0xff, 0xff][..], &too_long] {
        let mut bad = server.worker();
        token(bad.call(acquire(1, "a")));
        bad.stream.write_all(bytes).unwrap();
        bad.ended();
        token(other.call(acquire(1, "a")));
        assert!(matches!(
            other.call(Call::Release { guard: 1 }),
            Reply::Done
        ));
    }
}

#[test]
fn peer_that_does_not_introduce_itself_first_is_refused() {
    let server = Fixture::start();
    let mut peer = server.peer();
    assert!(matches!(peer.call(acquire(1, "a")), Reply::Refused(_)));
    peer.ended();
}

#[test]
fn worker_may_not_ask_what_operators_ask_nor_the_other_way_round() {
    let server = Fixture::start();
    let mut worker = server.worker();
    let reply = worker.call(Call::Operator(OperatorCall::Locks));
    assert!(matches!(reply, Reply::Refused(_)));
    worker.ended();
    let mut operator = server.peer();
    let role = Role::Operator;
    assert!(matches!(operator.call(Call::Hello { role }), Reply::Done));
    assert!(matches!(operator.call(acquire(1, "a")), Reply::Refused(_)));
    operator.ended();
}

/// Listens as the supervisor does for a state process.
fn listener(socket: &Path) -> UnixListener {
    let listener = UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[test]
fn child_of_the_supervisor_is_no_operator() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("state.sock");
    let (ours, theirs) = Channel::pair().unwrap();
    let boot = Boot {
        data: folder.path().to_path_buf(),
        listener: listener(&socket),
        channel: theirs,
        reads: Vec::new(),
        servers: BTreeMap::new(),
        identity: String::new(),
        sandbox: Mode::Off,
    };
    // This process's parent is the parent of the state process, too, as it runs here.
    let thread = std::thread::spawn(|| run(boot));
    let failure = operator::connect(&socket).unwrap_err();
    assert_eq!(failure.code, ExitCode::NoPermission);
    drop(ours);
    assert_eq!(thread.join().unwrap(), ExitCode::Ok);
}

#[test]
fn what_is_not_granted_is_denied() {
    let server = Fixture::start();
    let mut worker = server.worker();
    let request = Acquire::new("other".to_owned(), vec!["a".to_owned()], 1);
    let reply = worker.call(Call::Acquire { guard: 1, request });
    assert!(matches!(reply, Reply::Lock(LockError::Denied(_))));
}

#[test]
fn lock_is_free_at_once_when_its_holder_is_gone() {
    let server = Fixture::start();
    let (mut first, mut second) = (server.worker(), server.worker());
    token(first.call(acquire(1, "a")));
    second.send(1, acquire(1, "a"));
    drop(first);
    token(second.reply().1);
}

#[test]
fn guard_that_is_dropped_before_the_answer_is_free() {
    let server = Fixture::start();
    let (mut first, mut second, mut third) = (server.worker(), server.worker(), server.worker());
    token(first.call(acquire(1, "a")));
    second.send(1, acquire(1, "a"));
    second.send(0, Call::DropGuard { guard: 1 });
    let (_, reply) = second.reply();
    assert!(matches!(reply, Reply::Lock(LockError::Lost)));
    third.send(1, acquire(1, "a"));
    assert!(matches!(
        first.call(Call::Release { guard: 1 }),
        Reply::Done
    ));
    token(third.reply().1);
}

#[test]
fn operator_sees_who_holds_what() {
    let server = Fixture::start();
    let mut worker = server.worker();
    let held = token(worker.call(acquire(1, "a")));
    let mut operator = operator::connect(&server.socket()).unwrap();
    let Reply::Locks(locks) = operator.ask(OperatorCall::Locks).unwrap() else {
        panic!("no locks");
    };
    assert_eq!(locks.len(), 1);
    assert_eq!((locks[0].key.as_str(), locks[0].token), ("a", held));
    assert_eq!(locks[0].pid, nix::unistd::getpid().as_raw());
}

#[tokio::test]
async fn dropped_future_of_an_acquire_leaves_nothing_behind() {
    let server = Fixture::start();
    let (first, second) = (server.client(), server.client());
    let guard = lock(&first, "a").await.unwrap();
    {
        let waiting = std::pin::pin!(lock(&second, "a"));
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, waiting).await.is_err());
    }
    guard.release().await.unwrap();
    assert!(!guard.is_held());
    assert_eq!(guard.release().await, Err(LockError::Lost));
    lock(&first, "a").await.unwrap();
}

async fn lock(client: &Client, key: &str) -> Result<Guard, LockError> {
    let owner = client.next_owner();
    let keys = vec![key.to_owned()];
    let acquired = client.acquire(owner, "space", keys, None, None, None);
    tokio::time::timeout(DEADLINE, acquired).await.unwrap()
}

#[tokio::test]
async fn guards_are_lost_with_the_connection_and_new_ones_can_be_had() {
    let mut server = Fixture::start();
    let client = server.client();
    let guard = lock(&client, "a").await.unwrap();
    assert!(guard.is_held());
    server.stop();
    server.run();
    let here = nix::unistd::getpid().as_raw();
    server.configure(GENERATION, shared(), vec![here]).unwrap();
    let again = lock(&client, "a").await.unwrap();
    assert!(!guard.is_held());
    assert_eq!(guard.release().await, Err(LockError::Lost));
    assert!(again.token() > guard.token());
    assert!(again.is_held());
}

fn sql(text: &str) -> Statement {
    Statement {
        sql: text.to_owned(),
        params: Vec::new(),
    }
}

/// Runs one statement in a transaction of its own.
async fn execute(client: &Client, text: &str, fences: &[&Guard]) -> Result<(), DbError> {
    let statements = vec![(sql(text), Want::Done)];
    let done = client.batch("default", statements, TxOptions::default(), fences);
    let done = tokio::time::timeout(DEADLINE, done).await.unwrap();
    done.map(drop)
}

/// Returns how many rows the table has.
async fn rows(client: &Client) -> i64 {
    let options = TxOptions {
        read_only: true,
        ..TxOptions::default()
    };
    let statements = vec![(sql("SELECT count(*) FROM t"), Want::Rows)];
    let done = client.batch("default", statements, options, &[]);
    let done = tokio::time::timeout(DEADLINE, done).await.unwrap().unwrap();
    match &done[..] {
        [Step::Rows(Rows { rows, .. })] => match rows[0][..] {
            [Value::Integer(count)] => count,
            _ => panic!("{rows:?}"),
        },
        _ => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn transaction_of_a_worker_that_is_gone_is_rolled_back() {
    let server = Fixture::start();
    let (first, second) = (server.client(), server.client());
    execute(&first, "CREATE TABLE t (x)", &[]).await.unwrap();
    let gone = first
        .begin("default", TxOptions::default(), &[])
        .await
        .unwrap();
    gone.run(sql("INSERT INTO t VALUES (1)"), Want::Done)
        .await
        .unwrap();
    drop(first);
    execute(&second, "INSERT INTO t VALUES (2)", &[])
        .await
        .unwrap();
    assert_eq!(rows(&second).await, 1);
    let insert = sql("INSERT INTO t VALUES (3)");
    assert!(gone.run(insert, Want::Done).await.is_err());
}

#[tokio::test]
async fn transaction_that_is_dropped_gives_way_to_the_next() {
    let server = Fixture::start();
    let client = server.client();
    execute(&client, "CREATE TABLE t (x)", &[]).await.unwrap();
    let begin = || client.begin("default", TxOptions::default(), &[]);
    let first = begin().await.unwrap();
    {
        let second = begin().await.unwrap();
        let ran = second.run(sql("SELECT 1"), Want::Rows);
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, ran).await.is_err());
    }
    drop(first);
    execute(&client, "INSERT INTO t VALUES (1)", &[])
        .await
        .unwrap();
    assert_eq!(rows(&client).await, 1);
}

#[tokio::test]
async fn commit_under_a_lost_lock_changes_nothing() {
    let server = Fixture::start();
    let client = server.client();
    execute(&client, "CREATE TABLE t (x)", &[]).await.unwrap();
    let owner = client.next_owner();
    let keys = vec!["a".to_owned()];
    let brief = client.acquire(owner, "space", keys, None, Some(100), Some(false));
    let guard = brief.await.unwrap();
    let begun = client
        .begin("default", TxOptions::default(), &[&guard])
        .await;
    let transaction = begun.unwrap();
    transaction
        .run(sql("INSERT INTO t VALUES (1)"), Want::Done)
        .await
        .unwrap();
    // Somebody else gets it as soon as its time is over.
    let other = lock(&client, "a").await.unwrap();
    assert!(other.token() > guard.token());
    assert_eq!(transaction.commit().await, Err(DbError::LostFence));
    assert_eq!(transaction.commit().await, Err(DbError::Closed));
    let late = execute(&client, "INSERT INTO t VALUES (2)", &[&guard]).await;
    assert_eq!(late, Err(DbError::LostFence));
    execute(&client, "INSERT INTO t VALUES (3)", &[&other])
        .await
        .unwrap();
    assert_eq!(rows(&client).await, 1);
}

#[test]
fn forged_fence_is_refused_by_the_server_too() {
    let server = Fixture::start();
    let mut worker = server.worker();
    let reply = worker.call(Call::Batch {
        db: "default".to_owned(),
        statements: vec![(sql("CREATE TABLE t (x)"), Want::Done)],
        options: TxOptions::default(),
        fences: vec![99],
    });
    assert!(matches!(reply, Reply::Db(DbError::LostFence)));
}

#[test]
fn transaction_that_was_never_begun_is_closed() {
    let server = Fixture::start();
    let mut worker = server.worker();
    let reply = worker.call(Call::Run {
        tx: 1,
        statement: sql("SELECT 1"),
        want: Want::Rows,
    });
    assert!(matches!(reply, Reply::Db(DbError::Closed)));
    assert!(matches!(
        worker.call(Call::Commit { tx: 1 }),
        Reply::Db(DbError::Closed)
    ));
    assert!(matches!(worker.call(Call::Rollback { tx: 1 }), Reply::Done));
}

fn begin(tx: u64, db: &str) -> Call {
    Call::Begin {
        tx,
        db: db.to_owned(),
        options: TxOptions::default(),
        fences: Vec::new(),
    }
}

#[test]
fn transaction_that_cannot_begin_tells_its_first_call_why() {
    let server = Fixture::start();
    let mut worker = server.worker();
    worker.send(0, begin(1, "other"));
    let run = || Call::Run {
        tx: 1,
        statement: sql("SELECT 1"),
        want: Want::Rows,
    };
    let (first, second) = (worker.call(run()), worker.call(run()));
    assert!(matches!(first, Reply::Db(DbError::Denied(_))));
    assert!(matches!(second, Reply::Db(DbError::Closed)));
}

#[test]
fn who_begins_too_many_transactions_loses_the_connection() {
    let server = Fixture::start();
    let (mut worker, mut other) = (server.worker(), server.worker());
    for tx in 1..=TRANSACTIONS_MAX as u64 {
        worker.send(0, begin(tx, "default"));
    }
    assert!(matches!(worker.call(Call::Heartbeat), Reply::Done));
    worker.send(0, begin(0, "default"));
    assert!(worker.receive().is_none());
    other.send(0, begin(1, "default"));
    assert!(matches!(other.call(Call::Commit { tx: 1 }), Reply::Done));
}

#[tokio::test]
async fn commits_outlive_the_state_process() {
    let mut server = Fixture::start();
    let client = server.client();
    execute(&client, "CREATE TABLE t (x)", &[]).await.unwrap();
    execute(&client, "INSERT INTO t VALUES (1)", &[])
        .await
        .unwrap();
    server.stop();
    server.run();
    server.configure(GENERATION, shared(), Vec::new()).unwrap();
    assert_eq!(rows(&client).await, 1);
}

#[tokio::test]
async fn operator_queries_and_copies_databases() {
    let server = Fixture::start();
    let client = server.client();
    execute(&client, "CREATE TABLE t (x)", &[]).await.unwrap();
    let mut operator = operator::connect(&server.socket()).unwrap();
    let asked = operator.ask(OperatorCall::Query {
        db: "default".to_owned(),
        statement: sql("SELECT count(*) FROM t"),
    });
    let Reply::Steps(steps) = asked.unwrap() else {
        panic!("no steps");
    };
    assert!(matches!(&steps[..], [Step::Rows(rows)] if rows.rows[0] == [Value::Integer(0)]));
    let db = "default".to_owned();
    let Reply::Path(path) = operator.ask(OperatorCall::Backup { db }).unwrap() else {
        panic!("no path");
    };
    assert!(std::fs::metadata(path).unwrap().len() > 0);
    let Reply::Databases(databases) = operator.ask(OperatorCall::Databases).unwrap() else {
        panic!("no databases");
    };
    assert_eq!(databases.len(), 1);
    let db = "other".to_owned();
    let denied = operator.ask(OperatorCall::Backup { db }).unwrap();
    assert!(matches!(denied, Reply::Db(DbError::Denied(_))));
}

#[test]
fn locks_wait_for_the_workers_of_the_process_before() {
    let mut server = Fixture::start();
    server.stop();
    server.run();
    // A process that lives and never connects, until it is told to end.
    let mut late = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pids = vec![late.id().cast_signed(), i32::MAX];
    server.configure(GENERATION, shared(), pids).unwrap();
    let mut worker = server.worker();
    worker.send(1, acquire(1, "a"));
    worker.send(2, Call::Heartbeat);
    assert!(matches!(worker.reply(), (2, Reply::Done)));
    drop(late.stdin.take());
    late.wait().unwrap();
    token(worker.reply().1);
}

#[test]
fn generation_that_cannot_be_served_changes_nothing_for_the_others() {
    let server = Fixture::start();
    let mut moved = shared();
    for queue in moved.queues.values_mut() {
        queue.database = "other".to_owned();
    }
    let database = moved.databases["default"].clone();
    moved.databases.insert("other".to_owned(), database);
    let failure = server.configure(2, moved, Vec::new()).unwrap_err();
    assert_eq!(failure.code, ExitCode::Config);
    let mut worker = server.worker();
    token(worker.call(acquire(1, "a")));
}

fn message(body: &str) -> Message {
    Message {
        body: body.as_bytes().to_vec(),
        ..Message::default()
    }
}

fn credit(batches: u32) -> Call {
    Call::Credit {
        queue: "jobs".to_owned(),
        batch: 1,
        batches,
    }
}

/// Returns the next delivery.
fn delivery(peer: &mut Peer) -> Delivery {
    match peer.receive() {
        Some(FromState::Deliver { queue, mut batch }) => {
            assert_eq!((queue.as_str(), batch.len()), ("jobs", 1));
            batch.remove(0)
        }
        other => panic!("no delivery: {other:?}"),
    }
}

#[tokio::test]
async fn message_of_a_worker_that_is_gone_is_delivered_to_the_next() {
    let server = Fixture::start();
    let client = server.client();
    let sent = client.send("jobs", vec![message("work")]).await.unwrap();
    let (mut first, mut second) = (server.worker(), server.worker());
    first.send(0, credit(1));
    let tried = delivery(&mut first);
    assert_eq!((&tried.id, tried.attempt), (&sent[0], 1));
    second.send(0, credit(1));
    drop(first);
    let again = delivery(&mut second);
    assert_eq!((&again.id, again.attempt), (&sent[0], 2));
}

#[tokio::test]
async fn credit_limits_what_is_delivered_and_settled_messages_do_not_come_again() {
    let mut server = Fixture::start();
    let client = server.client();
    let mut consumer = client.consume("jobs", 1, 1);
    let messages = vec![message("a"), message("b")];
    client.send("jobs", messages).await.unwrap();
    for body in [b"a", b"b"] {
        let next = tokio::time::timeout(DEADLINE, consumer.next()).await;
        let deliveries = next.unwrap().unwrap();
        assert_eq!(deliveries.batch[0].body, body);
        deliveries.settle(vec![Outcome::Ack]);
    }
    client.stop_consuming().await;
    assert!(consumer.next().await.is_none());
    server.stop();
    server.run();
    server.configure(GENERATION, shared(), Vec::new()).unwrap();
    let mut operator = operator::connect(&server.socket()).unwrap();
    let Reply::Queues(queues) = operator.ask(OperatorCall::Queues).unwrap() else {
        panic!("no queues");
    };
    let listed = &queues[0];
    let messages = listed.status.as_ref().unwrap().messages;
    assert_eq!((&*listed.queue, messages), ("jobs", 0));
    assert_eq!(listed.outbox, Some(0));
}

#[tokio::test]
async fn message_of_a_transaction_is_there_when_it_commits_and_not_before() {
    let server = Fixture::start();
    let client = server.client();
    let mut consumer = client.consume("jobs", 1, 1);
    for (body, commits) in [("undone", false), ("done", true)] {
        let begun = client.begin("default", TxOptions::default(), &[]).await;
        let transaction = begun.unwrap();
        transaction.send("jobs", vec![message(body)]).await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
        }
    }
    let next = tokio::time::timeout(DEADLINE, consumer.next()).await;
    assert_eq!(next.unwrap().unwrap().batch[0].body, b"done");
}

#[tokio::test]
async fn queue_of_another_database_is_no_part_of_a_transaction() {
    let server = Fixture::start();
    let mut more = shared();
    let database = more.databases["default"].clone();
    more.databases.insert("other".to_owned(), database);
    server.configure(2, more, Vec::new()).unwrap();
    let client = Client::start(&server.socket(), 2).unwrap();
    let begun = client.begin("other", TxOptions::default(), &[]).await;
    let sent = begun.unwrap().send("jobs", vec![message("lost")]).await;
    assert!(matches!(sent, Err(QueueError::Invalid(_))));
}

#[test]
fn only_consumers_of_a_queue_get_its_messages() {
    let server = Fixture::start();
    let mut restricted = shared();
    restricted.consumers.clear();
    server.configure(2, restricted, Vec::new()).unwrap();
    let mut peer = server.peer();
    let role = Role::Worker { generation: 2 };
    assert!(matches!(peer.call(Call::Hello { role }), Reply::Done));
    let denied = peer.call(credit(1));
    assert!(matches!(denied, Reply::Queue(QueueError::Denied(_))));
}
