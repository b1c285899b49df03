//! What users know of a database, and whether a file holds true to it.
//!
//! Every transaction of a guest adds one row to `ledger`, whose `seq` counts up: so what is there has to be the first
//! transactions, in the order of their commits, without a gap, each with all that it did.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

/// A transaction, or messages that were sent together: who did it, and the how manieth it was of theirs.
pub(super) type Id = (i64, i64);

/// The tables that the check reads.
pub(super) const TABLES: [&str; 2] = [
    "CREATE TABLE ledger (seq INTEGER PRIMARY KEY, who INTEGER, number INTEGER, parts INTEGER, messages INTEGER,
         gone INTEGER DEFAULT 0, UNIQUE (who, number))",
    "CREATE TABLE part (who INTEGER, number INTEGER, part INTEGER, size INTEGER, filler BLOB,
         PRIMARY KEY (who, number, part))",
];

/// Something that a user was told, or has begun to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fact {
    Committed(Id),
    /// So many messages.
    Sent(Id, i64),
    /// From now on one of these messages may be gone.
    Removing(Id, i64),
    /// Fencing tokens up to this one.
    Reserved(i64),
}

/// All that users know.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    committed: BTreeSet<Id>,
    sent: BTreeMap<Id, i64>,
    removing: BTreeSet<(Id, i64)>,
    reserved: i64,
}

/// What a file holds.
#[derive(Debug, Default)]
struct Found {
    /// In the order of their commits.
    ledger: Vec<Entry>,
    parts: BTreeMap<Id, i64>,
    messages: BTreeMap<Id, Messages>,
    reserved: i64,
}

#[derive(Debug)]
struct Entry {
    id: Id,
    parts: i64,
    messages: i64,
    gone: bool,
}

/// Messages that were sent together.
#[derive(Debug, Default)]
struct Messages {
    /// How many there were, and those that are there.
    count: i64,
    indexes: BTreeSet<i64>,
}

/// Returns what a part is filled with.
pub(super) fn filler((who, number): Id, part: i64, size: usize) -> Vec<u8> {
    vec![(who * 7 + number * 31 + part * 101) as u8; size]
}

/// Returns a message's content.
pub(super) fn body((who, number): Id, index: i64, count: i64) -> Vec<u8> {
    format!(
        "{who} {number} {index} {count} {}",
        ".".repeat(number as usize % 300)
    )
    .into_bytes()
}

impl Known {
    pub(super) fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Committed(id) => {
                self.committed.insert(id);
            }
            Fact::Sent(id, count) => {
                self.sent.insert(id, count);
            }
            Fact::Removing(id, index) => {
                self.removing.insert((id, index));
            }
            Fact::Reserved(token) => self.reserved = self.reserved.max(token),
        }
    }

    /// Returns how much that is.
    pub(super) fn len(&self) -> usize {
        self.committed.len() + self.sent.len()
    }

    /// Opens the database in a folder with plain SQLite, and says what is wrong with it.
    pub(super) fn check(&self, path: &Path) -> Result<(), String> {
        let found = read(path).map_err(|error| format!("it cannot be read: {error}"))??;
        found.check()?;
        let there: BTreeSet<_> = found.ledger.iter().map(|entry| entry.id).collect();
        if let Some(lost) = self.committed.difference(&there).next() {
            return Err(format!(
                "the acknowledged transaction {lost:?} is not there"
            ));
        }
        if found.reserved < self.reserved {
            let (found, reserved) = (found.reserved, self.reserved);
            return Err(format!(
                "the reservation of tokens up to {reserved} is not there, only that up to {found}"
            ));
        }
        for (id, &count) in &self.sent {
            if !found.messages.contains_key(id) {
                self.check_messages(*id, count, &Messages::default())?;
            }
        }
        for (id, messages) in &found.messages {
            self.check_messages(*id, messages.count, messages)?;
        }
        for Entry { id, messages, .. } in &found.ledger {
            let count = found.messages.get(id).map_or(0, |found| found.count);
            if count != *messages {
                return Err(format!("{id:?} sent {messages} messages, not {count}"));
            }
        }
        Ok(())
    }

    fn check_messages(&self, id: Id, count: i64, found: &Messages) -> Result<(), String> {
        let is_lost =
            |index: &i64| !found.indexes.contains(index) && !self.removing.contains(&(id, *index));
        match (0..count).find(is_lost) {
            None => Ok(()),
            Some(lost) => Err(format!("message {lost} of {count} of {id:?} is not there")),
        }
    }
}

