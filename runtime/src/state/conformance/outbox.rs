//! Cases of outboxes: what a transaction sends to a queue that is kept elsewhere comes there once, and in order, whatever
//! becomes of the way there.

mod shared;

use super::{Case, HasOutbox, HasSharedOutbox, cases};
use crate::state::BoxFuture;
use crate::state::db::{Database, Transaction, TxOptions};
use crate::state::outbox::relay::Relay;
use crate::state::outbox::{ID_HEADER, Outbox};
use crate::state::queue::desk::Desk;
use crate::state::queue::{BODY_MAX, Message, Peeked, Queue, QueueError, QueueStatus};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

pub(super) fn cases<B: HasOutbox>() -> Vec<Case<B>> {
    cases![
        message_leaves_when_its_transaction_commits_and_as_it_was_sent,
        message_of_a_transaction_that_is_rolled_back_never_leaves,
        messages_of_a_key_leave_in_the_order_of_commits,
        message_whose_outcome_is_unknown_is_sent_again_under_the_same_id,
        queue_that_is_full_or_away_is_waited_for_and_order_is_kept,
        message_that_is_refused_for_good_is_kept_with_those_behind_it,
        messages_that_wait_are_there_after_a_restart,
        messages_that_no_queue_would_take_are_refused_in_the_transaction,
        messages_that_were_sent_are_not_sent_again,
        check_finds_what_a_relay_loses_that_removes_before_it_sends,
    ]
}

/// Returns those of outboxes that several servers may use.
pub(super) fn shared_cases<B: HasSharedOutbox>() -> Vec<Case<B>> {
    shared::cases()
}

/// A queue that takes messages, or does not, as it is told to.
#[derive(Default)]
struct Elsewhere {
    taken: RefCell<Vec<Message>>,
    /// What becomes of the next calls.
    trouble: RefCell<VecDeque<Trouble>>,
    /// How many messages it has room for, if not for all.
    room: Cell<Option<usize>>,
    /// It takes a dedup id as often as it comes.
    forgets: Cell<bool>,
}

#[derive(Clone, Debug)]
enum Trouble {
    /// It takes nothing.
    Refuses(QueueError),
    /// It takes them, and nobody knows.
    IsCutOff,
}

impl Elsewhere {
    fn take(&self, messages: Vec<Message>) -> Result<Vec<String>, QueueError> {
        let trouble = self.trouble.borrow_mut().pop_front();
        if let Some(Trouble::Refuses(error)) = trouble {
            return Err(error);
        }
        let mut taken = self.taken.borrow_mut();
        if let Some(room) = self.room.get()
            && taken.len() + messages.len() > room
        {
            return Err(QueueError::Full);
        }
        for message in &messages {
            let is_known = taken.iter().any(|it| it.dedup_id == message.dedup_id);
            if !is_known || self.forgets.get() {
                taken.push(message.clone());
            }
        }
        match trouble {
            Some(_) => Err(QueueError::OutcomeUnknown),
            None => Ok(messages.iter().map(|_| String::new()).collect()),
        }
    }

    fn bodies(&self) -> Vec<String> {
        let taken = self.taken.borrow();
        let text = |message: &Message| String::from_utf8_lossy(&message.body).into_owned();
        taken.iter().map(text).collect()
    }

    /// Waits until as many messages were taken.
    async fn gets(&self, count: usize, by: &Relay) -> Vec<String> {
        while self.taken.borrow().len() < count {
            by.bell().notify_one();
            tokio::time::sleep(LOOK).await;
        }
        self.bodies()
    }
}

impl Queue for Elsewhere {
    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        Box::pin(ready(self.take(messages)))
    }

    fn desk(&self) -> &Desk {
        panic!("nobody takes messages here")
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        Box::pin(ready(Ok(QueueStatus::default())))
    }

    fn peek(&self, _: bool, _: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn redrive(&self, _: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        Box::pin(ready(Ok(0)))
    }

    fn purge(&self, _: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        Box::pin(ready(Ok(0)))
    }
}

/// How often it is looked what has come.
const LOOK: Duration = Duration::from_millis(5);

/// Long enough for what would not have to wait.
const WHILE: Duration = Duration::from_millis(300);

fn relay<B: HasOutbox>(outbox: Rc<dyn Outbox>, queue: &Rc<Elsewhere>) -> Relay {
    Relay::start("default", outbox, B::ELSEWHERE, queue.clone())
}

async fn begin(db: &dyn Database) -> Box<dyn Transaction> {
    db.begin(TxOptions::default()).await.unwrap()
}

