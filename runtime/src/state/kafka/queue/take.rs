//! How messages come to be here: as a member of the queue's group, from which a server takes part as long as its workers take
//! messages.

use super::held::Commit;
use super::member::{Event, Flow, Member, commit_all, poll};
use super::{Demand, Store};
use crate::state::kafka::clients::member;
use crate::state::queue::desk::Desk;
use crate::state::queue::lanes::Entry;
use crate::state::queue::sharing::{PAUSE, POLL};
use rdkafka::consumer::Consumer as _;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep, timeout};

/// How long nobody here is to take messages until the group is left.
const DESERTED: Duration = Duration::from_secs(10);

/// How long workers may go on with messages of a partition that is to be given to another server.
pub(super) const GIVE_UP_MAX: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(5);

/// How long to wait for more messages of a batch, and how many are looked at together.
const GATHER: Duration = Duration::from_millis(3);
const GATHER_MAX: usize = 500;

/// The shortest time between two commits.
const COMMIT: Duration = Duration::from_millis(5);

/// Messages of one partition that are here, and bytes, until no more are read, and until some are again.
const FULL: (usize, usize) = (768, 8 << 20);
const ROOM: (usize, usize) = (384, 4 << 20);

/// Takes messages for as long as it is polled, or until the queue is closed.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let mut failing = false;
    while !store.is_closing.get() {
        if store.demand.get().sessions == 0 {
            store.bell.work.notified().await;
            continue;
        }
        tokio::select! {
            () = store.line.presence().back() => {}
            () = store.bell.work.notified() => continue,
        }
        let ended = match Taking::begin(&store, &desk) {
            Ok(taking) => taking.take().await,
            Err(why) => Err(why),
        };
        match ended {
            Ok(()) => failing = false,
            Err(why) => {
                let lost: Vec<i32> = store.held.borrow().parts.keys().copied().collect();
                give_up(&store, &desk, &lost, true).await;
                if !std::mem::replace(&mut failing, true) {
                    let queue = &store.label;
                    tracing::warn!(queue, why, "messages cannot be taken, trying again");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// A membership.
struct Taking<'a> {
    store: &'a Store,
    desk: &'a Desk,
    flow: Arc<Flow>,
    events: UnboundedReceiver<Event>,
    commits: Sender<Vec<Commit>>,
    deserted_since: Option<Instant>,
    /// What is being committed.
    committing: Option<Vec<Commit>>,
    committed_at: Instant,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.flow.stops.store(true, Ordering::Relaxed);
    }
}

impl<'a> Taking<'a> {
    fn begin(store: &'a Store, desk: &'a Desk) -> Result<Self, String> {
        let (sender, events) = mpsc::unbounded_channel();
        let flow = Arc::<Flow>::default();
        let names = store.line.names();
        let context = Member {
            label: store.label.clone(),
            topic: names.topic.clone(),
            events: sender.clone(),
            flow: flow.clone(),
        };
        let consumer = member(store.line.address(), &names.group, context);
        let consumer = Arc::new(consumer.map_err(|error| error.to_string())?);
        let topics = [names.topic.as_str()];
        let subscribed = consumer.subscribe(&topics);
        subscribed.map_err(|error| error.to_string())?;
        let (commits, given) = channel();
        // Whichever of the two ends last leaves the group.
        let polled = consumer.clone();
        spawn("kafka takes", move || poll(&polled))?;
        spawn("kafka commits", move || {
            commit_all(&consumer, &given, &sender)
        })?;
        Ok(Self {
            store,
            desk,
            flow,
            events,
            commits,
            deserted_since: None,
            committing: None,
            committed_at: Instant::now(),
        })
    }

    /// Takes messages until nobody here takes any, or the queue is closed.
    async fn take(mut self) -> Result<(), String> {
        loop {
            if self.is_over() {
                self.leave().await;
                return Ok(());
            }
            self.commit();
            let pause = match self.committing {
                None if self.store.held.borrow().has_changed() => COMMIT,
                _ => POLL,
            };
            let bell = &self.store.bell.work;
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = bell.notified() => {
                    self.admit();
                    continue;
                }
                () = sleep(pause) => continue,
            };
            let Some(event) = event else {
                return Err("the thread that reads has ended".to_owned());
            };
            self.take_in(event).await?;
            self.gather().await?;
            self.admit();
        }
    }

    /// Tells whether nobody here has taken or handled anything for some time.
    fn is_over(&mut self) -> bool {
        let Demand {
            sessions,
            in_flight,
            ..
        } = self.store.demand.get();
        if self.store.is_closing.get() {
            return true;
        }
        if sessions > 0 || in_flight > 0 {
            self.deserted_since = None;
            return false;
        }
        let since = *self.deserted_since.get_or_insert_with(Instant::now);
        since.elapsed() >= DESERTED
    }

    /// Leaves the group: what is here is let go, and committed.
    async fn leave(self) {
        let Self {
            store, desk, flow, ..
        } = &self;
        flow.stops.store(true, Ordering::Relaxed);
        let (store, desk) = (*store, *desk);
        let mut events = self.split();
        while let Some(event) = events.recv().await {
            if let Event::Taken {
                partitions,
                is_lost,
                answer,
            } = event
            {
                let commits = give_up(store, desk, &partitions, is_lost).await;
                let _ = answer.send(commits);
            }
        }
        let left: Vec<i32> = store.held.borrow().parts.keys().copied().collect();
        give_up(store, desk, &left, true).await;
    }

    /// Lets the consumer go, and returns what it has to tell until it has left.
    fn split(mut self) -> UnboundedReceiver<Event> {
        let (_, none) = mpsc::unbounded_channel();
        std::mem::replace(&mut self.events, none)
    }

    /// Waits a little for more of what is read together, if a batch has room for it.
    async fn gather(&mut self) -> Result<(), String> {
        let (messages, batches) = self.store.demand.get().wanted;
        for _ in 0..GATHER_MAX {
            let next = match messages > batches {
                true => timeout(GATHER, self.events.recv()).await.ok().flatten(),
                false => self.events.try_recv().ok(),
            };
            match next {
                Some(event) => self.take_in(event).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn take_in(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Given(partitions) => {
                let mut held = self.store.held.borrow_mut();
                for (partition, offset, note) in partitions {
                    held.begin(partition, offset, &note);
                }
            }
            Event::Read(at, letter) => {
                self.flow.backlog.fetch_sub(1, Ordering::Relaxed);
                self.store.held.borrow_mut().arrive(at, *letter);
            }
            Event::Taken {
                partitions,
                is_lost,
                answer,
            } => {
                let commits = give_up(self.store, self.desk, &partitions, is_lost).await;
                // If it waits no more, they are handled again.
                let _ = answer.send(commits);
            }
            Event::Committed { is_ok } => self.committed(is_ok),
            Event::Ended(why) => return Err(why),
        }
        Ok(())
    }

    /// Has messages handled that can be, and says of which partitions no more are to be read.
    fn admit(&self) {
        let entries = self.store.held.borrow_mut().admit();
        add(self.desk, entries);
        let held = self.store.held.borrow();
        let mut full = self
            .flow
            .full
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        full.retain(|partition| held.parts.contains_key(partition));
        for &partition in held.parts.keys() {
            let (count, bytes) = held.load(partition);
            if count >= FULL.0 || bytes >= FULL.1 {
                full.insert(partition);
            } else if count < ROOM.0 && bytes < ROOM.1 {
                full.remove(&partition);
            }
        }
    }

    /// Commits what has changed, one after the other.
    fn commit(&mut self) {
        if self.committing.is_some() || self.committed_at.elapsed() < COMMIT {
            return;
        }
        if !self.store.held.borrow().has_changed() {
            return;
        }
        let commits = self.store.held.borrow().commits(None);
        self.committed_at = Instant::now();
        if self.commits.send(commits.clone()).is_ok() {
            self.committing = Some(commits);
        }
    }

    fn committed(&mut self, is_ok: bool) {
        let Some(commits) = self.committing.take() else {
            return;
        };
        match is_ok {
            true => {
                self.store.held.borrow_mut().saved(&commits);
                self.store.saved.notify_waiters();
            }
            false => self.committed_at = Instant::now() + PAUSE,
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| error.to_string())
}

/// Has messages handled.
fn add(desk: &Desk, entries: Vec<Entry>) {
    if entries.is_empty() {
        return;
    }
    let of_wall = |entry: Entry| Entry {
        ready_at: desk.of_wall(entry.ready_at),
        ..entry
    };
    desk.add(entries.into_iter().map(of_wall).collect::<Vec<_>>());
}

/// Lets partitions go: what workers have of them they may bring to an end, unless another server has them already. Returns what
/// is to be committed.
async fn give_up(store: &Store, desk: &Desk, partitions: &[i32], is_lost: bool) -> Vec<Commit> {
    let is_of = |row: &i64| {
        let held = store.held.borrow();
        held.get(*row)
            .is_some_and(|it| partitions.contains(&it.at.partition))
    };
    let begin = Instant::now();
    loop {
        let idle = desk.lanes.borrow_mut().purge();
        let here = idle.into_iter().filter(|entry| !is_of(&entry.id));
        desk.add(here.collect::<Vec<_>>());
        let is_busy = desk.known().iter().any(is_of);
        if is_lost || !is_busy || begin.elapsed() >= GIVE_UP_MAX {
            break;
        }
        sleep(LOOK).await;
    }
    let rows: Vec<i64> = desk.known().into_iter().filter(is_of).collect();
    for row in rows {
        desk.lanes.borrow_mut().forget(row);
    }
    let commits = store.held.borrow().commits(Some(partitions));
    let entries = store.held.borrow_mut().lose(partitions);
    add(desk, entries);
    desk.run();
    commits
}
