//! A client and a state process that does what the test says.

use super::lanes::LANES_MAX;
use super::*;
use crate::state::db::{Done, Value};
use crate::state::protocol::{FromState, Incoming, Outgoing, Request, TRANSACTIONS_MAX};
use crate::state::queue::{Delivery, Outcome};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A socket that nobody answers at but the test.
struct Socket {
    folder: TempDir,
    listener: UnixListener,
}

/// The state process's end of a connection.
struct Peer {
    stream: UnixStream,
    incoming: Incoming,
}

impl Socket {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(path(&folder)).unwrap();
        Self { folder, listener }
    }

    fn client(&self) -> Client {
        Client::start(&path(&self.folder), 1).unwrap()
    }

    /// Takes the client's next connection, and lets it in.
    async fn accept(&self) -> Peer {
        let accepted = timeout(DEADLINE, self.listener.accept()).await;
        let mut peer = Peer {
            stream: accepted.unwrap().unwrap().0,
            incoming: Incoming::default(),
        };
        let hello = peer.next().await;
        assert!(matches!(hello.call, Call::Hello { .. }));
        peer.answer(hello.id, Reply::Done).await;
        peer
    }
}

fn path(folder: &TempDir) -> PathBuf {
    Path::new(folder.path()).join("state.sock")
}

impl Peer {
    /// Returns the next request.
    async fn next(&mut self) -> Request {
        loop {
            if let Some(request) = self.incoming.take().unwrap() {
                return request;
            }
            let read = self.stream.read_buf(self.incoming.room());
            assert!(timeout(DEADLINE, read).await.unwrap().unwrap() > 0);
        }
    }

    /// Returns the next request that is no sign of life, all of which are answered.
    async fn request(&mut self) -> Request {
        loop {
            let request = self.next().await;
            match request.call {
                Call::Heartbeat => self.answer(request.id, Reply::Done).await,
                _ => return request,
            }
        }
    }

    async fn answer(&mut self, id: u64, reply: Reply) {
        self.send(&FromState::Reply { id, reply }).await;
    }

    async fn send(&mut self, message: &FromState) {
        let mut out = Outgoing::default();
        out.push(message).unwrap();
        let mut bytes = Vec::new();
        out.write(|some| {
            bytes.extend_from_slice(some);
            Ok(some.len())
        })
        .unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }
}

fn statement() -> (Statement, Want) {
    let statement = Statement {
        sql: "UPDATE t SET x = $1".to_owned(),
        params: vec![Value::Integer(1)],
    };
    (statement, Want::Done)
}

async fn lock(
    client: &Client,
    ttl_ms: Option<u32>,
    renew: Option<bool>,
) -> Result<Guard, LockError> {
    let keys = vec!["a".to_owned()];
    client.acquire(1, "space", keys, None, ttl_ms, renew).await
}

/// Runs what a client does and what its peer does until both are done.
async fn both<A, B>(client: impl Future<Output = A>, peer: impl Future<Output = B>) -> (A, B) {
    timeout(DEADLINE, async { tokio::join!(client, peer) })
        .await
        .unwrap()
}

/// Takes the next request, ends the connection without an answer.
async fn break_off(mut peer: Peer) -> Call {
    peer.request().await.call
}

/// Takes the next request and grants it.
async fn grant(peer: &mut Peer, token: u64, waited_ms: u64) -> u64 {
    let request = peer.request().await;
    let Call::Acquire { guard, .. } = request.call else {
        panic!("{request:?}");
    };
    peer.answer(request.id, Reply::Token { token, waited_ms })
        .await;
    guard
}

#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    fn sent<T: Send>(_: T) {}
    let _ = |client: Client, guard: Guard, transaction: Transaction, cursor: Cursor| {
        shared(&client);
        shared(&guard);
        shared(&transaction);
        shared(&cursor);
        sent(client.batch("db", Vec::new(), TxOptions::default(), &[&guard]));
        sent(client.begin("db", TxOptions::default(), &[&guard]));
        sent(client.acquire(1, "space", Vec::new(), None, None, None));
        sent(client.send("queue", Vec::new()));
        sent(transaction.commit());
        sent(cursor.next(1));
        sent(guard.release());
    };
}

