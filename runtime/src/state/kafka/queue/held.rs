//! The messages that are here, and the partitions that they are of: those that the group has given to this server.

use super::mark::{Mark, Seen, Tried};
use crate::state::queue::lanes::Entry;
use crate::state::queue::letter::Letter;
use crate::state::queue::stored::StoredMessage;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A message that is here.
pub(super) struct Held {
    pub(super) letter: Letter,
    pub(super) at: Place,
    /// Of its partition, when its tries were counted last.
    version: u64,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A partition.
#[derive(Default)]
pub(super) struct Part {
    pub(super) mark: Mark,
    /// Read, and too far from the first message that is not done.
    waiting: VecDeque<(i64, Letter)>,
    /// What is before was deleted by somebody.
    skip_to: i64,
    /// How often what is to be committed has changed, and of which change it is known that it was.
    version: u64,
    saved: u64,
}

/// What is to be committed of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Commit {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) note: String,
    version: u64,
}

/// All of it; messages by rows of this process.
#[derive(Default)]
pub(super) struct Holdings {
    held: HashMap<i64, Held>,
    rows: HashMap<String, i64>,
    /// Further messages of the same ids.
    twins: HashMap<String, Vec<Held>>,
    pub(super) parts: BTreeMap<i32, Part>,
    last: i64,
}

impl Holdings {
    /// A partition is this server's, of which this was committed.
    pub(super) fn begin(&mut self, partition: i32, offset: i64, note: &str) {
        let part = Part {
            mark: Mark::read(offset, note),
            ..Part::default()
        };
        self.parts.insert(partition, part);
    }

    /// Takes a message that was read, to be seen by [`Self::admit`].
    pub(super) fn arrive(&mut self, at: Place, letter: Letter) {
        if let Some(part) = self.parts.get_mut(&at.partition) {
            part.waiting.push_back((at.offset, letter));
        }
    }

    /// Returns the messages that can be handled now and could not before. They are ready when their letters say, by the wall
    /// clock.
    pub(super) fn admit(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let partitions: Vec<i32> = self.parts.keys().copied().collect();
        for partition in partitions {
            while let Some((offset, letter, tried)) = self.next_of(partition) {
                let at = Place { partition, offset };
                entries.extend(self.hold(at, letter, tried));
            }
        }
        entries
    }

    /// Takes the next message of a partition that waits for none before it.
    fn next_of(&mut self, partition: i32) -> Option<(i64, Letter, Option<Tried>)> {
        let part = self.parts.get_mut(&partition)?;
        loop {
            let (offset, _) = part.waiting.front()?;
            let offset = *offset;
            let tried = match part.mark.see(offset) {
                Seen::TooFar => return None,
                Seen::Before => None,
                Seen::New(tried) => Some(tried),
            };
            let (_, letter) = part.waiting.pop_front()?;
            let tried = match tried {
                Some(tried) if offset >= part.skip_to => tried,
                Some(_) => {
                    part.mark.finish(offset);
                    part.version += 1;
                    continue;
                }
                None => {
                    part.version += 1;
                    continue;
                }
            };
            return Some((offset, letter, tried));
        }
    }

    /// Holds a message; nothing is to be handled if it has the id of another one.
    fn hold(&mut self, at: Place, mut letter: Letter, tried: Option<Tried>) -> Option<Entry> {
        letter.attempts = 0;
        if let Some(tried) = tried {
            letter.attempts = tried.attempts;
            letter.ready_at_ms = tried.ready_at_ms;
            letter.alone = tried.alone;
        }
        let held = Held {
            letter,
            at,
            version: 0,
        };
        if self.rows.contains_key(&held.letter.id) {
            let twins = self.twins.entry(held.letter.id.clone()).or_default();
            twins.push(held);
            return None;
        }
        Some(self.insert(held))
    }

    fn insert(&mut self, held: Held) -> Entry {
        self.last += 1;
        let letter = &held.letter;
        let entry = Entry {
            id: self.last,
            key: letter.key.clone(),
            attempts: letter.attempts,
            alone: letter.alone,
            ready_at: letter.ready_at_ms,
        };
        self.rows.insert(letter.id.clone(), self.last);
        self.held.insert(self.last, held);
        entry
    }

    pub(super) fn get(&self, row: i64) -> Option<&Held> {
        self.held.get(&row)
    }

    pub(super) fn row(&self, id: &str) -> Option<i64> {
        self.rows.get(id).copied()
    }

    /// A message is done, and all that are here with its id.
    pub(super) fn finish(&mut self, row: i64) {
        let Some(held) = self.held.remove(&row) else {
            return;
        };
        self.rows.remove(&held.letter.id);
        let twins = self.twins.remove(&held.letter.id).unwrap_or_default();
        for held in twins.into_iter().chain([held]) {
            if let Some(part) = self.parts.get_mut(&held.at.partition) {
                part.mark.finish(held.at.offset);
                part.version += 1;
            }
        }
    }

