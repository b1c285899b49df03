//! What is asked of the server, and what its answers come to.

use super::line::Live;
use super::{Released, SILENT, Space};
use crate::state::lock::Acquire;
use crate::state::lock::leased::ledger::{Answer, NEXT};
use crate::state::postgres::error::whole;
use crate::state::presence::Connections;
use futures_util::future::{join3, join4};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

/// How long wrun waits for an answer. A wait for others ends before that.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// What was committed so long ago is on the disk, also if nobody waited for that: thrice `wal_writer_delay`, which is 200 ms
/// unless somebody has chosen otherwise, and some more.
const DURABLE_AFTER: Duration = Duration::from_secs(3);

/// Why something failed.
enum Trouble {
    /// Others were alone with a key for too long: nothing was done.
    Waited,
    /// Nobody knows what became of it, for this reason.
    Unknown(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            true => Self::Waited,
            false => Self::Unknown(whole(&error)),
        }
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Waited => "others work on these keys".to_owned(),
            Trouble::Unknown(why) => why,
        }
    }
}

impl Space {
    /// Runs one of wrun's statements; returns its rows, and the number of the connection.
    async fn ask(
        &self,
        work: impl AsyncFnOnce(&Live) -> Result<Vec<Row>, Error>,
    ) -> Result<(Vec<Row>, Option<u64>), Trouble> {
        let (connection, number) = (self.presence.connection(), self.presence.number());
        let live = connection.map_err(Trouble::Unknown)?;
        match timeout(ANSWER_MAX, work(&live)).await {
            Ok(rows) => Ok((rows?, number)),
            Err(_) => Err(Trouble::Unknown(SILENT.to_owned())),
        }
    }

    /// Does so while nobody else takes or prolongs locks of these keys.
    async fn ask_alone(
        &self,
        keys: &[String],
        statement: impl Fn(&Live) -> &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<(Vec<Row>, Option<u64>), Trouble> {
        self.ask(async |live| {
            let client = &live.connection.client;
            // In this order on their way, and together: what others here ask for does not come between.
            let (begun, alone, rows, ended) = join4(
                client.batch_execute("BEGIN"),
                client.query(&live.statements.alone, &[&self.label, &keys]),
                client.query(statement(live), values),
                client.batch_execute("COMMIT"),
            )
            .await;
            begun?;
            alone?;
            let rows = rows?;
            ended?;
            Ok(rows)
        })
        .await
    }

    pub(super) async fn take(&self, owner: &str, request: &Acquire) -> Result<Answer, String> {
        let keys = &request.keys;
        let is_fair = request.wait_ms > 0 && keys.len() == 1;
        let (ttl, next) = (f64::from(request.ttl_ms), NEXT.as_secs_f64() * 1000.0);
        let values: [&(dyn ToSql + Sync); 7] = [
            &self.label,
            keys,
            &owner,
            &ttl,
            &self.identity.server,
            &is_fair,
            &next,
        ];
        let asked = self.ask_alone(keys, |live| &live.statements.take, &values);
        let (rows, number) = match asked.await {
            Ok(answered) => answered,
            // As if they had the lock.
            Err(Trouble::Waited) => {
                return Ok(Answer::Taken {
                    left: None,
                    is_partial: false,
                });
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let column = |column| {
            let first = rows.first();
            first.map_or(Ok(None), |row| row.try_get::<_, Option<i64>>(column))
        };
        let failed = |error: Error| whole(&error);
        let (token, left) = (column(0).map_err(failed)?, column(1).map_err(failed)?);
        Ok(match token {
            Some(token) => Answer::Granted {
                token: token.cast_unsigned(),
                said_on: Connections(vec![number]),
            },
            None => Answer::Taken {
                left: left.map(|ms| Duration::from_millis(ms.max(0).cast_unsigned())),
                is_partial: false,
            },
        })
    }

    pub(super) async fn extend(
        &self,
        owner: &str,
        keys: &[String],
        by: Duration,
    ) -> Result<Option<Connections>, String> {
        let ms = by.as_secs_f64() * 1000.0;
        let values: [&(dyn ToSql + Sync); 4] = [&self.label, &keys, &owner, &ms];
        let asked = self.ask_alone(keys, |live| &live.statements.extend, &values);
        let (rows, number) = asked.await?;
        let had = count(&rows)? == keys.len();
        Ok(had.then(|| Connections(vec![number])))
    }

    /// Gives locks back; returns whether all of them were the owner's.
    pub(super) async fn release(&self, owner: &str, keys: &[String]) -> Result<bool, String> {
        let released = self
            .ask(async |live| {
                let client = &live.connection.client;
                let values: [&(dyn ToSql + Sync); 3] = [&self.label, &keys, &owner];
                // A crash may undo it: then it is done again.
                let begin = "BEGIN; SET LOCAL synchronous_commit = off";
                let (begun, rows, ended) = join3(
                    client.batch_execute(begin),
                    client.query(&live.statements.release, &values),
                    client.batch_execute("COMMIT"),
                )
                .await;
                begun?;
                let rows = rows?;
                ended?;
                Ok(rows)
            })
            .await?;
        let now = Instant::now();
        let mut all = self.released.borrow_mut();
        all.retain(|it| now.saturating_duration_since(it.at) < DURABLE_AFTER);
        all.push_back(Released {
            at: now,
            owner: owner.to_owned(),
            keys: keys.to_vec(),
        });
        drop(all);
        Ok(count(&released.0)? == keys.len())
    }

    /// Releases once more what a crash of the server may have brought back.
    pub(super) async fn release_again(&self) {
        let all = self.released.take();
        for Released { owner, keys, .. } in all {
            // What fails is noted no more, and ends with its lease.
            let _ = self.release(&owner, &keys).await;
        }
    }

    pub(super) async fn sweep(&self) -> Result<usize, String> {
        let (server, process) = (self.identity.of_server(), &self.identity.process);
        let swept = self
            .ask(async |live| {
                let values: [&(dyn ToSql + Sync); 3] = [&self.label, &server, process];
                let client = &live.connection.client;
                client.query(&live.statements.sweep, &values).await
            })
            .await?;
        count(&swept.0)
    }
}

/// Returns the one number of a result.
fn count(rows: &[Row]) -> Result<usize, String> {
    let found = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0));
    let found = found.map_err(|error| whole(&error))?;
    Ok(usize::try_from(found).unwrap_or(0))
}
