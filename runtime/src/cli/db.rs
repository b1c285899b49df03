//! `wrun db`: what databases there are, and what is in them.

use super::print::print_as;
use super::state::{ask, unexpected};
use super::table::{bytes, millis, table};
use super::value::{Object, cell};
use super::{JsonArgs, ServerArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::db::{Done, Rows, Statement, Step, Value};
use crate::state::protocol::{DatabaseStatus, OperatorCall, Reply};
use clap::Subcommand;
use serde::{Serialize, Serializer};
use std::path::Path;

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// List the databases
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Run one statement, in a transaction of its own
    Query {
        /// The database
        label: String,
        /// The statement; `?` or `?1` stands for a parameter
        sql: String,
        /// The parameters, as texts: a column turns them into its own type
        #[arg(allow_negative_numbers = true)]
        params: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
}

pub(super) fn run(command: DbCommand) -> Result<ExitCode, Failure> {
    match command {
        DbCommand::Ls { server, json } => list(&server.state, json.json),
        DbCommand::Query {
            label,
            sql,
            params,
            server,
            json,
        } => {
            let params = params.into_iter().map(Value::Text).collect();
            query(&server.state, label, Statement { sql, params }, json.json)
        }
    }
}

fn list(folder: &Path, json: bool) -> Result<ExitCode, Failure> {
    match ask(folder, OperatorCall::Databases)? {
        Reply::Databases(databases) => print_as(json, &databases, |databases| overview(databases)),
        reply => Err(unexpected(&reply)),
    }
}

fn overview(databases: &[DatabaseStatus]) -> String {
    let header = [
        "DATABASE",
        "DIALECT",
        "SIZE",
        "WAL",
        "COMMITS",
        "SYNCS",
        "LONGEST-WRITE",
    ];
    let row = |database: &DatabaseStatus| {
        vec![
            database.db.clone(),
            database.dialect.clone(),
            bytes(database.bytes),
            bytes(database.wal_bytes),
            database.commits.to_string(),
            database.syncs.to_string(),
            millis(database.writer_held_max_ms),
        ]
    };
    table(&header, databases.iter().map(row))
}

fn query(folder: &Path, db: String, statement: Statement, json: bool) -> Result<ExitCode, Failure> {
    match ask(folder, OperatorCall::Query { db, statement })? {
        Reply::Steps(mut steps) if steps.len() == 1 => match steps.remove(0) {
            Step::Rows(rows) => print_as(json, &Objects(rows), |Objects(rows)| cells(rows)),
            Step::Done(Done { affected, last_id }) => {
                print_as(json, &Effect { affected, last_id }, |_| match affected {
                    1 => "1 row changed\n".to_owned(),
                    _ => format!("{affected} rows changed\n"),
                })
            }
        },
        reply => Err(unexpected(&reply)),
    }
}

fn cells(rows: &Rows) -> String {
    let names: Vec<&str> = rows
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let row = |row: &Vec<Value>| row.iter().map(cell).collect();
    table(&names, rows.rows.iter().map(row))
}

/// What a statement without rows prints as JSON.
#[derive(Serialize)]
struct Effect {
    affected: u64,
    /// The row id of the last row that was inserted.
    last_id: Option<i64>,
}

/// Rows as an array of objects.
struct Objects(Rows);

impl Serialize for Objects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Rows { columns, rows } = &self.0;
        serializer.collect_seq(rows.iter().map(|row| Object { columns, row }))
    }
}