    /// A message is to be handled again.
    pub(super) fn retry(&mut self, row: i64, tried: Tried) {
        let Some(held) = self.held.get_mut(&row) else {
            return;
        };
        let letter = &mut held.letter;
        (letter.attempts, letter.alone) = (tried.attempts, tried.alone);
        letter.ready_at_ms = tried.ready_at_ms;
        if let Some(part) = self.parts.get_mut(&held.at.partition) {
            part.mark.retry(held.at.offset, tried);
            part.version += 1;
            held.version = part.version;
        }
    }

    /// Deletes what was not read of a partition up to `end`; returns how many messages that may have been.
    pub(super) fn skip(&mut self, partition: i32, end: i64) -> u64 {
        let Some(part) = self.parts.get_mut(&partition) else {
            return 0;
        };
        let count = part.mark.unread(end);
        part.mark.skip(end);
        part.skip_to = part.skip_to.max(end);
        part.version += 1;
        count
    }

    /// Tells whether the tries of a message are written down as they are known here.
    pub(super) fn is_saved(&self, row: i64) -> bool {
        self.held.get(&row).is_none_or(|held| {
            let part = self.parts.get(&held.at.partition);
            part.is_none_or(|part| part.saved >= held.version)
        })
    }

    /// Tells whether something is to be committed.
    pub(super) fn has_changed(&self) -> bool {
        self.parts.values().any(|part| part.version > part.saved)
    }

    /// Returns what is to be committed of these partitions, or of those of which something is.
    pub(super) fn commits(&self, of: Option<&[i32]>) -> Vec<Commit> {
        let is_wanted = |(partition, part): &(&i32, &Part)| match of {
            Some(of) => of.contains(partition),
            None => part.version > part.saved,
        };
        let commit = |(&partition, part): (&i32, &Part)| Commit {
            partition,
            offset: part.mark.low(),
            note: part.mark.note(),
            version: part.version,
        };
        self.parts.iter().filter(is_wanted).map(commit).collect()
    }

    /// These were committed.
    pub(super) fn saved(&mut self, commits: &[Commit]) {
        for commit in commits {
            if let Some(part) = self.parts.get_mut(&commit.partition) {
                part.saved = part.saved.max(commit.version);
            }
        }
    }

    /// Partitions are somebody else's now. Returns the messages of others that waited for those that are gone.
    pub(super) fn lose(&mut self, partitions: &[i32]) -> Vec<Entry> {
        let is_gone = |held: &Held| partitions.contains(&held.at.partition);
        self.parts.retain(|it, _| !partitions.contains(it));
        for twins in self.twins.values_mut() {
            twins.retain(|held| !is_gone(held));
        }
        let gone: Vec<Held> = self
            .held
            .extract_if(|_, held| is_gone(held))
            .map(|it| it.1)
            .collect();
        let mut entries = Vec::new();
        for held in gone {
            self.rows.remove(&held.letter.id);
            let mut twins = self.twins.remove(&held.letter.id).unwrap_or_default();
            if twins.is_empty() {
                continue;
            }
            let first = twins.remove(0);
            let id = first.letter.id.clone();
            entries.push(self.insert(first));
            self.twins.insert(id, twins);
        }
        self.twins.retain(|_, twins| !twins.is_empty());
        entries
    }

    /// Returns how many messages of a partition are here, and how many bytes.
    pub(super) fn load(&self, partition: i32) -> (usize, usize) {
        let waiting = self.parts.get(&partition).map(|part| &part.waiting);
        let waiting = waiting.into_iter().flatten().map(|(_, letter)| letter);
        let held = self.held.values().chain(self.twins.values().flatten());
        let held = held.filter(|held| held.at.partition == partition);
        let all = held.map(|held| &held.letter).chain(waiting);
        all.fold((0, 0), |(count, bytes), letter| {
            (count + 1, bytes + letter.body.len())
        })
    }

    /// Returns the oldest, in the order in which they came.
    pub(super) fn oldest(&self, queue: &str, count: usize) -> Vec<StoredMessage> {
        let mut rows: Vec<i64> = self.held.keys().copied().collect();
        rows.sort_unstable();
        let rows = rows.into_iter().take(count);
        rows.filter_map(|row| self.stored(row, queue)).collect()
    }

    /// Returns when the oldest was sent.
    pub(super) fn oldest_sent_ms(&self) -> Option<u64> {
        self.held.values().map(|held| held.letter.sent_at_ms).min()
    }

    /// Returns one as the desk knows messages.
    pub(super) fn stored(&self, row: i64, queue: &str) -> Option<StoredMessage> {
        let held = self.held.get(&row)?;
        Some(held.letter.clone().stored(row, queue))
    }
}
