//! What operators change.

use super::{Store, changed, looked};
use crate::state::queue::QueueError;
use crate::state::queue::content::remove_dead_headers;
use crate::state::queue::desk::Desk;
use crate::state::queue::stored::Change;
use crate::state::rabbitmq::line::Failed;
use lapin::options::{BasicAckOptions, QueuePurgeOptions};
use lapin::types::ShortString;
use std::rc::Rc;

impl Store {
    /// Sends dead letters back; returns how many. Not those that become dead letters again meanwhile.
    pub(super) async fn redrive(&self, most: u32) -> Result<u64, QueueError> {
        let live = self.line.live().map_err(looked)?;
        let there = self.dead(&live).await.map_err(looked)?;
        let mut moved = 0;
        while moved < there.min(u64::from(most)) {
            let one = self.ask(&live, async |channel| {
                let Some(got) = self.next_dead(channel).await? else {
                    return Ok(false);
                };
                let read = self.dead_letter(&got.properties, got.data.clone());
                let mut letter = read.map_err(|error| Failed::Refused(error.to_string()))?;
                remove_dead_headers(&mut letter.headers);
                (letter.attempts, letter.alone, letter.ready_at_ms) = (0, false, 0);
                self.put(&live, &letter).await?;
                got.acker.ack(BasicAckOptions::default()).await?;
                Ok(true)
            });
            match one.await {
                Ok(true) => moved += 1,
                Ok(false) => break,
                Err(_) if moved > 0 => break,
                Err(failed) => return Err(changed(failed)),
            }
        }
        Ok(moved)
    }

    /// Deletes messages that nobody is handling here or has been handed out elsewhere, or dead letters; returns how many.
    pub(super) async fn purge(self: &Rc<Self>, dead: bool, desk: &Desk) -> Result<u64, QueueError> {
        let live = self.line.live().map_err(looked)?;
        let names = &self.names;
        let queues: Vec<&ShortString> = match dead {
            true => vec![names.dead()],
            false => names.ready().chain(names.rungs()).collect(),
        };
        let purged = self.ask(&live, async |channel| {
            let mut sum = 0;
            for name in queues {
                let purged = channel.queue_purge(name.clone(), QueuePurgeOptions::default());
                sum += u64::from(purged.await?);
            }
            Ok(sum)
        });
        let purged = purged.await.map_err(changed)?;
        if dead {
            return Ok(purged);
        }
        let idle = desk.lanes.borrow_mut().purge();
        let gone = idle.iter().map(|entry| Change::Remove { id: entry.id });
        self.settle(gone.collect()).await.map_err(changed)?;
        Ok(purged + idle.len() as u64)
    }
}
