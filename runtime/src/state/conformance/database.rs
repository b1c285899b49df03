//! Cases of databases, and how they are used there: `stock (item, left_over)` has one row, 'pen' with 10 left.

mod statements;
mod transactions;

use super::{Case, HasDatabase};
use crate::state::BoxFuture;
use crate::state::db::{
    Database, DbError, Done, Row, Statement, Step, Transaction, TxOptions, Value, Want,
};
use std::fmt::Debug;

pub(super) fn cases<B: HasDatabase>() -> Vec<Case<B>> {
    let mut cases = statements::cases();
    cases.extend(transactions::cases());
    cases
}

const PENS: &str = "SELECT left_over FROM stock WHERE item = 'pen'";
const SELL: &str = "UPDATE stock SET left_over = left_over - 1 WHERE item = 'pen'";

async fn stocked<B: HasDatabase>(on: &B) -> &dyn Database {
    let db = on.database();
    let create = "CREATE TABLE stock (item VARCHAR(20) PRIMARY KEY, left_over INTEGER NOT NULL, CHECK (left_over >= 0))";
    execute(db, create).await;
    execute(db, "INSERT INTO stock VALUES ('pen', 10)").await;
    db
}

async fn pens(db: &dyn Database) -> i64 {
    match query(db, PENS).await[0][0] {
        Value::Integer(left_over) => left_over,
        ref other => panic!("{other:?}"),
    }
}

async fn begin(db: &dyn Database) -> Box<dyn Transaction> {
    db.begin(TxOptions::default()).await.unwrap()
}

fn run_in(tx: &dyn Transaction, sql: &str) -> BoxFuture<'static, Result<Step, DbError>> {
    tx.run(statement(sql), Want::Either)
}

/// Runs one statement in a transaction of its own.
async fn run(db: &dyn Database, statement: Statement) -> Result<Step, DbError> {
    let steps = db.batch(vec![(statement, Want::Either)], TxOptions::default());
    Ok(steps.await?.remove(0))
}

async fn batch(db: &dyn Database, statements: &[&str]) -> Result<Vec<Step>, DbError> {
    let statements = statements.iter().map(|sql| (statement(sql), Want::Either));
    db.batch(statements.collect(), TxOptions::default()).await
}

async fn execute(db: &dyn Database, sql: &str) -> Done {
    match run(db, statement(sql)).await {
        Ok(Step::Done(done)) => done,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn query(db: &dyn Database, sql: &str) -> Vec<Row> {
    rows(run(db, statement(sql)).await)
}

fn rows(result: Result<Step, DbError>) -> Vec<Row> {
    match result {
        Ok(Step::Rows(rows)) => rows.rows,
        other => panic!("{other:?}"),
    }
}

fn sqlstate<T: Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Engine { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn read_only() -> TxOptions {
    TxOptions {
        read_only: true,
        ..TxOptions::default()
    }
}

fn statement(sql: &str) -> Statement {
    with(sql, [])
}

fn with(sql: &str, params: impl IntoIterator<Item = Value>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        params: params.into_iter().collect(),
    }
}
