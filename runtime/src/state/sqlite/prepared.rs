//! Guests' statements as SQLite holds them, kept so that each is prepared once.

use super::convert::Kind;
use crate::state::db::Column;
use rusqlite::StatementStatus;
use std::collections::HashMap;
use std::rc::Rc;

/// Prepared statements that a connection keeps.
const KEPT: usize = 128;

/// A guest's statement as SQLite holds it.
pub(super) struct Prepared<'c> {
    /// As the guest wrote it.
    pub(super) text: Rc<str>,
    /// It ended with `FOR UPDATE` or the like.
    pub(super) locks: bool,
    pub(super) sqlite: rusqlite::Statement<'c>,
    pub(super) shape: Shape,
}

/// The columns of a statement.
#[derive(Default)]
pub(super) struct Shape {
    pub(super) columns: Vec<Column>,
    pub(super) kinds: Vec<Kind>,
    /// How often SQLite had prepared the statement again by itself.
    prepared_again: i32,
}

impl Shape {
    pub(super) fn of(statement: &rusqlite::Statement<'_>) -> Self {
        let mut shape = Self::default();
        shape.read(statement);
        shape
    }

    /// Reads the columns again if the schema has changed since.
    pub(super) fn refresh(&mut self, statement: &rusqlite::Statement<'_>) {
        if statement.get_status(StatementStatus::RePrepare) != self.prepared_again {
            self.read(statement);
        }
    }

    fn read(&mut self, statement: &rusqlite::Statement<'_>) {
        self.columns.clear();
        self.kinds.clear();
        for (at, name) in statement.column_names().enumerate() {
            // It fails for a column of a view's or a subquery's own: that has no declared type.
            let declared = match statement.column_metadata(at) {
                Ok(Some((_, _, _, Some(declared), ..))) => declared.to_string_lossy().into_owned(),
                _ => String::new(),
            };
            self.kinds.push(Kind::of(&declared));
            self.columns.push(Column {
                name: name.to_owned(),
                type_name: declared,
            });
        }
        self.prepared_again = statement.get_status(StatementStatus::RePrepare);
    }
}

/// Prepared statements by their text; those in use are not among them.
#[derive(Default)]
pub(super) struct Kept<'c> {
    by_text: HashMap<Rc<str>, (Prepared<'c>, u64)>,
    /// Counts up with every use.
    uses: u64,
}

impl<'c> Kept<'c> {
    pub(super) fn take(&mut self, text: &str) -> Option<Prepared<'c>> {
        self.by_text.remove(text).map(|(prepared, _)| prepared)
    }

    pub(super) fn put(&mut self, prepared: Prepared<'c>) {
        if self.by_text.len() >= KEPT {
            let oldest = self.by_text.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(text) = oldest.map(|(text, _)| Rc::clone(text)) {
                self.by_text.remove(&text);
            }
        }
        self.uses += 1;
        self.by_text
            .insert(Rc::clone(&prepared.text), (prepared, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare<'c>(connection: &'c rusqlite::Connection, number: usize) -> Prepared<'c> {
        let text = format!("SELECT {number}");
        let sqlite = connection.prepare(&text).unwrap();
        Prepared {
            text: text.into(),
            locks: false,
            shape: Shape::of(&sqlite),
            sqlite,
        }
    }

    #[test]
    fn statement_that_was_not_used_for_longest_goes_first() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut kept = Kept::default();
        for number in 0..KEPT {
            kept.put(prepare(&connection, number));
        }
        let used = kept.take("SELECT 0").unwrap();
        kept.put(used);
        kept.put(prepare(&connection, KEPT));
        assert!(kept.take("SELECT 1").is_none());
        assert!(kept.take("SELECT 0").is_some());
        assert!(kept.take(&format!("SELECT {KEPT}")).is_some());
    }
}
