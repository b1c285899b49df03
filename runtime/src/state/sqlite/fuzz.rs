//! Statements that a fuzzer chooses, run as a guest's: none may read or change what is the engine's own, touch another file,
//! or leave its transaction.

use super::connection::{Connection, Role};
use super::statement::{Rules, Statements};
use super::{Options, tokens};
use crate::config::shared::Durability;
use crate::state::db::{RESULT_MAX, Statement, Step, Value, Want};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than what a fuzzer should spend on a statement, and shorter than what it calls hanging.
const TIME_MAX: Duration = Duration::from_millis(200);

/// A database with something that guests must not see.
struct Ground {
    statements: Statements<'static>,
    folder: TempDir,
    secret: String,
}

impl Ground {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder can be made");
        // What is attached by a relative name, or written there, is found beside the database.
        std::env::set_current_dir(&folder).expect("the folder can be entered");
        let options = Options {
            path: folder.path().join("default.db"),
            label: "default".to_owned(),
            max_size: 1 << 24,
            durability: Durability::Relaxed,
            vfs: None,
            sync: None,
            fatal: Arc::new(|why| panic!("{why}")),
            queues: BTreeMap::new(),
        };
        let connection = Connection::open(&options, Role::Writer).expect("a database can be made");
        // For the rest of the process, as its statements are.
        let statements = Statements::new(Box::leak(Box::new(connection)));
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).expect("there is randomness");
        let secret = format!("{:032x}", u128::from_le_bytes(secret));
        for sql in [
            "CREATE TABLE _wrun_secret (text TEXT NOT NULL)",
            "CREATE TABLE stock (item TEXT PRIMARY KEY, remaining INTEGER NOT NULL, at TIMESTAMP, paid BOOLEAN)",
            "INSERT INTO stock VALUES ('ticket', 100, CURRENT_TIMESTAMP, 1)",
        ] {
            statements.execute(sql, []).expect("the engine may do so");
        }
        let sql = "INSERT INTO _wrun_secret VALUES (?1)";
        statements
            .execute(sql, [&secret])
            .expect("the engine may do so");
        Self {
            statements,
            folder,
            secret,
        }
    }

    fn run(&self, sql: &str) {
        let sqlite = &self.statements.connection.sqlite;
        self.statements
            .execute("BEGIN IMMEDIATE", [])
            .expect("a transaction begins");
        let statement = Statement {
            sql: sql.to_owned(),
            params: Vec::new(),
        };
        let rules = Rules {
            read_only: false,
            deadline: Instant::now() + TIME_MAX,
        };
        let step = self
            .statements
            .run(&statement, Want::Either, rules, &mut { RESULT_MAX });
        if let Ok(Step::Rows(rows)) = step {
            let mut values = rows.rows.iter().flatten();
            assert!(!values.any(|value| self.is_secret(value)), "{sql}");
        }
        if !sqlite.is_autocommit() {
            self.statements
                .execute("ROLLBACK", [])
                .expect("a transaction can be undone");
        }
        let kept = self
            .statements
            .own("SELECT text FROM _wrun_secret")
            .and_then(|mut own| {
                own.query_one([], |row| row.get(0))
                    .map_err(|error| self.statements.error(&error))
            });
        assert_eq!(kept.as_ref(), Ok(&self.secret), "{sql}");
        assert_eq!(strangers(self.folder.path()), Vec::<String>::new(), "{sql}");
    }

    fn is_secret(&self, value: &Value) -> bool {
        match value {
            Value::Text(text) | Value::Json(text) | Value::Decimal(text) => {
                text.contains(&self.secret)
            }
            Value::Blob(bytes) => bytes
                .windows(self.secret.len())
                .any(|part| part == self.secret.as_bytes()),
            _ => false,
        }
    }
}

/// Returns the files that are none of the database's.
fn strangers(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("the folder is there");
    files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with("default.db"))
        .collect()
}

/// Reads, and if it is one runs, a statement.
pub(crate) fn fuzz(bytes: &[u8]) {
    thread_local! {
        static GROUND: Ground = Ground::new();
    }
    let Ok(sql) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = tokens::looks_like_read(sql);
    let _ = tokens::check_names(sql);
    if tokens::parse(sql).is_ok() {
        GROUND.with(|ground| ground.run(sql));
    }
}
