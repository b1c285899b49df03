//! MariaDB as a contender: the server's defaults, which are durable, driven by mysql_async over a unix socket.

use super::clients::{self, Share};
use super::{Cell, Contender, Sample, Work};
use crate::mariadb::MariaDb;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const SETUP: [&str; 3] = [
    "CREATE TABLE hot (id integer PRIMARY KEY, n bigint NOT NULL)",
    "CREATE TABLE sales (hot integer NOT NULL)",
    "INSERT INTO hot VALUES (1, 0)",
];

/// The database of the native client.
const DATABASE: &str = "native";

/// What a client's thread does with its connection.
pub struct Native {
    url: String,
}

impl Native {
    /// Makes it ready in a running server.
    pub fn new(server: &MariaDb) -> Self {
        server.create(DATABASE);
        for sql in SETUP {
            server.query(DATABASE, sql);
        }
        let url = server.local_url(DATABASE);
        Self {
            url: url.replace("mariadb://", "mysql://"),
        }
    }

    fn open(&self) -> Result<(Runtime, Conn), String> {
        let runtime = clients::event_loop()?;
        let opts = Opts::from_url(&self.url).map_err(|error| error.to_string())?;
        let opened = runtime.block_on(Conn::new(opts));
        let conn = opened.map_err(|error| error.to_string())?;
        Ok((runtime, conn))
    }
}

impl Contender for Native {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn run(&mut self, cell: Cell, time: Duration) -> Option<Result<Sample, String>> {
        if cell.work != Work::Transaction {
            return None;
        }
        let open = |_| self.open();
        let work = |(runtime, conn): (Runtime, Conn), end| {
            let worked = runtime.block_on(transactions(conn, end));
            worked.map_err(|error: mysql_async::Error| error.to_string())
        };
        let shares = clients::run(cell.clients, time, open, work);
        Some(shares.and_then(|shares| clients::sum(&shares)))
    }
}

/// Does the same as wrun's guest, statement by statement, until `end`.
async fn transactions(mut conn: Conn, end: Instant) -> mysql_async::Result<Share> {
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        .await?;
    clients::repeat(end, async || {
        conn.query_drop("BEGIN").await?;
        let select = "SELECT n FROM hot WHERE id = 1 FOR UPDATE";
        let n: Option<i64> = conn.exec_first(select, ()).await?;
        let update = "UPDATE hot SET n = ? WHERE id = 1";
        conn.exec_drop(update, (n.unwrap_or(0) + 1,)).await?;
        conn.exec_drop("INSERT INTO sales (hot) VALUES (1)", ())
            .await?;
        conn.query_drop("COMMIT").await
    })
    .await
}