#[tokio::test]
async fn request_that_makes_no_sense_is_refused_without_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::start(&path(&folder), 1).unwrap();
    let acquired = client
        .acquire(1, "space", Vec::new(), None, None, None)
        .await;
    assert!(matches!(acquired, Err(LockError::Invalid(_))));
}

#[tokio::test]
async fn call_without_a_state_process_is_unavailable_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::start_patient(&path(&folder), 1, Duration::from_millis(20)).unwrap();
    let sent = client.send("queue", vec![Message::default()]).await;
    assert!(matches!(sent, Err(QueueError::Unavailable(_))));
}

#[tokio::test]
async fn outcome_of_a_change_is_unknown_when_the_connection_breaks() {
    let socket = Socket::new();
    let client = socket.client();
    let options = TxOptions::default();
    let batch = client.batch("db", vec![statement()], options, &[]);
    let (done, _) = both(batch, async { break_off(socket.accept().await).await }).await;
    assert_eq!(done, Err(DbError::OutcomeUnknown));
    let send = client.send("queue", vec![Message::default()]);
    let (sent, _) = both(send, async { break_off(socket.accept().await).await }).await;
    assert_eq!(sent, Err(QueueError::OutcomeUnknown));
}

#[tokio::test]
async fn reading_and_locking_are_unavailable_when_the_connection_breaks() {
    let socket = Socket::new();
    let client = socket.client();
    let options = TxOptions {
        read_only: true,
        ..TxOptions::default()
    };
    let batch = client.batch("db", vec![statement()], options, &[]);
    let (done, _) = both(batch, async { break_off(socket.accept().await).await }).await;
    assert!(matches!(done, Err(DbError::Unavailable(_))));
    let acquire = lock(&client, None, None);
    let (acquired, _) = both(acquire, async { break_off(socket.accept().await).await }).await;
    assert!(matches!(acquired, Err(LockError::Unavailable(_))));
}

#[tokio::test]
async fn transaction_is_over_with_its_connection() {
    let socket = Socket::new();
    let client = socket.client();
    let (transaction, _first, lane) = begun(&client, &socket).await;
    let (statement, want) = statement();
    let run = transaction.run(statement.clone(), want);
    let (ran, call) = both(run, break_off(lane)).await;
    assert!(matches!(call, Call::Run { .. }));
    assert!(matches!(ran, Err(DbError::Unavailable(_))));
    assert_eq!(transaction.run(statement, want).await, Err(DbError::Closed));
    assert_eq!(transaction.commit().await, Err(DbError::Closed));
}

/// Connects, and begins a transaction on a lane, whose peer says nothing to that.
async fn begun(client: &Client, socket: &Socket) -> (Transaction, Peer, Peer) {
    let first = connected(client, socket).await;
    let (transaction, lane) = begun_on_next(client, socket).await;
    (transaction, first, lane)
}

/// Returns the peer of the first connection once the client uses it.
async fn connected(client: &Client, socket: &Socket) -> Peer {
    let send = client.send("queue", vec![Message::default()]);
    let (sent, peer) = both(send, async {
        let mut peer = socket.accept().await;
        let request = peer.request().await;
        peer.answer(request.id, Reply::Ids(Vec::new())).await;
        peer
    })
    .await;
    sent.unwrap();
    peer
}

/// Begins a transaction on a lane that is not connected yet.
async fn begun_on_next(client: &Client, socket: &Socket) -> (Transaction, Peer) {
    let begin = client.begin("db", TxOptions::default(), &[]);
    let (transaction, mut lane) = both(begin, socket.accept()).await;
    begins(&mut lane).await;
    (transaction.unwrap(), lane)
}

async fn begins(peer: &mut Peer) {
    let request = peer.request().await;
    assert!(matches!(request.call, Call::Begin { .. }));
    assert_eq!(request.id, 0);
}

