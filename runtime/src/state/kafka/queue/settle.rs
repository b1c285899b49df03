//! What became of messages: noted, to be committed soon. A dead letter is produced first, so that it may be there twice for a
//! moment, and never not at all.

use super::Store;
use super::mark::Tried;
use super::send::produce;
use crate::state::kafka::line::Failed;
use crate::state::queue::content::add_dead_headers;
use crate::state::queue::desk::Found;
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::Change;
use crate::state::wall_ms;
use futures_util::future::join_all;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a retry waits for its number to be written down until others are looked at.
const SAVE_MAX: Duration = Duration::from_millis(500);

impl Store {
    /// Notes what became of messages; those that are not here are passed over. An error says that some of it was not, and is to be
    /// tried again.
    pub(super) async fn settle(&self, changes: Vec<Change>) -> Result<(), Failed> {
        let mut dead = Vec::new();
        for change in changes {
            match change {
                Change::Remove { id } => self.held.borrow_mut().finish(id),
                Change::Retry {
                    id,
                    attempts,
                    ready_at_ms,
                    alone,
                } => {
                    let tried = Tried {
                        attempts,
                        ready_at_ms,
                        alone,
                    };
                    self.held.borrow_mut().retry(id, tried);
                }
                Change::Dead {
                    id,
                    attempts,
                    reason,
                } => dead.push(self.bury(id, attempts, reason)),
            }
        }
        self.bell.wake();
        let buried = join_all(dead).await;
        self.bell.wake();
        buried.into_iter().collect()
    }

    async fn bury(&self, row: i64, attempts: u32, reason: String) -> Result<(), Failed> {
        let Some(letter) = self.dead_letter(row, attempts, &reason) else {
            return Ok(());
        };
        let clients = self.line.live()?.clients()?;
        produce(&clients, &self.line.names().dead, &letter).await?;
        self.held.borrow_mut().finish(row);
        Ok(())
    }

    fn dead_letter(&self, row: i64, attempts: u32, reason: &str) -> Option<Letter> {
        let mut letter = self.held.borrow().get(row)?.letter.clone();
        let told = (reason, self.label.as_str(), attempts, wall_ms());
        (letter.attempts, letter.ready_at_ms) = (attempts, 0);
        add_dead_headers(&mut letter.headers, told);
        Some(letter)
    }

    /// Reads what is here, but for messages of which it is not yet written down how often they were tried: a try that nobody knows
    /// of is followed by none.
    pub(super) async fn read(&self, ids: Vec<i64>) -> Found {
        let until = Instant::now() + SAVE_MAX;
        let is_saved = |id: &i64| self.held.borrow().is_saved(*id);
        let mut saved = pin!(self.saved.notified());
        while !ids.iter().all(is_saved) {
            if timeout_at(until, saved.as_mut()).await.is_err() {
                break;
            }
            saved.set(self.saved.notified());
        }
        let held = self.held.borrow();
        let ids = ids.into_iter().filter(|id| held.is_saved(*id));
        ids.map(|id| (id, held.stored(id, &self.label))).collect()
    }
}
