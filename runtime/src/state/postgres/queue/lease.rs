//! By what right a server holds messages: a row that it renews, by the server's clock. When it has run out, any other one
//! gives back what was held by it.

use super::Table;
use super::line::Line;
use crate::state::db::DbError;
use crate::state::queue::sharing::LEASE;
use futures_util::future::join3;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

const REGISTER: &str = "INSERT INTO wrun.holders (holder, queue, server, until) \
    VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 second')";

/// A row that is there is good, however old: whoever gives back what it holds removes it.
const EXTEND: &str = "\
    WITH renewed AS (\
        UPDATE wrun.holders SET until = clock_timestamp() + $2 * interval '1 second' WHERE holder = $1 RETURNING 1) \
    SELECT count(*) FROM renewed";

/// Nobody can renew anything while the server is down.
const OVER: &str = "queue = $1 AND until < clock_timestamp() \
    AND pg_postmaster_start_time() < clock_timestamp() - $2 * interval '1 second'";

/// What a server held that is gone comes to others, each message alone: one of them may be what ended it.
const GIVE_BACK: &str = "\
    back AS (\
        UPDATE wrun.messages SET holder = NULL, attempts = attempts + 1, alone = true, due_at = statement_timestamp() \
        WHERE queue = $1 AND holder IN (SELECT holder FROM gone) RETURNING key) \
    SELECT DISTINCT key FROM back";

/// What a state process held that was replaced, or ends in good order, is as if it had never been handed out.
const RELEASE: &str = "\
    WITH gone AS (DELETE FROM wrun.holders WHERE queue = $1 AND server = $2 RETURNING holder), \
    back AS (\
        UPDATE wrun.messages SET holder = NULL \
        WHERE queue = $1 AND holder IN (SELECT holder FROM gone) RETURNING key) \
    SELECT DISTINCT key FROM back";

const GIVE_UP: &str = "UPDATE wrun.messages SET holder = NULL \
    WHERE queue = $1 AND holder = $2 AND NOT id = ANY($3) RETURNING key";

impl Line {
    /// Registers a number to hold messages by.
    pub(super) async fn register(&self, table: &Table) -> Result<i64, DbError> {
        let number = getrandom::u64().map_err(|error| DbError::Other(error.to_string()))?;
        // Random, so that it is not one that was forgotten in a crash of the server.
        let holder = (number >> 1).cast_signed();
        let values: [(_, Type); 4] = [
            (&holder as _, Type::INT8),
            (&table.label as _, Type::TEXT),
            (&table.server as _, Type::TEXT),
            (&LEASE.as_secs_f64() as _, Type::FLOAT8),
        ];
        let client = &self.connection.client;
        let registered = client.query_typed(REGISTER, &values).await;
        registered.map_err(|error| super::to_db_error(&error))?;
        Ok(holder)
    }

    /// Renews the lease; false if it was over.
    pub(super) async fn renew(&self, holder: i64) -> Result<bool, Error> {
        let values: [(_, Type); 2] = [
            (&holder as _, Type::INT8),
            (&LEASE.as_secs_f64() as _, Type::FLOAT8),
        ];
        let renewed = self.connection.client.query_typed(EXTEND, &values).await?;
        Ok(super::look::number(&renewed)? == 1)
    }

    /// Gives back what is held here and not known: the answer to its claim did not come.
    pub(super) async fn give_up_unknown(
        &self,
        table: &Table,
        holder: i64,
        known: &[i64],
    ) -> Result<(), Error> {
        let values = [
            (&table.label as _, Type::TEXT),
            (&holder as _, Type::INT8),
            (&known as _, Type::INT8_ARRAY),
        ];
        let client = &self.connection.client;
        let keys = locked(client, table, client.query_typed(GIVE_UP, &values)).await?;
        table.freed.borrow_mut().extend(keys);
        Ok(())
    }

    /// Gives back what servers hold whose leases are over; returns the keys.
    pub(super) async fn reap(&self, table: &Table) -> Result<Vec<String>, Error> {
        let client = &self.connection.client;
        let seconds = LEASE.as_secs_f64();
        let values = [
            (&table.label as _, Type::TEXT),
            (&seconds as _, Type::FLOAT8),
        ];
        let look = format!("SELECT count(*) FROM wrun.holders WHERE {OVER}");
        if super::look::number(&client.query_typed(&look, &values).await?)? == 0 {
            return Ok(Vec::new());
        }
        tracing::warn!(
            queue = table.label,
            "another server is gone, its messages come back"
        );
        let reap = format!(
            "WITH gone AS (DELETE FROM wrun.holders WHERE {OVER} RETURNING holder), {GIVE_BACK}"
        );
        locked(client, table, client.query_typed(&reap, &values)).await
    }
}

impl Table {
    /// Gives back what this server holds, or a state process of it that was replaced.
    pub(super) async fn release(&self) -> Result<(), DbError> {
        let values = [
            (&self.label as _, Type::TEXT),
            (&self.server as _, Type::TEXT),
        ];
        let keys = self
            .ask(async |client| locked(client, self, client.query_typed(RELEASE, &values)).await)
            .await?;
        self.freed.borrow_mut().extend(keys);
        Ok(())
    }
}

/// Runs a statement beside which nobody claims; returns the keys that it returns.
async fn locked(
    client: &Client,
    table: &Table,
    statement: impl Future<Output = Result<Vec<Row>, Error>>,
) -> Result<Vec<String>, Error> {
    let begin = table.lock();
    // In this order on their way, and together.
    let (begun, rows, ended) = join3(
        client.batch_execute(&begin),
        statement,
        client.batch_execute("COMMIT"),
    )
    .await;
    begun?;
    let rows = rows?;
    ended?;
    let keys = rows.iter().map(|row| row.try_get::<_, Option<String>>(0));
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    Ok(keys.into_iter().flatten().collect())
}
