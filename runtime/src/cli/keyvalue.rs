//! `wrun keyvalue`: which keys a key-value store has, and what they hold.

use super::print::{print, print_as};
use super::state::{ask, unexpected};
use super::table::{bytes, table};
use super::value::hex;
use super::{JsonArgs, ServerArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::db::{Row, Statement, Step};
use crate::state::keyvalue;
use crate::state::protocol::{OperatorCall, Reply};
use clap::Subcommand;
use serde::Serialize;
use std::path::Path;

#[derive(Debug, Subcommand)]
pub(super) enum KeyvalueCommand {
    /// List the keys of a store
    Ls {
        /// The store
        label: String,
        /// Only the keys that begin with this
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        prefix: String,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Print the value of a key as it is
    Get {
        /// The store
        label: String,
        /// The key
        key: String,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
}

/// A key as it is listed.
#[derive(Serialize)]
struct Listed {
    key: String,
    bytes: usize,
}

/// A key and its value as JSON: a text, or hexadecimal if it is none.
#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: String,
}

pub(super) fn run(command: KeyvalueCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyvalueCommand::Ls {
            label,
            prefix,
            server,
            json,
        } => {
            let keys = list(&server.state, &label, &prefix)?;
            print_as(json.json, &keys, |keys| overview(keys))
        }
        KeyvalueCommand::Get {
            label,
            key,
            server,
            json,
        } => get(&server.state, &label, &key, json.json),
    }
}

fn list(folder: &Path, label: &str, prefix: &str) -> Result<Vec<Listed>, Failure> {
    let mut keys = Vec::new();
    let mut from = prefix.to_owned();
    loop {
        let page = query(folder, label, keyvalue::sizes(&from))?;
        let is_last = page.len() < keyvalue::KEYS_MAX;
        for row in page {
            let (key, bytes) = keyvalue::sized(row).ok_or_else(|| unfit(label))?;
            if !key.starts_with(prefix) {
                return Ok(keys);
            }
            keys.push(Listed { key, bytes });
        }
        match keys.last() {
            // The least key that is greater: none has a NUL.
            Some(last) if !is_last => from = format!("{}\u{1}", last.key),
            _ => return Ok(keys),
        }
    }
}

fn overview(keys: &[Listed]) -> String {
    let row = |listed: &Listed| vec![listed.key.clone(), bytes(listed.bytes as u64)];
    table(&["KEY", "SIZE"], keys.iter().map(row))
}

fn get(folder: &Path, label: &str, key: &str, json: bool) -> Result<ExitCode, Failure> {
    let row = query(folder, label, keyvalue::reading(key))?.pop();
    let row = row.ok_or_else(|| {
        Failure::new(
            ExitCode::NoInput,
            format!("store {label} has no key {key:?}"),
        )
        .hint(format!("`wrun keyvalue ls {label}` lists the keys"))
    })?;
    let value = keyvalue::value(row).ok_or_else(|| unfit(label))?;
    if !json {
        return print(&value);
    }
    let value = String::from_utf8(value).unwrap_or_else(|error| hex(error.as_bytes()));
    print_as(true, &Pair { key, value }, |_| String::new())
}

fn query(folder: &Path, label: &str, statement: Statement) -> Result<Vec<Row>, Failure> {
    let db = keyvalue::database(label);
    match ask(folder, OperatorCall::Query { db, statement })? {
        Reply::Steps(mut steps) if steps.len() == 1 => match steps.remove(0) {
            Step::Rows(rows) => Ok(rows.rows),
            Step::Done(_) => Err(unfit(label)),
        },
        reply => Err(unexpected(&reply)),
    }
}

fn unfit(label: &str) -> Failure {
    Failure::new(
        ExitCode::Internal,
        format!("store {label} holds what this version of wrun does not know"),
    )
    .hint("is the server another version of wrun?")
}