async fn send<B: HasOutbox>(tx: &dyn Transaction, messages: Vec<Message>) -> Vec<String> {
    tx.send(B::ELSEWHERE.to_owned(), messages).await.unwrap()
}

/// Sends messages "0", "1" and so on, each in a transaction of its own, with a key.
async fn send_each<B: HasOutbox>(on: &B, count: usize) -> Vec<String> {
    let bodies: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for body in &bodies {
        let tx = begin(on.database()).await;
        send::<B>(&*tx, vec![keyed("k", body)]).await;
        tx.commit().await.unwrap();
    }
    bodies
}

/// Waits until nothing waits.
async fn is_empty<B: HasOutbox>(on: &B, by: &Relay) {
    while on.outbox().count(B::ELSEWHERE).await.unwrap() > 0 {
        by.bell().notify_one();
        tokio::time::sleep(LOOK).await;
    }
}

fn keyed(key: &str, body: &str) -> Message {
    Message {
        key: Some(key.to_owned()),
        ..message(body)
    }
}

fn message(body: &str) -> Message {
    Message {
        body: body.into(),
        ..Message::default()
    }
}

async fn message_leaves_when_its_transaction_commits_and_as_it_was_sent<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    let relay = relay::<B>(on.outbox(), &queue);
    let whole = Message {
        body: (0..=255).collect(),
        content_type: Some("application/octet-stream".to_owned()),
        headers: ["a", "b", "a"]
            .map(|name| (name.to_owned(), "ü".to_owned()))
            .into(),
        key: Some("order-1".to_owned()),
        dedup_id: Some("once".to_owned()),
        delay_ms: Some(60_000),
    };
    let tx = begin(on.database()).await;
    let ids = send::<B>(&*tx, vec![whole.clone(), message("")]).await;
    relay.bell().notify_one();
    tokio::time::sleep(WHILE).await;
    assert!(queue.taken.borrow().is_empty());
    tx.commit().await.unwrap();
    queue.gets(2, &relay).await;
    is_empty(&on, &relay).await;
    let taken = queue.taken.borrow();
    let mut headers = whole.headers.clone();
    headers.push((ID_HEADER.to_owned(), ids[0].clone()));
    let delay = taken[0].delay_ms.unwrap();
    assert!((30_000..=60_000).contains(&delay), "{delay}");
    let expected = Message {
        headers,
        delay_ms: Some(delay),
        ..whole
    };
    assert_eq!(taken[0], expected);
    let expected = Message {
        headers: vec![(ID_HEADER.to_owned(), ids[1].clone())],
        dedup_id: Some(ids[1].clone()),
        ..message("")
    };
    assert_eq!(taken[1], expected);
    assert_ne!(ids[0], ids[1]);
}

async fn message_of_a_transaction_that_is_rolled_back_never_leaves<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    let tx = begin(on.database()).await;
    send::<B>(&*tx, vec![keyed("k", "never")]).await;
    tx.rollback().await;
    drop(tx);
    let dropped = begin(on.database()).await;
    send::<B>(&*dropped, vec![keyed("k", "never")]).await;
    drop(dropped);
    let sent = send_each(&on, 1).await;
    let relay = relay::<B>(on.outbox(), &queue);
    is_empty(&on, &relay).await;
    assert_eq!(queue.bodies(), sent);
}

async fn messages_of_a_key_leave_in_the_order_of_commits<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    let relay = relay::<B>(on.outbox(), &queue);
    let (first, second) = (begin(on.database()).await, begin(on.database()).await);
    send::<B>(&*first, vec![keyed("k", "a"), keyed("l", "b")]).await;
    let mut later = second.send(B::ELSEWHERE.to_owned(), vec![keyed("k", "d")]);
    // Its number would be the lower one of what the other one sends next.
    assert!(timeout(WHILE, &mut later).await.is_err(), "it has to wait");
    send::<B>(&*first, vec![keyed("k", "c")]).await;
    first.commit().await.unwrap();
    later.await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(queue.gets(4, &relay).await, ["a", "b", "c", "d"]);
}

async fn message_whose_outcome_is_unknown_is_sent_again_under_the_same_id<B: HasOutbox>(on: B) {
    for forgets in [false, true] {
        let queue = Rc::<Elsewhere>::default();
        queue.forgets.set(forgets);
        queue.trouble.borrow_mut().extend([
            Trouble::IsCutOff,
            Trouble::Refuses(QueueError::Unavailable(String::new())),
        ]);
        let sent = send_each(&on, 2).await;
        let relay = relay::<B>(on.outbox(), &queue);
        is_empty(&on, &relay).await;
        drop(relay);
        let taken = queue.taken.borrow();
        match forgets {
            false => assert_eq!(queue.bodies(), sent),
            // The control: a queue that knows no dedup ids has them twice, the second time as the first.
            true => assert_eq!(taken[..2], taken[2..]),
        }
    }
}