/// Runs a statement and has it answered.
async fn run(transaction: &Transaction, peer: &mut Peer) {
    let (statement, want) = statement();
    let (ran, ()) = both(transaction.run(statement, want), async {
        let request = peer.request().await;
        let steps = vec![Step::Done(Done::default())];
        peer.answer(request.id, Reply::Steps(steps)).await;
    })
    .await;
    ran.unwrap();
}

/// Commits and has it acknowledged.
async fn commit(transaction: &Transaction, peer: &mut Peer) {
    let (committed, ()) = both(transaction.commit(), async {
        let request = peer.request().await;
        assert!(matches!(request.call, Call::Commit { .. }));
        peer.answer(request.id, Reply::Done).await;
    })
    .await;
    committed.unwrap();
}

/// Waits for the end of a connection.
async fn ends(mut peer: Peer) {
    let mut rest = Vec::new();
    let read = peer.stream.read_to_end(&mut rest);
    timeout(DEADLINE, read).await.unwrap().unwrap();
}

#[tokio::test]
async fn outcome_of_a_commit_is_unknown_when_the_connection_breaks() {
    let socket = Socket::new();
    let client = socket.client();
    let (transaction, _first, lane) = begun(&client, &socket).await;
    let (committed, _) = both(transaction.commit(), break_off(lane)).await;
    assert_eq!(committed, Err(DbError::OutcomeUnknown));
    assert_eq!(transaction.commit().await, Err(DbError::Closed));
}

#[tokio::test]
async fn transaction_is_rolled_back_when_it_is_dropped() {
    let socket = Socket::new();
    let client = socket.client();
    let (transaction, _first, mut lane) = begun(&client, &socket).await;
    run(&transaction, &mut lane).await;
    drop(transaction);
    let request = lane.request().await;
    assert!(matches!(request.call, Call::Rollback { .. }));
    assert_eq!(request.id, 0);
    // That is enough for the next one to use the same lane.
    let _next = client.begin("db", TxOptions::default(), &[]).await.unwrap();
    begins(&mut lane).await;
}

#[tokio::test]
async fn lane_is_used_by_one_transaction_after_the_other() {
    let socket = Socket::new();
    let client = socket.client();
    let (first, _first_connection, mut lane) = begun(&client, &socket).await;
    let (second, other) = begun_on_next(&client, &socket).await;
    commit(&first, &mut lane).await;
    let third = client.begin("db", TxOptions::default(), &[]).await.unwrap();
    begins(&mut lane).await;
    drop((second, third));
    // Nothing was answered on either, so it ends with its transaction.
    both(ends(lane), ends(other)).await;
}

#[tokio::test]
async fn call_that_is_not_waited_for_any_more_ends_with_its_lane() {
    let socket = Socket::new();
    let client = socket.client();
    let (transaction, _first, mut lane) = begun(&client, &socket).await;
    run(&transaction, &mut lane).await;
    let (statement, want) = statement();
    tokio::select! {
        _ = transaction.run(statement, want) => panic!("nobody answers"),
        request = lane.request() => assert!(matches!(request.call, Call::Run { .. })),
    }
    both(transaction.rollback(), ends(lane)).await;
}

#[tokio::test]
async fn lanes_end_with_the_first_connection() {
    let socket = Socket::new();
    let client = socket.client();
    let (transaction, first, lane) = begun(&client, &socket).await;
    drop(first);
    both(ends(lane), async {
        let (statement, want) = statement();
        let ran = transaction.run(statement, want).await;
        assert!(matches!(ran, Err(DbError::Unavailable(_))));
    })
    .await;
}

