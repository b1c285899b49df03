//! `wrun:db`: SQL that the state process runs.
//!
//! The form of values and results is `convert`'s.

mod convert;

use super::bindings::wrun::db::db::{
    Column, Done, Error, Host, HostCursor, HostDatabase, HostTransaction, Rows, Statement, Step,
    TxOptions, Value,
};
use super::shared::{Kind, Opened, ShareView};
use crate::state::client::{Cursor, Guard, Transaction};
use crate::state::db::{self, DbError, Want};
use wasmtime::component::{Resource, ResourceTable};

/// A database that a guest has opened.
pub struct Database(Opened);

impl Database {
    /// Runs one statement in a transaction of its own.
    async fn run(&self, statement: db::Statement, want: Want) -> Result<db::Step, DbError> {
        let Opened { label, client } = &self.0;
        let statements = vec![(statement, want)];
        let options = db::TxOptions::default();
        let mut steps = client.batch(label, statements, options, &[]).await?;
        steps.pop().ok_or_else(unfit)
    }
}

impl HostDatabase for ShareView<'_> {
    fn open(&mut self, label: String) -> Result<Resource<Database>, DbError> {
        let opened = self.share.open(Kind::Database, label);
        let database = Database(opened.map_err(DbError::Denied)?);
        Ok(self.table.push(database)?)
    }

    async fn query(
        &mut self,
        database: Resource<Database>,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Rows, DbError> {
        let database = self.table.get(&database)?;
        let statement = convert::statement(sql, params);
        rows(database.run(statement, Want::Rows).await?)
    }

    async fn execute(
        &mut self,
        database: Resource<Database>,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Done, DbError> {
        let database = self.table.get(&database)?;
        let statement = convert::statement(sql, params);
        done(database.run(statement, Want::Done).await?)
    }

    async fn batch(
        &mut self,
        database: Resource<Database>,
        statements: Vec<Statement>,
        options: TxOptions,
        fences: Vec<Resource<Guard>>,
    ) -> Result<Vec<Step>, DbError> {
        let Database(Opened { label, client }) = self.table.get(&database)?;
        let fences = guards(self.table, &fences)?;
        let statements = statements
            .into_iter()
            .map(|Statement { sql, params }| (convert::statement(sql, params), Want::Either))
            .collect();
        let steps = client
            .batch(label, statements, convert::options(options), &fences)
            .await?;
        Ok(steps.into_iter().map(Step::from).collect())
    }

    async fn begin(
        &mut self,
        database: Resource<Database>,
        options: TxOptions,
        fences: Vec<Resource<Guard>>,
    ) -> Result<Resource<Transaction>, DbError> {
        self.share.quota.may_begin().map_err(DbError::Unavailable)?;
        let Database(Opened { label, client }) = self.table.get(&database)?;
        let fences = guards(self.table, &fences)?;
        let tx = client
            .begin(label, convert::options(options), &fences)
            .await?;
        let tx = self.table.push(tx)?;
        self.share.quota.begun(tx.rep());
        Ok(tx)
    }

    fn dialect(&mut self, database: Resource<Database>) -> wasmtime::Result<String> {
        let Database(Opened { label, .. }) = self.table.get(&database)?;
        Ok(self.share.dialect(label).to_owned())
    }

    fn drop(&mut self, database: Resource<Database>) -> wasmtime::Result<()> {
        self.table.delete(database)?;
        Ok(())
    }
}

impl HostTransaction for ShareView<'_> {
    async fn query(
        &mut self,
        tx: Resource<Transaction>,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Rows, DbError> {
        let tx = self.table.get(&tx)?;
        rows(tx.run(convert::statement(sql, params), Want::Rows).await?)
    }

    async fn execute(
        &mut self,
        tx: Resource<Transaction>,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Done, DbError> {
        let tx = self.table.get(&tx)?;
        done(tx.run(convert::statement(sql, params), Want::Done).await?)
    }

    async fn open_cursor(
        &mut self,
        tx: Resource<Transaction>,
        sql: String,
        params: Vec<Value>,
    ) -> Result<Resource<Cursor>, DbError> {
        let tx = self.table.get(&tx)?;
        let cursor = tx.open_cursor(convert::statement(sql, params)).await?;
        Ok(self.table.push(cursor)?)
    }

    async fn mark_processed(
        &mut self,
        tx: Resource<Transaction>,
        id: String,
    ) -> Result<bool, DbError> {
        self.table.get(&tx)?.mark_processed(id).await
    }

    async fn commit(&mut self, tx: Resource<Transaction>) -> Result<(), DbError> {
        self.share.quota.ended(tx.rep());
        self.table.get(&tx)?.commit().await
    }

    async fn rollback(&mut self, tx: Resource<Transaction>) -> wasmtime::Result<()> {
        self.share.quota.ended(tx.rep());
        self.table.get(&tx)?.rollback().await;
        Ok(())
    }

    fn drop(&mut self, tx: Resource<Transaction>) -> wasmtime::Result<()> {
        self.share.quota.ended(tx.rep());
        self.table.delete(tx)?;
        Ok(())
    }
}

impl HostCursor for ShareView<'_> {
    fn columns(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<Vec<Column>> {
        let columns = self.table.get(&cursor)?.columns();
        Ok(columns.iter().cloned().map(Column::from).collect())
    }

    async fn next(
        &mut self,
        cursor: Resource<Cursor>,
        max_rows: u32,
    ) -> Result<Vec<Vec<Value>>, DbError> {
        let rows = self.table.get(&cursor)?.next(max_rows).await?;
        Ok(rows.into_iter().map(convert::row).collect())
    }

    fn drop(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<()> {
        self.table.delete(cursor)?;
        Ok(())
    }
}

impl Host for ShareView<'_> {
    fn convert_error(&mut self, error: DbError) -> wasmtime::Result<Error> {
        Ok(error.into())
    }
}

/// Returns the guards that a guest lends.
fn guards<'a>(
    table: &'a ResourceTable,
    lent: &[Resource<Guard>],
) -> Result<Vec<&'a Guard>, DbError> {
    lent.iter()
        .map(|guard| table.get(guard).map_err(DbError::from))
        .collect()
}

fn rows(step: db::Step) -> Result<Rows, DbError> {
    match step {
        db::Step::Rows(rows) => Ok(rows.into()),
        db::Step::Done(_) => Err(unfit()),
    }
}

fn done(step: db::Step) -> Result<Done, DbError> {
    match step {
        db::Step::Done(done) => Ok(done.into()),
        db::Step::Rows(_) => Err(unfit()),
    }
}

/// The state process answered something else than it was asked.
fn unfit() -> DbError {
    DbError::Other("the answer does not fit the statement".to_owned())
}
