//! Takes messages from an outbox on to their queue, in order: sends, and removes when the queue has acknowledged.
//!
//! Whoever has messages for the queue becomes the lead, takes all of them on, and gives the lead back: so the messages of one
//! server do not wait until the relay of another looks, and one that cannot reach the queue leaves them to who can.

use super::{Letter, Outbox, Waiting};
use crate::state::db::DbError;
use crate::state::queue::sharing::POLL;
use crate::state::queue::{Message, Queue, QueueError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Messages that are sent together, and bytes of them, if one is not larger.
const TOGETHER_MAX: usize = 100;
const BYTES_MAX: u64 = 4 << 20;

/// How long a queue may take to take them.
const SEND_MAX: Duration = Duration::from_secs(30);

/// The first and the longest pause after something failed, or while somebody else has the lead.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = POLL;

/// A relay from one outbox to one queue. It ends when it is dropped.
pub(in crate::state) struct Relay {
    outbox: Rc<dyn Outbox>,
    queue: String,
    bell: Rc<Notify>,
    _task: JoinSet<()>,
}

impl Relay {
    /// Begins to take messages on. `database` and `label` are what its ends are called. To be called within a `LocalSet`.
    pub(in crate::state) fn start(
        database: &str,
        outbox: Rc<dyn Outbox>,
        label: &str,
        queue: Rc<dyn Queue>,
    ) -> Self {
        let bell = Rc::<Notify>::default();
        let course = Course {
            database: database.to_owned(),
            label: label.to_owned(),
            outbox: outbox.clone(),
            queue,
            bell: bell.clone(),
            most: Cell::new(TOGETHER_MAX),
            has_moved: Cell::default(),
        };
        let mut task = JoinSet::new();
        task.spawn_local(course.run());
        Self {
            outbox,
            queue: label.to_owned(),
            bell,
            _task: task,
        }
    }

    /// Returns what tells it that there may be messages.
    pub(in crate::state) fn bell(&self) -> Rc<Notify> {
        self.bell.clone()
    }

    /// Returns how many messages wait.
    pub(in crate::state) async fn count(&self) -> Result<u64, DbError> {
        self.outbox.count(&self.queue).await
    }
}

/// What became of a look.
enum Seen {
    /// Nothing waits any more.
    Nothing,
    /// Somebody else takes them on.
    Others,
}

/// Why messages go on waiting.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the outbox: {0}")]
    Outbox(#[from] DbError),
    #[error("the queue: {0}")]
    Queue(QueueError),
    /// It would be refused again and again.
    #[error("the queue refuses the message {0}, and those behind it wait: {1}")]
    Message(String, QueueError),
}

struct Course {
    database: String,
    label: String,
    outbox: Rc<dyn Outbox>,
    queue: Rc<dyn Queue>,
    bell: Rc<Notify>,
    /// How many are sent together: fewer if the queue has no room for more.
    most: Cell<usize>,
    /// Some were taken on since it was last looked.
    has_moved: Cell<bool>,
}

impl Course {
    async fn run(self) {
        let (mut pause, mut told) = (PAUSE_MIN, None);
        loop {
            self.has_moved.set(false);
            let seen = self.pass().await;
            self.tell(&seen, &mut told);
            if self.has_moved.get() || matches!(seen, Ok(Seen::Nothing)) {
                pause = PAUSE_MIN;
            }
            match seen {
                Ok(Seen::Nothing) => self.wait().await,
                // Those may look once more, or may not.
                Ok(Seen::Others) | Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Waits until there may be something.
    async fn wait(&self) {
        let rung = self.bell.notified();
        match self.outbox.is_shared() {
            true => drop(timeout(POLL, rung).await),
            false => rung.await,
        }
    }

    /// Says once why messages wait, and that they no longer do.
    fn tell(&self, seen: &Result<Seen, Stopped>, told: &mut Option<String>) {
        let (db, queue) = (&*self.database, &*self.label);
        match seen {
            Err(stopped) => {
                let error = stopped.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(db, queue, error, "messages wait in the outbox");
                    *told = Some(error);
                }
            }
            Ok(Seen::Nothing) if told.take().is_some() => {
                tracing::info!(db, queue, "no message waits in the outbox any more");
            }
            Ok(_) => {}
        }
    }

    /// Takes on what is there.
    async fn pass(&self) -> Result<Seen, Stopped> {
        if !self.outbox.waits(&self.label).await? {
            return Ok(Seen::Nothing);
        }
        let Some(lead) = self.outbox.lead(&self.label).await? else {
            return Ok(Seen::Others);
        };
        loop {
            let first = first(&lead.look(self.most.get()).await?);
            if first.is_empty() {
                lead.resign().await;
                return Ok(Seen::Nothing);
            }
            let letters = lead.read(first).await?;
            let rows = letters.iter().map(|letter| letter.row).collect();
            match self.send(letters).await {
                Ok(true) => {
                    lead.remove(rows).await?;
                    self.has_moved.set(true);
                }
                Ok(false) => {}
                Err(stopped) => {
                    lead.resign().await;
                    return Err(stopped);
                }
            }
        }
    }

    /// Sends messages; false if they are not taken together, and fewer may be.
    async fn send(&self, letters: Vec<Letter>) -> Result<bool, Stopped> {
        let messages: Vec<Message> = letters.into_iter().map(due).collect();
        let Some(first) = messages.first() else {
            return Ok(true);
        };
        let (count, id) = (messages.len(), id_of(first));
        let sent = timeout(SEND_MAX, self.queue.send(messages)).await;
        match sent.unwrap_or(Err(QueueError::OutcomeUnknown)) {
            Ok(_) => {
                self.most.set((self.most.get() * 2).min(TOGETHER_MAX));
                Ok(true)
            }
            Err(error @ (QueueError::Unavailable(_) | QueueError::OutcomeUnknown)) => {
                Err(Stopped::Queue(error))
            }
            Err(_) if count > 1 => {
                self.most.set(count / 2);
                Ok(false)
            }
            Err(QueueError::Full) => Err(Stopped::Queue(QueueError::Full)),
            Err(error) => Err(Stopped::Message(id, error)),
        }
    }
}

/// Returns those of the first messages that are sent together.
fn first(waiting: &[Waiting]) -> Vec<i64> {
    let mut room = BYTES_MAX;
    let fits = |waiting: &(usize, &Waiting)| {
        let (at, Waiting { size, .. }) = waiting;
        let fits = *at == 0 || *size <= room;
        room = room.saturating_sub(*size);
        fits
    };
    let fitting = waiting.iter().enumerate().take_while(fits);
    fitting.map(|(_, waiting)| waiting.row).collect()
}

/// Returns the message as it is sent now: a delay counts from when its transaction sent it.
fn due(letter: Letter) -> Message {
    let Letter {
        message, age_ms, ..
    } = letter;
    Message {
        delay_ms: message
            .delay_ms
            .map(|delay| delay.saturating_sub(age_ms))
            .filter(|delay| *delay > 0),
        ..message
    }
}

fn id_of(message: &Message) -> String {
    let mut headers = message.headers.iter();
    let found = headers.find(|(name, _)| name == super::ID_HEADER);
    found.map_or_else(String::new, |(_, id)| id.clone())
}