#[tokio::test]
async fn only_so_many_transactions_are_open() {
    let socket = Socket::new();
    let client = socket.client();
    let mut first = connected(&client, &socket).await;
    let begin = || client.begin("db", TxOptions::default(), &[]);
    let (mut lanes, mut open) = (Vec::new(), Vec::new());
    while lanes.len() < LANES_MAX {
        let (transaction, lane) = begun_on_next(&client, &socket).await;
        open.push(transaction);
        lanes.push(lane);
    }
    let one = begin().await.unwrap();
    begins(&mut first).await;
    for _ in 1..TRANSACTIONS_MAX {
        open.push(begin().await.unwrap());
    }
    assert!(matches!(begin().await, Err(DbError::Unavailable(_))));
    drop(one);
    begin().await.unwrap();
}

#[tokio::test]
async fn call_that_was_not_sent_goes_over_the_next_connection() {
    let socket = Socket::new();
    let client = socket.client();
    drop(socket.accept().await);
    let batch = client.batch("db", vec![statement()], TxOptions::default(), &[]);
    let (done, ()) = both(batch, async {
        let mut peer = socket.accept().await;
        let request = peer.request().await;
        let steps = vec![Step::Done(Done::default())];
        peer.answer(request.id, Reply::Steps(steps)).await;
    })
    .await;
    assert_eq!(done, Ok(vec![Step::Done(Done::default())]));
}

#[tokio::test]
async fn guard_holds_from_its_grant_on_and_not_from_its_request() {
    let socket = Socket::new();
    let client = socket.client();
    let mut peer = socket.accept().await;
    let (guard, _) = both(
        lock(&client, Some(100), Some(false)),
        grant(&mut peer, 5, 3_600_000),
    )
    .await;
    let guard = guard.unwrap();
    assert_eq!(guard.token(), 5);
    assert!(guard.is_held());
}

#[tokio::test]
async fn release_waits_for_an_answer_only_when_the_time_is_up() {
    let socket = Socket::new();
    let client = socket.client();
    let mut peer = socket.accept().await;
    let (guard, _) = both(lock(&client, None, None), grant(&mut peer, 5, 0)).await;
    let guard = guard.unwrap();
    assert_eq!(guard.release().await, Ok(()));
    assert_eq!(guard.release().await, Err(LockError::Lost));
    let request = peer.request().await;
    assert!(matches!(request.call, Call::Release { .. }));
    assert_eq!(request.id, 0);

    let brief = lock(&client, Some(100), Some(false));
    let (guard, _) = both(brief, grant(&mut peer, 6, 0)).await;
    let guard = guard.unwrap();
    while guard.is_held() {
        tokio::task::yield_now().await;
    }
    let (released, ()) = both(guard.release(), async {
        let request = peer.request().await;
        assert!(matches!(request.call, Call::Release { .. }));
        peer.answer(request.id, Reply::Lock(LockError::Lost)).await;
    })
    .await;
    assert_eq!(released, Err(LockError::Lost));
}

#[tokio::test]
async fn guard_is_lost_when_the_state_process_says_so() {
    let socket = Socket::new();
    let client = socket.client();
    let mut peer = socket.accept().await;
    let (guard, number) = both(lock(&client, None, None), grant(&mut peer, 5, 0)).await;
    let guard = guard.unwrap();
    assert!(guard.is_held());
    peer.send(&FromState::Lost { guard: number }).await;
    while guard.is_held() {
        tokio::task::yield_now().await;
    }
    let begun = client.begin("db", TxOptions::default(), &[&guard]).await;
    assert_eq!(begun.unwrap_err(), DbError::LostFence);
    drop(guard);
    // Also a lost one counts until it is dropped.
    assert!(matches!(peer.request().await.call, Call::DropGuard { .. }));
}

