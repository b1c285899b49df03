//! The member of a queue's group that this server is, as the library calls it back: on the thread that polls it, which passes on
//! what it reads, and waits when a partition is to be given to somebody else until this server has let it go.

use super::held::{Commit, Place};
use super::take::GIVE_UP_MAX;
use crate::state::kafka::clients::ANSWER_MAX;
use crate::state::kafka::line::text;
use crate::state::queue::letter::Letter;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Messages on their way from the thread to here.
const BACKLOG_MAX: usize = 1000;

/// How long the thread waits for something to happen.
const TURN: Duration = Duration::from_millis(20);

/// How long to leave alone what cannot be read on.
const PAUSE: Duration = Duration::from_millis(5);

/// What the thread has to tell.
pub(super) enum Event {
    /// Partitions are this server's: the offset and the note that were committed of each.
    Given(Vec<(i32, i64, String)>),
    Read(Place, Box<Letter>),
    /// Partitions are to be another's, or are already. What is to be committed of them is awaited.
    Taken {
        partitions: Vec<i32>,
        is_lost: bool,
        answer: SyncSender<Vec<Commit>>,
    },
    Committed {
        is_ok: bool,
    },
    Ended(String),
}

/// What the thread and the rest share.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) stops: AtomicBool,
    pub(super) backlog: AtomicUsize,
    /// Partitions of which nothing is read until there is room.
    pub(super) full: Mutex<BTreeSet<i32>>,
}

impl Flow {
    fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    fn full(&self) -> BTreeSet<i32> {
        self.full
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A member of the group, as the library calls it back.
pub(super) struct Member {
    pub(super) label: String,
    pub(super) topic: String,
    pub(super) events: UnboundedSender<Event>,
    pub(super) flow: Arc<Flow>,
}

impl ClientContext for Member {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // One that changes nothing for this server.
            Rebalance::Assign(list) | Rebalance::Revoke(list) if list.count() == 0 => {}
            Rebalance::Assign(list) => self.given(consumer, list),
            Rebalance::Revoke(list) => self.taken(consumer, list),
            Rebalance::Error(_) => {}
        }
    }
}

impl Member {
    /// Finds out how far partitions are handled: without that, none is read.
    fn given(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let committed = loop {
            let mut asked = TopicPartitionList::new();
            for one in list.elements() {
                asked.add_partition(one.topic(), one.partition());
            }
            match consumer.committed_offsets(asked, ANSWER_MAX) {
                Ok(committed) if committed.elements().iter().all(|it| it.error().is_ok()) => {
                    break committed;
                }
                _ if self.flow.stops() => return,
                _ => thread::sleep(TURN),
            }
        };
        let of = committed.elements().into_iter().map(|one| {
            let offset = match one.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            (one.partition(), offset, one.metadata().to_owned())
        });
        let _ = self.events.send(Event::Given(of.collect()));
    }

    /// Has partitions let go, and commits how far they are handled.
    fn taken(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = list.elements().iter().map(|it| it.partition()).collect();
        let (answer, answered) = sync_channel(1);
        let is_lost = consumer.assignment_lost();
        let event = Event::Taken {
            partitions,
            is_lost,
            answer,
        };
        let _ = self.events.send(event);
        // If nobody answers, this server ends, and what it has not committed is handled again.
        let Ok(commits) = answered.recv_timeout(GIVE_UP_MAX + ANSWER_MAX) else {
            return;
        };
        if is_lost {
            return;
        }
        if let Ok(list) = listed(&self.topic, &commits)
            && list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Sync)
        {
            let (queue, why) = (&self.label, text(&error));
            tracing::warn!(queue, why, "what was handled last is handled again");
        }
    }

    fn read(&self, message: &BorrowedMessage<'_>) {
        let at = Place {
            partition: message.partition(),
            offset: message.offset(),
        };
        self.flow.backlog.fetch_add(1, Ordering::Relaxed);
        let letter = Box::new(read(&self.label, message));
        let _ = self.events.send(Event::Read(at, letter));
    }
}

/// Reads a message. The name of a header that is no UTF-8 makes the library panic: then it has none.
pub(super) fn read(label: &str, message: &BorrowedMessage<'_>) -> Letter {
    let letter = catch_unwind(AssertUnwindSafe(|| Letter::of_record(label, message)));
    letter.unwrap_or_else(|_| Letter::bare(label, message))
}

/// Returns what is to be committed, as the library takes it.
fn listed(topic: &str, commits: &[Commit]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for commit in commits {
        let mut one = list.add_partition(topic, commit.partition);
        one.set_offset(Offset::Offset(commit.offset))?;
        one.set_metadata(&commit.note);
    }
    Ok(list)
}

/// Reads, on a thread of its own, until it is to stop, and leaves the group.
pub(super) fn poll(consumer: &BaseConsumer<Member>) {
    let member = consumer.context().clone();
    let mut full = BTreeSet::new();
    while !member.flow.stops() {
        let wanted = member.flow.full();
        let list = |some: &BTreeSet<i32>, but: &BTreeSet<i32>| {
            let mut list = TopicPartitionList::new();
            for partition in some.difference(but) {
                list.add_partition(&member.topic, *partition);
            }
            list
        };
        if wanted != full {
            // One that is not this server's any more is nobody's concern.
            let _ = consumer.pause(&list(&wanted, &full));
            let _ = consumer.resume(&list(&full, &wanted));
            full = wanted;
        }
        if member.flow.backlog.load(Ordering::Relaxed) > BACKLOG_MAX {
            thread::sleep(PAUSE);
            continue;
        }
        match consumer.poll(TURN) {
            Some(Ok(message)) => member.read(&message),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                let _ = member.events.send(Event::Ended(code.to_string()));
                return;
            }
            // It goes on by itself.
            Some(Err(_)) | None => {}
        }
    }
}

/// Commits what it is given, one after the other, on a thread of its own: the library's callback for what was committed is
/// never called.
pub(super) fn commit_all(
    consumer: &BaseConsumer<Member>,
    given: &Receiver<Vec<Commit>>,
    events: &UnboundedSender<Event>,
) {
    let topic = &consumer.context().topic;
    while let Ok(commits) = given.recv() {
        let committed =
            listed(topic, &commits).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        let is_ok = committed.is_ok();
        let _ = events.send(Event::Committed { is_ok });
    }
}