async fn queue_that_is_full_or_away_is_waited_for_and_order_is_kept<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    queue.room.set(Some(3));
    let sent = send_each(&on, 10).await;
    let relay = relay::<B>(on.outbox(), &queue);
    // Less than what it would send together.
    assert_eq!(queue.gets(3, &relay).await, sent[..3]);
    let away = Trouble::Refuses(QueueError::Unavailable(String::new()));
    queue.trouble.borrow_mut().extend(vec![away; 3]);
    queue.room.set(Some(8));
    assert_eq!(queue.gets(8, &relay).await, sent[..8]);
    // What the queue has taken is removed a moment later.
    while on.outbox().count(B::ELSEWHERE).await != Ok(2) {
        tokio::time::sleep(LOOK).await;
    }
    queue.room.set(None);
    assert_eq!(queue.gets(10, &relay).await, sent);
    is_empty(&on, &relay).await;
}

async fn message_that_is_refused_for_good_is_kept_with_those_behind_it<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    let refused = Trouble::Refuses(QueueError::TooLarge("for it".to_owned()));
    queue.trouble.borrow_mut().extend(vec![refused; 6]);
    let sent = send_each(&on, 4).await;
    let relay = relay::<B>(on.outbox(), &queue);
    while queue.trouble.borrow().len() > 1 {
        assert_eq!(on.outbox().count(B::ELSEWHERE).await, Ok(4));
    }
    assert_eq!(queue.gets(4, &relay).await, sent);
}

async fn messages_that_wait_are_there_after_a_restart<B: HasOutbox>(on: B) {
    let sent = send_each(&on, 3).await;
    let on = on.restart().await;
    assert_eq!(on.outbox().count(B::ELSEWHERE).await, Ok(3));
    let queue = Rc::<Elsewhere>::default();
    let relay = relay::<B>(on.outbox(), &queue);
    assert_eq!(queue.gets(3, &relay).await, sent);
    is_empty(&on, &relay).await;
}

async fn messages_that_no_queue_would_take_are_refused_in_the_transaction<B: HasOutbox>(on: B) {
    let tx = begin(on.database()).await;
    let large = Message {
        body: vec![0; BODY_MAX + 1],
        ..Message::default()
    };
    for (messages, is_large) in [(vec![message("a"), large], true), (vec![], false)] {
        let refused = tx.send(B::ELSEWHERE.to_owned(), messages).await;
        match refused {
            Err(QueueError::TooLarge(_)) if is_large => {}
            Err(QueueError::Invalid(_)) if !is_large => {}
            refused => panic!("{refused:?}"),
        }
    }
    send::<B>(&*tx, vec![message("b")]).await;
    tx.commit().await.unwrap();
    let queue = Rc::<Elsewhere>::default();
    let relay = relay::<B>(on.outbox(), &queue);
    is_empty(&on, &relay).await;
    assert_eq!(queue.bodies(), ["b"]);
}

async fn messages_that_were_sent_are_not_sent_again<B: HasOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    queue.forgets.set(true);
    let relay = relay::<B>(on.outbox(), &queue);
    let sent = send_each(&on, 3).await;
    queue.gets(3, &relay).await;
    is_empty(&on, &relay).await;
    drop(relay);
    let on = on.restart().await;
    let _relay = self::relay::<B>(on.outbox(), &queue);
    tokio::time::sleep(WHILE).await;
    assert_eq!(queue.bodies(), sent);
}

/// The control: it is what is lost, and not something else, that the cases above would find.
async fn check_finds_what_a_relay_loses_that_removes_before_it_sends<B: HasOutbox>(on: B) {
    let queue = Elsewhere::default();
    let away = Trouble::Refuses(QueueError::Unavailable(String::new()));
    queue.trouble.borrow_mut().push_back(away);
    let sent = send_each(&on, 3).await;
    while let Some(lead) = on.outbox().lead(B::ELSEWHERE).await.unwrap() {
        let Some(first) = lead.look(1).await.unwrap().pop() else {
            break;
        };
        let letters = lead.read(vec![first.row]).await.unwrap();
        lead.remove(vec![first.row]).await.unwrap();
        let _ = queue.take(letters.into_iter().map(|it| it.message).collect());
        lead.resign().await;
    }
    assert_eq!(queue.bodies(), sent[1..]);
    assert_ne!(queue.bodies(), sent);
}