#[tokio::test]
async fn guard_is_lost_when_signs_of_life_are_not_answered() {
    let socket = Socket::new();
    let client = socket.client();
    let mut peer = socket.accept().await;
    let (guard, _) = both(lock(&client, Some(100), None), grant(&mut peer, 5, 0)).await;
    let guard = guard.unwrap();
    assert!(matches!(peer.next().await.call, Call::Heartbeat));
    while guard.is_held() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn messages_come_by_credit_and_are_settled_once() {
    let socket = Socket::new();
    let client = socket.client();
    let mut consumer = client.consume("jobs", 10, 2);
    let mut peer = socket.accept().await;
    assert_eq!(credit(&mut peer).await, 2);
    for id in ["a", "b"] {
        deliver(&mut peer, id).await;
    }
    let first = consumer.next().await.unwrap();
    assert_eq!((first.queue.as_str(), first.batch.len()), ("jobs", 1));
    first.settle(vec![Outcome::Ack]);
    assert_eq!(settled(&mut peer).await, Outcome::Ack);
    assert_eq!(credit(&mut peer).await, 1);
    drop(consumer.next().await);
    assert!(matches!(settled(&mut peer).await, Outcome::Failed(_)));
    assert_eq!(credit(&mut peer).await, 1);
}

#[tokio::test]
async fn wrong_number_of_outcomes_counts_as_failure() {
    let socket = Socket::new();
    let client = socket.client();
    let mut consumer = client.consume("jobs", 10, 1);
    let mut peer = socket.accept().await;
    credit(&mut peer).await;
    deliver(&mut peer, "a").await;
    let deliveries = consumer.next().await.unwrap();
    deliveries.settle(vec![Outcome::Ack, Outcome::Ack]);
    assert!(matches!(settled(&mut peer).await, Outcome::Failed(_)));
}

#[tokio::test]
async fn credit_is_given_anew_to_the_next_connection_but_for_what_still_runs() {
    let socket = Socket::new();
    let client = socket.client();
    let mut consumer = client.consume("jobs", 10, 3);
    let mut peer = socket.accept().await;
    assert_eq!(credit(&mut peer).await, 3);
    deliver(&mut peer, "runs").await;
    let runs = consumer.next().await.unwrap();
    deliver(&mut peer, "waits").await;
    drop(peer);
    let mut peer = socket.accept().await;
    assert_eq!(credit(&mut peer).await, 1);
    deliver(&mut peer, "fresh").await;
    let fresh = consumer.next().await.unwrap();
    // The one in between was the old connection's: it was passed over, which makes room for another.
    assert_eq!(fresh.batch[0].id, "fresh");
    assert_eq!(credit(&mut peer).await, 1);
    // What was delivered over the old connection is not settled over the new one.
    runs.settle(vec![Outcome::Ack]);
    assert_eq!(credit(&mut peer).await, 1);
}

#[tokio::test]
async fn consumer_ends_after_what_was_on_the_way() {
    let socket = Socket::new();
    let client = socket.client();
    let mut consumer = client.consume("jobs", 10, 1);
    let mut peer = socket.accept().await;
    credit(&mut peer).await;
    both(client.stop_consuming(), async {
        let request = peer.request().await;
        assert!(matches!(request.call, Call::Leave { .. }));
        deliver(&mut peer, "late").await;
        peer.answer(request.id, Reply::Done).await;
    })
    .await;
    let late = consumer.next().await.unwrap();
    assert!(consumer.next().await.is_none());
    late.settle(vec![Outcome::Ack]);
    assert_eq!(settled(&mut peer).await, Outcome::Ack);
}

async fn credit(peer: &mut Peer) -> u32 {
    match peer.request().await.call {
        Call::Credit { batches, .. } => batches,
        other => panic!("{other:?}"),
    }
}

async fn settled(peer: &mut Peer) -> Outcome {
    match peer.request().await.call {
        Call::Settle { mut settled, .. } => settled.remove(0).outcome,
        other => panic!("{other:?}"),
    }
}

async fn deliver(peer: &mut Peer, id: &str) {
    let delivery = Delivery {
        id: id.to_owned(),
        receipt: 1,
        queue: "jobs".to_owned(),
        key: None,
        attempt: 1,
        max_attempts: 3,
        sent_at_ms: 0,
        deadline_ms: 0,
        content_type: None,
        headers: Vec::new(),
        body: Vec::new(),
    };
    peer.send(&FromState::Deliver {
        queue: "jobs".to_owned(),
        batch: vec![delivery],
    })
    .await;
}
