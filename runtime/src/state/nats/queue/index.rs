//! What is known of the messages of the shards that are held here: all but what is in them.
//!
//! A message's number in the stream is its id here. Outside it has another one, which it keeps as a dead letter and after:
//! of a stream that lost its last messages the numbers begin again.

use std::collections::HashMap;

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) shard: u8,
    pub(super) key: Option<String>,
    /// Its id outside, unless somebody else than wrun has sent it.
    pub(super) outside: Option<i64>,
    /// When it was taken, in nanoseconds since 1970.
    pub(super) at_ns: u64,
    pub(super) sent_at_ms: u64,
    /// Whether it is written how often it was tried.
    pub(super) has_tries: bool,
}

#[derive(Default)]
pub(super) struct Index {
    rows: HashMap<i64, Row>,
    by_outside: HashMap<i64, i64>,
}

impl Index {
    /// Adds a message; one that is here already stays as it is.
    pub(super) fn add(&mut self, id: i64, row: Row) {
        if self.rows.contains_key(&id) {
            return;
        }
        if let Some(outside) = row.outside {
            self.by_outside.insert(outside, id);
        }
        self.rows.insert(id, row);
    }

    pub(super) fn get(&self, id: i64) -> Option<&Row> {
        self.rows.get(&id)
    }

    pub(super) fn is_tried(&mut self, id: i64) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.has_tries = true;
        }
    }

    pub(super) fn remove(&mut self, id: i64) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        if let Some(outside) = row.outside {
            // Unless it was sent back, and is another message by now.
            if self.by_outside.get(&outside) == Some(&id) {
                self.by_outside.remove(&outside);
            }
        }
        Some(row)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the messages of a shard.
    pub(super) fn forget(&mut self, shard: u8) {
        let of_it = |(id, row): (&i64, &Row)| (row.shard == shard).then_some(*id);
        let ids: Vec<i64> = self.rows.iter().filter_map(of_it).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Tells whether one of these messages is of a shard.
    pub(super) fn has(&self, shard: u8, ids: &[i64]) -> bool {
        ids.iter()
            .any(|id| self.rows.get(id).is_some_and(|row| row.shard == shard))
    }

    pub(super) fn outside(&self, id: i64) -> i64 {
        self.rows.get(&id).and_then(|row| row.outside).unwrap_or(id)
    }

    pub(super) fn inside(&self, outside: i64) -> Option<i64> {
        let named = self.by_outside.get(&outside).copied();
        named.or_else(|| {
            let row = self.rows.get(&outside)?;
            row.outside.is_none().then_some(outside)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shard: u8, outside: Option<i64>) -> Row {
        Row {
            shard,
            key: None,
            outside,
            at_ns: 0,
            sent_at_ms: 0,
            has_tries: false,
        }
    }

    #[test]
    fn message_is_found_by_the_id_that_it_has_outside_and_by_no_other() {
        let mut index = Index::default();
        index.add(1, row(0, Some(100)));
        index.add(2, row(1, None));
        assert_eq!((index.outside(1), index.outside(2)), (100, 2));
        assert_eq!((index.inside(100), index.inside(2)), (Some(1), Some(2)));
        assert_eq!((index.inside(1), index.inside(3)), (None, None));
        // Sent back before what became of it is forgotten.
        index.add(3, row(0, Some(100)));
        index.remove(1);
        assert_eq!(index.inside(100), Some(3));
        index.forget(1);
        assert_eq!((index.inside(2), index.has(1, &[2])), (None, false));
        assert!(index.has(0, &[2, 3]));
    }
}