impl Found {
    fn check(&self) -> Result<(), String> {
        let ids: BTreeSet<_> = self.ledger.iter().map(|entry| entry.id).collect();
        if let Some(stray) = self.parts.keys().find(|id| !ids.contains(id)) {
            return Err(format!("{stray:?} has parts and is not in the ledger"));
        }
        for Entry {
            id, parts, gone, ..
        } in &self.ledger
        {
            let expected = if *gone { 0 } else { *parts };
            let found = self.parts.get(id).copied().unwrap_or(0);
            if found != expected {
                return Err(format!("{id:?} has {found} parts, not {expected}"));
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> rusqlite::Result<Result<Found, String>> {
    let connection = Connection::open(path)?;
    // No shared memory, and no sync at the end: this is quick, and what is in the files stays.
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let verdict =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))?;
    if verdict != "ok" {
        return Ok(Err(format!("integrity check: {verdict}")));
    }
    let mut found = Found::default();
    let count =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('ledger', 'part', '_wrun_message')";
    match connection.query_row(count, [], |row| row.get(0))? {
        3 => {}
        // Its making was cut short, and nobody can know anything.
        0..3 => return Ok(Ok(found)),
        many => return Ok(Err(format!("{many} tables"))),
    }
    found.reserved = connection.query_row(
        "SELECT coalesce(max(value), 0) FROM _wrun_meta WHERE key = 'tokens'",
        [],
        |row| row.get(0),
    )?;
    let read = read_ledger(&connection, &mut found)?
        .and(read_parts(&connection, &mut found)?)
        .and(read_messages(&connection, &mut found)?);
    Ok(read.map(|()| found))
}

fn read_ledger(connection: &Connection, found: &mut Found) -> rusqlite::Result<Result<(), String>> {
    let sql = "SELECT seq, who, number, parts, messages, gone FROM ledger ORDER BY seq";
    each(connection, sql, |row| {
        let seq: i64 = row.get(0)?;
        found.ledger.push(Entry {
            id: (row.get(1)?, row.get(2)?),
            parts: row.get(3)?,
            messages: row.get(4)?,
            gone: row.get(5)?,
        });
        Ok(fault_if(
            seq != found.ledger.len() as i64,
            "the ledger has a gap before",
            &seq,
        ))
    })
}

fn read_parts(connection: &Connection, found: &mut Found) -> rusqlite::Result<Result<(), String>> {
    let sql = "SELECT who, number, part, size, filler FROM part";
    each(connection, sql, |row| {
        let id = (row.get(0)?, row.get(1)?);
        let (part, size) = (row.get(2)?, row.get::<_, i64>(3)?);
        *found.parts.entry(id).or_default() += 1;
        let is_whole = row.get_ref(4)?.as_blob()? == filler(id, part, size as usize);
        Ok(fault_if(!is_whole, "wrong content in a part of", &id))
    })
}

fn read_messages(
    connection: &Connection,
    found: &mut Found,
) -> rusqlite::Result<Result<(), String>> {
    each(connection, "SELECT body FROM _wrun_message", |row| {
        let content = row.get_ref(0)?.as_blob()?;
        let words = str::from_utf8(content).unwrap_or("").split(' ');
        let numbers: Vec<i64> = words.map_while(|word| word.parse().ok()).collect();
        let [who, number, index, count] = numbers[..] else {
            return Ok(Err(format!("wrong content in a message: {content:?}")));
        };
        let id = (who, number);
        let messages = found.messages.entry(id).or_default();
        messages.count = count;
        let is_new = messages.indexes.insert(index);
        let is_whole = is_new && content == body(id, index, count);
        Ok(fault_if(!is_whole, "wrong content in a message of", &id))
    })
}

/// Calls for each row, until a fault is found.
fn each(
    connection: &Connection,
    sql: &str,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Result<(), String>>,
) -> rusqlite::Result<Result<(), String>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Err(fault) = read(row)? {
            return Ok(Err(fault));
        }
    }
    Ok(Ok(()))
}

fn fault_if(is_wrong: bool, what: &str, of: &impl Debug) -> Result<(), String> {
    if is_wrong {
        return Err(format!("{what} {of:?}"));
    }
    Ok(())
}
