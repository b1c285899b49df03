//! What a guest's statement may do, decided while SQLite prepares it.
//!
//! SQLite asks about every table, function and pragma that a statement names, also by way of a view or a trigger. The
//! engine's own statements are let through: the connection says whose statement is next.

use super::tokens::is_own_name;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Pragmas that only tell of the schema.
const PRAGMAS: [&str; 6] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "foreign_key_list",
];

/// Functions that reach out of the database.
const FUNCTIONS: [&str; 2] = ["load_extension", "fts3_tokenizer"];

/// Whose statement a connection prepares, and why it was refused.
#[derive(Debug, Default)]
pub(super) struct Gate {
    guest: AtomicBool,
    /// The statement drops or alters a table: SQLite then writes to its own tables on its behalf.
    definition: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Gate {
    /// From now on it is a guest that speaks, or the engine.
    pub(super) fn set_guest(&self, guest: bool) {
        // One thread uses a connection, and SQLite asks on that thread.
        self.guest.store(guest, Ordering::Relaxed);
        self.definition.store(false, Ordering::Relaxed);
    }

    /// Returns why the last statement was refused.
    pub(super) fn take_reason(&self) -> Option<String> {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Answers SQLite.
    pub(super) fn decide(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.guest.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        if matches!(
            context.action,
            AuthAction::DropTable { .. } | AuthAction::AlterTable { .. }
        ) {
            self.definition.store(true, Ordering::Relaxed);
        }
        let verdict = match context.database_name {
            // Written `temp.x` it counts as any other.
            Some("temp") if is_creation(&context.action) => deny("TEMP"),
            _ => verdict(&context.action, self.definition.load(Ordering::Relaxed)),
        };
        match verdict {
            Verdict::Allow => Authorization::Allow,
            Verdict::PassOver => Authorization::Ignore,
            Verdict::Deny(reason) => {
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    Allow,
    /// The statement goes on without this part.
    PassOver,
    Deny(String),
}

fn deny(what: &str) -> Verdict {
    Verdict::Deny(format!("{what} is not for guests"))
}

fn is_creation(action: &AuthAction<'_>) -> bool {
    matches!(
        action,
        AuthAction::CreateTable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateView { .. }
    )
}

fn verdict(action: &AuthAction<'_>, definition: bool) -> Verdict {
    match *action {
        AuthAction::Attach { .. } => deny("ATTACH"),
        AuthAction::Detach { .. } => deny("DETACH"),
        AuthAction::Transaction { .. } => deny("BEGIN, COMMIT or ROLLBACK as text"),
        AuthAction::Savepoint { .. } => deny("SAVEPOINT or RELEASE as text"),
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => deny("TEMP"),
        AuthAction::CreateVtable { .. } | AuthAction::DropVtable { .. } => deny("VIRTUAL TABLE"),
        AuthAction::Unknown { code, .. } => deny(&format!("action {code}")),
        AuthAction::Function { function_name } if contains(&FUNCTIONS, function_name) => {
            deny(&format!("{function_name}()"))
        }
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => pragma(pragma_name, pragma_value),
        // Both walk over all tables when they name none.
        AuthAction::Analyze { table_name: name } | AuthAction::Reindex { index_name: name }
            if is_own_name(name) || name.starts_with("sqlite_autoindex__wrun_") =>
        {
            Verdict::PassOver
        }
        // It holds the row ids that must never come again, those of messages among them.
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
            if table_name.eq_ignore_ascii_case("sqlite_sequence") && !definition =>
        {
            deny("writing to sqlite_sequence")
        }
        _ => names(action),
    }
}

/// Refuses what names a table of the engine's own.
fn names(action: &AuthAction<'_>) -> Verdict {
    let (name, other) = match *action {
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => (table_name, ""),
        AuthAction::CreateIndex {
            index_name: name,
            table_name,
        }
        | AuthAction::DropIndex {
            index_name: name,
            table_name,
        }
        | AuthAction::CreateTrigger {
            trigger_name: name,
            table_name,
        }
        | AuthAction::DropTrigger {
            trigger_name: name,
            table_name,
        } => (name, table_name),
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => {
            (view_name, "")
        }
        _ => ("", ""),
    };
    match [name, other].into_iter().find(|name| is_own_name(name)) {
        Some(name) => deny(name),
        None => Verdict::Allow,
    }
}

fn pragma(name: &str, value: Option<&str>) -> Verdict {
    if !contains(&PRAGMAS, name) {
        return Verdict::Deny(format!(
            "PRAGMA {name} is not for guests, who have {}",
            PRAGMAS.join(", ")
        ));
    }
    match value {
        Some(value) if is_own_name(value) => deny(value),
        _ => Verdict::Allow,
    }
}

fn contains(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| entry.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::sync::Arc;

    fn connection() -> (Connection, Arc<Gate>) {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE _wrun_meta (key TEXT PRIMARY KEY, value);
                 CREATE INDEX _wrun_i ON _wrun_meta (value);
                 CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE, b REFERENCES t (id));
                 CREATE VIEW v AS SELECT a FROM t;",
            )
            .unwrap();
        let gate = Arc::new(Gate::default());
        let asked = Arc::clone(&gate);
        connection
            .authorizer(Some(move |context: AuthContext<'_>| asked.decide(&context)))
            .unwrap();
        (connection, gate)
    }

    #[test]
    fn guests_may_not_leave_their_database_or_touch_the_engines_tables() {
        let (connection, gate) = connection();
        for sql in [
            "ATTACH 'x' AS y",
            "DETACH y",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT s",
            "RELEASE s",
            "SELECT load_extension('x')",
            "SELECT fts3_tokenizer('x')",
            "PRAGMA journal_mode",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous = OFF",
            "PRAGMA writable_schema = ON",
            "PRAGMA mmap_size = 1",
            "PRAGMA foreign_keys = OFF",
            "PRAGMA query_only = OFF",
            "PRAGMA wal_checkpoint",
            "PRAGMA data_version",
            "PRAGMA optimize",
            "PRAGMA table_info(_wrun_meta)",
            "CREATE TEMP TABLE x (a)",
            "CREATE TABLE temp.x (a)",
            "CREATE VIEW temp.x AS SELECT 1",
            "CREATE TEMP VIEW x AS SELECT 1",
            "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE VIRTUAL TABLE x USING fts5 (a)",
            "CREATE VIRTUAL TABLE x USING rtree (a, b, c)",
            "SELECT * FROM _wrun_meta",
            "SELECT count(*) FROM _wrun_meta",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM \"_WRUN_meta\")",
            "INSERT INTO _wrun_meta VALUES ('a', 1)",
            "INSERT INTO t (a) SELECT value FROM _wrun_meta",
            "UPDATE _wrun_meta SET value = 1",
            "DELETE FROM _wrun_meta",
            "DROP TABLE _wrun_meta",
            "DROP INDEX _wrun_i",
            "ALTER TABLE _wrun_meta ADD COLUMN x",
            "CREATE TABLE _wrun_x (a)",
            "CREATE INDEX x ON _wrun_meta (value)",
            "CREATE TRIGGER x AFTER INSERT ON _wrun_meta BEGIN SELECT 1; END",
            "CREATE TRIGGER _wrun_x AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE VIEW _wrun_v AS SELECT 1",
            "UPDATE sqlite_sequence SET seq = 0",
            "DELETE FROM sqlite_sequence",
        ] {
            gate.set_guest(true);
            let prepared = connection.prepare(sql).map(drop);
            assert!(gate.take_reason().is_some(), "{sql}: {prepared:?}");
        }
    }

    #[test]
    fn guests_may_do_everything_else() {
        let (connection, gate) = connection();
        for sql in [
            "SELECT a FROM v",
            "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 3) SELECT sum(n) FROM r",
            "SELECT name FROM sqlite_schema",
            "SELECT seq FROM sqlite_sequence",
            "SELECT value FROM json_each('[1]')",
            "SELECT abs(1), upper('a'), randomblob(4), row_number() OVER () FROM t",
            "PRAGMA table_info(t)",
            "PRAGMA table_xinfo(t)",
            "PRAGMA table_list",
            "PRAGMA index_list(t)",
            "PRAGMA index_info(sqlite_autoindex_t_1)",
            "PRAGMA foreign_key_list(t)",
            "SELECT name FROM pragma_table_info('t')",
            "EXPLAIN QUERY PLAN SELECT * FROM t",
            "INSERT INTO t (a) VALUES (1) RETURNING id",
            "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
            "UPDATE t SET a = a",
            "CREATE TABLE u (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b AS (a + 1), CHECK (a > 0))",
            "CREATE TABLE w AS SELECT 1 AS a",
            "CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET a = 1; END",
            "ALTER TABLE u ADD COLUMN c",
            "ALTER TABLE u RENAME COLUMN c TO d",
            "ALTER TABLE u DROP COLUMN d",
            "ALTER TABLE u RENAME TO x",
            "CREATE INDEX i ON t (b)",
            "ANALYZE",
            "REINDEX",
            "DROP INDEX i",
            "DROP TRIGGER tr",
            "DROP VIEW v",
            "DROP TABLE x",
            "DELETE FROM t",
        ] {
            gate.set_guest(true);
            let done = connection.prepare(sql).and_then(|mut statement| {
                let mut rows = statement.raw_query();
                while rows.next()?.is_some() {}
                Ok(())
            });
            assert_eq!(done, Ok(()), "{sql}: {:?}", gate.take_reason());
        }
    }

    #[test]
    fn schema_table_cannot_be_written() {
        let (connection, _gate) = connection();
        for sql in [
            "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, '')",
            "UPDATE sqlite_master SET sql = ''",
            "DELETE FROM sqlite_schema",
            "DROP TABLE sqlite_schema",
        ] {
            assert!(connection.prepare(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn engines_statements_are_not_asked_about() {
        let (connection, _gate) = connection();
        connection
            .execute_batch("BEGIN; INSERT INTO _wrun_meta VALUES ('a', 1); COMMIT")
            .unwrap();
    }
}
