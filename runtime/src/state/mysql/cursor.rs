//! A cursor: a task that has the connection, and reads a result as far as somebody asks.
//!
//! The protocol has one result at a time. So before anything else is done on the connection the rest of the result is read
//! into memory, if it is not too much.

use super::connection::{Killer, absorb};
use super::convert::{self, field, type_name};
use super::kinds::Special;
use crate::state::db::{Column, DbError, RESULT_MAX, Row};
use crate::state::remote::{Fault, Then, size, too_large};
use mysql_async::prelude::Queryable as _;
use mysql_async::{BinaryProtocol, Conn, Params, QueryResult, Statement};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};

/// A query that can be run, and what is special about its columns.
pub(super) struct Query {
    pub(super) prepared: Statement,
    pub(super) params: Params,
    pub(super) special: Vec<Option<Special>>,
}

/// A cursor that is open until its last clone is dropped.
#[derive(Clone)]
pub(super) struct Cursor(mpsc::UnboundedSender<Ask>);

enum Ask {
    Rows(usize, oneshot::Sender<Result<Vec<Row>, Fault>>),
    /// The connection is needed.
    Settle(oneshot::Sender<()>),
}

impl Cursor {
    /// Opens it, and returns its columns.
    pub(super) async fn open(
        conn: OwnedMutexGuard<Conn>,
        query: Query,
        killer: Killer,
    ) -> Result<(Self, Vec<Column>), Fault> {
        let (asks, asked) = mpsc::unbounded_channel();
        let (opened, columns) = oneshot::channel();
        tokio::task::spawn_local(serve(conn, query, killer, opened, asked));
        let columns = columns.await.unwrap_or_else(|_| Err(gone()))?;
        Ok((Self(asks), columns))
    }

    /// Returns so many rows; fewer only at the end.
    pub(super) async fn fetch(&self, rows: usize) -> Result<Vec<Row>, Fault> {
        let (answer, answered) = oneshot::channel();
        // It fails only if the task is gone, and then so is the answer.
        let _ = self.0.send(Ask::Rows(rows, answer));
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits until it does not need the connection any more.
    pub(super) async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        let _ = self.0.send(Ask::Settle(done));
        let _ = is_done.await;
    }
}

fn gone() -> Fault {
    Fault {
        told: DbError::Unavailable("MariaDB or MySQL: the connection broke".to_owned()),
        then: Then::ConnectionIsBroken,
    }
}

/// Reads while somebody asks, and gives the connection back.
async fn serve(
    mut conn: OwnedMutexGuard<Conn>,
    query: Query,
    killer: Killer,
    opened: oneshot::Sender<Result<Vec<Column>, Fault>>,
    mut asked: mpsc::UnboundedReceiver<Ask>,
) {
    let Query {
        prepared,
        params,
        special,
    } = query;
    let result = match conn.exec_iter(&prepared, params).await {
        Ok(result) => result,
        Err(error) => return drop(opened.send(Err(error.into()))),
    };
    let described = result.columns().unwrap_or_else(|| Arc::from([]));
    let _ = opened.send(Ok(columns(&described, &special)));
    let mut source = Source {
        result,
        special,
        end: None,
    };
    let mut rest = VecDeque::new();
    let settled = loop {
        match asked.recv().await {
            Some(Ask::Rows(count, answer)) => drop(answer.send(source.take(count).await)),
            Some(Ask::Settle(done)) => {
                source.take_rest(&mut rest).await;
                break Some(done);
            }
            None => break None,
        }
    };
    let is_cut = source.end.is_none();
    if is_cut {
        killer.kill("QUERY").await;
        // The answer has to be read to its end, which is near.
        while let Ok(Some(_)) = source.result.next().await {}
        source.end = Some(Err(cut().into()));
    }
    let end = source.end.unwrap_or(Ok(()));
    drop(source.result);
    if is_cut {
        // If it fails, so does what is done next.
        let _ = absorb(&mut conn).await;
    }
    drop(conn);
    if let Some(done) = settled {
        let _ = done.send(());
        serve_rest(rest, &end, &mut asked).await;
    }
}

/// Goes on without the connection.
async fn serve_rest(
    mut rest: VecDeque<Row>,
    end: &Result<(), Fault>,
    asked: &mut mpsc::UnboundedReceiver<Ask>,
) {
    while let Some(ask) = asked.recv().await {
        match ask {
            Ask::Rows(count, answer) => {
                let rows: Vec<Row> = rest.drain(..count.min(rest.len())).collect();
                let _ = answer.send(match end {
                    Err(fault) if rows.len() < count => Err(fault.clone()),
                    _ => Ok(rows),
                });
            }
            Ask::Settle(done) => drop(done.send(())),
        }
    }
}

fn cut() -> DbError {
    DbError::TooLarge(format!(
        "more than {RESULT_MAX} bytes of a cursor were not read when something else was done: read it to its end first"
    ))
}

/// A result that is being read.
struct Source<'a> {
    result: QueryResult<'a, 'static, BinaryProtocol>,
    special: Vec<Option<Special>>,
    /// How it ended, once it did.
    end: Option<Result<(), Fault>>,
}

impl Source<'_> {
    async fn next(&mut self) -> Option<Row> {
        if self.end.is_some() {
            return None;
        }
        match self.result.next().await {
            Ok(Some(row)) => {
                let (row, bytes) = read(row, &self.special);
                if bytes <= RESULT_MAX {
                    return Some(row);
                }
                // The rest is cut off when the cursor is closed.
                self.end = Some(Err(too_large(bytes).into()));
            }
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error.into())),
        }
        None
    }

    async fn take(&mut self, count: usize) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        while rows.len() < count {
            match self.next().await {
                Some(row) => rows.push(row),
                None => break,
            }
        }
        match &self.end {
            Some(Err(fault)) => Err(fault.clone()),
            _ => Ok(rows),
        }
    }

    /// Reads what is left, unless it is too much.
    async fn take_rest(&mut self, rest: &mut VecDeque<Row>) {
        let mut bytes = 0;
        while bytes <= RESULT_MAX {
            let Some(row) = self.next().await else {
                return;
            };
            bytes += size(&row);
            rest.push_back(row);
        }
    }
}

/// Returns a row's values, and how many bytes they have.
pub(super) fn read(row: mysql_async::Row, special: &[Option<Special>]) -> (Row, usize) {
    let columns = row.columns();
    let mut bytes = 0;
    let values = row.unwrap().into_iter().enumerate().map(|(at, raw)| {
        bytes += convert::size(&raw);
        let special = special.get(at).and_then(Option::as_ref);
        field(raw, &columns[at], special)
    });
    (values.collect(), bytes)
}

pub(super) fn columns(
    described: &[mysql_async::Column],
    special: &[Option<Special>],
) -> Vec<Column> {
    let column = |(at, column): (usize, &mysql_async::Column)| Column {
        name: column.name_str().into_owned(),
        type_name: type_name(column, special.get(at).and_then(Option::as_ref)),
    };
    described.iter().enumerate().map(column).collect()
}
