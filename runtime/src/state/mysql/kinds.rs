//! What kind of values a column has, where the protocol does not say it: for MariaDB a UUID is a text of 36 characters, and
//! JSON a long text. Its catalogue knows better, and is asked once in a while.

use crate::state::remote::Fault;
use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Column, Conn};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The character set of what is no text.
pub(super) const BINARY: u16 = 63;

/// How long a table is taken to have the columns that it had.
const FRESH: Duration = Duration::from_secs(60);

/// Tables whose columns are remembered.
const TABLES_MAX: usize = 256;

/// What a column's text is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Special {
    Uuid,
    Json,
    /// A type that `wrun:db` does not know, by name.
    Other(String),
}

/// Columns by their names.
type Columns = HashMap<String, Special>;

/// What is known of tables, by their schemas and names.
#[derive(Default)]
pub(super) struct Kinds(RefCell<HashMap<(String, String), (Columns, Instant)>>);

impl Kinds {
    /// Returns what is special about each of these columns.
    pub(super) async fn of(
        &self,
        columns: &[Column],
        conn: &mut Conn,
    ) -> Result<Vec<Option<Special>>, Fault> {
        let mut special = vec![None; columns.len()];
        for (column, special) in columns.iter().zip(&mut special) {
            if !may_be_special(column) {
                continue;
            }
            let table = (
                column.schema_str().into_owned(),
                column.org_table_str().into_owned(),
            );
            if !self.knows(&table) {
                let found = look_up(&table.0, &table.1, conn).await?;
                let mut tables = self.0.borrow_mut();
                if tables.len() >= TABLES_MAX {
                    tables.clear();
                }
                tables.insert(table.clone(), (found, Instant::now()));
            }
            let tables = self.0.borrow();
            let known = tables.get(&table);
            *special = known.and_then(|(known, _)| known.get(&*column.org_name_str()).cloned());
        }
        Ok(special)
    }

    /// Forgets all tables: one may have been changed.
    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }

    fn knows(&self, table: &(String, String)) -> bool {
        let tables = self.0.borrow();
        tables
            .get(table)
            .is_some_and(|(_, since)| since.elapsed() < FRESH)
    }
}

/// Tells whether a column of this form may be one of a special kind.
fn may_be_special(column: &Column) -> bool {
    let is_text = column.character_set() != BINARY;
    let is_of_table = !column.org_table_ref().is_empty();
    let is_long = matches!(
        column.column_type(),
        ColumnType::MYSQL_TYPE_BLOB | ColumnType::MYSQL_TYPE_LONG_BLOB
    );
    let is_fixed = column.column_type() == ColumnType::MYSQL_TYPE_STRING;
    is_of_table && (is_fixed || is_text && is_long)
}

async fn look_up(schema: &str, table: &str, conn: &mut Conn) -> Result<Columns, Fault> {
    let place = format!(
        "TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        text(schema),
        text(table)
    );
    let types = format!(
        "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE {place} AND DATA_TYPE IN ('uuid', 'inet4', 'inet6')"
    );
    let found: Vec<(String, String)> = conn.query(types).await?;
    let mut columns: Columns = found
        .into_iter()
        .map(|(column, name)| match name.as_str() {
            "uuid" => (column, Special::Uuid),
            _ => (column, Special::Other(name)),
        })
        .collect();
    let place = place.replace("TABLE_SCHEMA", "CONSTRAINT_SCHEMA");
    let json = format!(
        "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE {place} AND LEVEL = 'Column'"
    );
    let found: Vec<(String, String)> = conn.query(json).await?;
    for (column, clause) in found {
        if clause == format!("json_valid(`{column}`)") {
            columns.insert(column, Special::Json);
        }
    }
    Ok(columns)
}

/// Returns a text as a literal, whatever is in it.
pub(super) fn text(text: &str) -> String {
    format!("CONVERT({} USING utf8mb4)", bytes(text.as_bytes()))
}

/// Returns bytes as a literal.
pub(super) fn bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut literal = "X'".to_owned();
    for byte in bytes {
        // Writing to a string never fails.
        let _ = write!(literal, "{byte:02x}");
    }
    literal + "'"
}
