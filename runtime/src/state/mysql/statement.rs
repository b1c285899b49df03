//! A guest's statement: prepared once on each connection, run to its end, its rows gathered within their limit.

use super::connection::{Connection, absorb};
use super::convert;
use super::cursor::{self, Query};
use super::tokens::{self, Parsed};
use crate::state::db::{DbError, Done, PARAMS_MAX, RESULT_MAX, Rows, Statement, Step, Want};
use crate::state::remote::{Fault, Then, VALUE_COST, too_large};
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Params};
use std::sync::Arc;

impl Connection {
    /// Has a statement prepared.
    pub(super) async fn prepare(
        &self,
        conn: &mut Conn,
        parsed: &Parsed,
        statement: &Statement,
    ) -> Result<Query, Fault> {
        let (sql, values) = assemble(parsed, statement)?;
        let prepared = conn.prep(sql).await?;
        let columns = prepared.columns();
        let special = match self.is_mariadb {
            true => self.kinds.of(&columns, conn).await?,
            false => vec![None; columns.len()],
        };
        if parsed.leaves_traces {
            self.leaves_traces.set(true);
        }
        let params = match values.is_empty() {
            true => Params::Empty,
            false => Params::Positional(values),
        };
        Ok(Query {
            prepared,
            params,
            special,
        })
    }

    /// Runs it. What it returns is taken off `room`.
    pub(super) async fn perform(
        &self,
        parsed: &Parsed,
        statement: &Statement,
        want: Want,
        room: &mut usize,
    ) -> Result<Step, Fault> {
        self.settle().await;
        let mut conn = self.conn.lock().await;
        let query = self.prepare(&mut conn, parsed, statement).await?;
        let mut result = conn.exec_iter(&query.prepared, query.params).await?;
        let described = result.columns().unwrap_or_else(|| Arc::from([]));
        let wants_rows = want == Want::Rows || want == Want::Either && !described.is_empty();
        let (mut rows, mut count) = (Vec::new(), 0);
        while let Some(row) = result.next().await? {
            count += 1;
            if !wants_rows {
                continue;
            }
            let (row, size) = cursor::read(row, &query.special);
            let size = size + VALUE_COST * row.len();
            let fits = room.checked_sub(size);
            let Some(rest) = fits.filter(|_| size <= RESULT_MAX) else {
                self.killer.kill("QUERY").await;
                // The answer has to be read to its end, which is near.
                while let Ok(Some(_)) = result.next().await {}
                drop(result);
                absorb(&mut conn).await?;
                return Err(too_large(size).into());
            };
            *room = rest;
            rows.push(row);
        }
        result.drop_result().await?;
        if wants_rows {
            let columns = cursor::columns(&described, &query.special);
            return Ok(Step::Rows(Rows { columns, rows }));
        }
        let affected = match (described.is_empty(), parsed.is_query) {
            (true, _) => conn.affected_rows(),
            (false, true) => 0,
            // What RETURNING returns.
            (false, false) => count,
        };
        let id = conn.last_insert_id().filter(|id| *id > 0);
        Ok(Step::Done(Done {
            affected,
            last_id: id.and_then(|id| i64::try_from(id).ok()),
        }))
    }

    /// Refuses to go on if the server says that there is no transaction any more.
    pub(super) async fn check_transaction(&self) -> Result<(), Fault> {
        let conn = self.conn.lock().await;
        let flags = conn.last_ok_packet().map(|ok| ok.status_flags());
        match flags.is_none_or(|flags| flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS)) {
            true => Ok(()),
            false => Err(Fault {
                told: DbError::Denied(
                    "the statement has committed the transaction, which has ended".to_owned(),
                ),
                then: Then::TransactionIsOver,
            }),
        }
    }
}

/// Reads it as far as wrun has a say in it.
pub(super) fn read(statement: &Statement) -> Result<Parsed, DbError> {
    let count = statement.params.len();
    if count > PARAMS_MAX {
        return Err(DbError::TooLarge(format!(
            "there are {count} parameters, at most {PARAMS_MAX} are allowed"
        )));
    }
    tokens::parse(&statement.sql, count)
}

/// Returns a statement with its parameters in their places, and these.
fn assemble(
    parsed: &Parsed,
    statement: &Statement,
) -> Result<(String, Vec<mysql_async::Value>), DbError> {
    let mut sql = String::with_capacity(statement.sql.len());
    let mut values = Vec::with_capacity(parsed.places.len());
    for (at, piece) in parsed.pieces.iter().enumerate() {
        sql.push_str(piece);
        if let Some(value) = parsed
            .places
            .get(at)
            .and_then(|at| statement.params.get(*at))
        {
            let (raw, place) = convert::parameter(value)?;
            values.push(raw);
            sql.push_str(&place);
        }
    }
    Ok((sql, values))
}
