//! The outbox of a database: a table, a table of lanes, and locks of the server's.
//!
//! There is no lock by name that ends with a transaction, so a lane is a row. All of them are there from the beginning: who
//! locks one that is not there locks those beside it.

use super::connection::Connection;
use super::kinds::bytes;
use crate::state::db::DbError;
use crate::state::outbox::{Letter, Waiting, lanes, size};
use crate::state::queue::Message;
use crate::state::queue::content::{headers_from_text, headers_to_text};
use crate::state::remote::Fault;
use crate::state::remote::outbox::Letters;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Params, Value};

/// How many lanes there are.
pub(super) const LANES: u32 = 4096;

/// Messages that are added by one statement.
const TOGETHER: usize = 8;

const PUT: &str = "INSERT INTO _wrun_outbox (queue, name, content_type, headers, body, dedup_id, delay_ms, size) VALUES ";

/// A row as it comes: id, key, content type, headers, body, dedup id, delay and age.
type Kept = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<u8>,
    Vec<u8>,
    u64,
    i64,
);

impl Connection {
    /// Waits for others that send messages of the same keys. Rows are let go only when others see the transaction.
    async fn enter(&self, queue: &str, messages: &[Message]) -> Result<(), Fault> {
        let mut lanes: Vec<u32> = lanes(queue, messages).iter().map(|it| it % LANES).collect();
        if lanes.is_empty() {
            return Ok(());
        }
        lanes.sort_unstable();
        lanes.dedup();
        let ids: Vec<String> = lanes.iter().map(u32::to_string).collect();
        let select = format!(
            "SELECT id FROM _wrun_outbox_lanes FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id FOR UPDATE",
            ids.join(", ")
        );
        let locked = self.rows::<u32>(&select).await?;
        match locked.len() == lanes.len() {
            true => Ok(()),
            false => {
                Err(DbError::Other("rows of _wrun_outbox_lanes are missing".to_owned()).into())
            }
        }
    }

    async fn add(&self, queue: &str, messages: &[Message]) -> Result<(), Fault> {
        let row = "(?, ?, ?, ?, ?, ?, ?, ?)";
        let rows = vec![row; messages.len()].join(", ");
        let values = messages.iter().flat_map(|message| values(queue, message));
        let params = Params::Positional(values.collect());
        let mut conn = self.conn.lock().await;
        Ok(conn.exec_drop(format!("{PUT}{rows}"), params).await?)
    }

    async fn one(&self, sql: &str) -> Result<i64, Fault> {
        let rows = self.rows::<Option<i64>>(sql).await;
        let rows = self.seen(rows.map_err(Fault::from))?;
        Ok(rows.into_iter().next().flatten().unwrap_or(0))
    }
}

impl Letters for Connection {
    async fn put(&self, queue: &str, messages: &[Message]) -> Result<(), Fault> {
        self.settle().await;
        self.enter(queue, messages).await?;
        let (together, rest) = messages.as_chunks::<TOGETHER>();
        for some in together {
            self.add(queue, some).await?;
        }
        for one in rest.chunks(1) {
            self.add(queue, one).await?;
        }
        Ok(())
    }

    async fn waits(&self, queue: &str) -> Result<bool, Fault> {
        let queue = bytes(queue.as_bytes());
        let sql = format!("SELECT EXISTS (SELECT 1 FROM _wrun_outbox WHERE queue = {queue})");
        Ok(self.one(&sql).await? == 1)
    }

    async fn count(&self, queue: &str) -> Result<u64, Fault> {
        let queue = bytes(queue.as_bytes());
        let sql = format!("SELECT COUNT(*) FROM _wrun_outbox WHERE queue = {queue}");
        Ok(self.one(&sql).await?.cast_unsigned())
    }

    async fn lock(&self, queue: &str) -> Result<bool, Fault> {
        let sql = format!("SELECT GET_LOCK({}, 0)", lead(queue));
        Ok(self.one(&sql).await? == 1)
    }

    async fn unlock(&self, queue: &str) -> Result<(), Fault> {
        self.execute(&format!("DO RELEASE_LOCK({})", lead(queue)))
            .await
    }

    async fn look(&self, queue: &str, most: usize) -> Result<Vec<Waiting>, Fault> {
        let queue = bytes(queue.as_bytes());
        let sql = format!(
            "SELECT id, size FROM _wrun_outbox WHERE queue = {queue} ORDER BY id LIMIT {most}"
        );
        let rows = self.rows::<(i64, u64)>(&sql).await;
        let rows = self.seen(rows.map_err(Fault::from))?;
        let waiting = |(row, size)| Waiting { row, size };
        Ok(rows.into_iter().map(waiting).collect())
    }

    async fn read(&self, rows: &[i64]) -> Result<Vec<Letter>, Fault> {
        let sql = format!(
            "SELECT id, name, content_type, headers, body, dedup_id, delay_ms, \
             TIMESTAMPDIFF(MICROSECOND, at, NOW(6)) DIV 1000 FROM _wrun_outbox WHERE id IN ({}) ORDER BY id",
            list(rows)
        );
        let rows = self.rows::<Kept>(&sql).await;
        let rows = self.seen(rows.map_err(Fault::from))?;
        Ok(rows.into_iter().map(letter).collect())
    }

    async fn remove(&self, rows: &[i64]) -> Result<(), Fault> {
        let rows = list(rows);
        self.execute(&format!("DELETE FROM _wrun_outbox WHERE id IN ({rows})"))
            .await
    }
}

/// Returns the name of the lock of who leads: names are the whole server's, so the database is in it.
fn lead(queue: &str) -> String {
    let queue = bytes(queue.as_bytes());
    format!("CONCAT('wrun:', LEFT(SHA2(CONCAT(DATABASE(), ':', {queue}), 256), 40))")
}

/// No row has the number 0.
fn list(rows: &[i64]) -> String {
    let rows = rows.iter().map(i64::to_string);
    let rows: Vec<String> = std::iter::once("0".to_owned()).chain(rows).collect();
    rows.join(", ")
}

fn values(queue: &str, message: &Message) -> [Value; 8] {
    let text = |text: Option<&str>| text.map_or(Value::NULL, |it| Value::Bytes(it.into()));
    [
        text(Some(queue)),
        text(message.key.as_deref()),
        text(message.content_type.as_deref()),
        text(headers_to_text(&message.headers).as_deref()),
        Value::Bytes(message.body.clone()),
        text(message.dedup_id.as_deref()),
        Value::UInt(message.delay_ms.unwrap_or(0)),
        Value::Int(size(message)),
    ]
}

fn letter((row, key, content_type, headers, body, dedup_id, delay, age): Kept) -> Letter {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let message = Message {
        body,
        content_type: content_type.map(text),
        headers: headers_from_text(headers.map(text).as_deref()),
        key: key.map(text),
        dedup_id: Some(text(dedup_id)),
        delay_ms: (delay > 0).then_some(delay),
    };
    Letter {
        row,
        message,
        age_ms: age.max(0).cast_unsigned(),
    }
}
