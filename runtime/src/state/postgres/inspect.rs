//! What a server says of itself, for `wrun doctor`: version, encryption, and the settings that promises rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::error::whole;
use super::tokens::OWN_SCHEMA;
use crate::state::replica::{Following, Replica};
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

/// How long all of it may take.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// A server as it was found.
#[derive(Debug)]
pub struct Inspection {
    pub version: String,
    /// The version of TLS, if the connection is encrypted.
    pub tls: Option<String>,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// What transactions get that ask for nothing; wrun's ask.
    pub isolation: String,
    /// Whether writes are taken: it is neither a replica nor read-only.
    pub takes_writes: bool,
    /// Whether wrun's own tables are there, or may be made.
    pub has_schema: bool,
    /// `fsync`, `full_page_writes` and `synchronous_commit`.
    pub durability: Vec<(&'static str, String)>,
    pub connections_max: String,
}

/// Asks a server; the error is why it cannot be reached. To be called in a runtime of tokio's.
pub async fn inspect(address: &Address) -> Result<Inspection, String> {
    let asked = async {
        let connected = address.tls.connect(&address.config, |_| {}).await;
        let (client, _driver) = connected.map_err(|error| whole(&error))?;
        let answered = ask(&client, address).await;
        answered.map_err(|error| whole(&error))
    };
    let silent = |_| "it does not answer".to_owned();
    timeout(INSPECT_MAX, asked).await.map_err(silent)?
}

/// Asks a replica, and its primary for what to compare that with; the error is why the replica cannot be reached. To be
/// called in a runtime of tokio's.
pub async fn inspect_replica(replica: &Address, primary: &Address) -> Result<Replica, String> {
    let silent = |_| "it does not answer".to_owned();
    // First, so that what is behind is no less than it was.
    let written = timeout(INSPECT_MAX, written(primary)).await.ok().flatten();
    let asked = async {
        let connected = replica.tls.connect(&replica.config, |_| {}).await;
        let (client, _driver) = connected.map_err(|error| whole(&error))?;
        let answered = ask_replica(&client, replica, written).await;
        answered.map_err(|error| whole(&error))
    };
    timeout(INSPECT_MAX, asked).await.map_err(silent)?
}

/// A place in a server's log, in bytes, and the server's own number if its user may know.
type Place = (Option<i64>, i64);

/// Returns where a primary's log ends.
async fn written(primary: &Address) -> Option<Place> {
    let connected = primary.tls.connect(&primary.config, |_| {}).await;
    let (client, _driver) = connected.ok()?;
    let at = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let row = client.query_one(at, &[]).await.ok()?;
    Some((number(&client).await, row.try_get(0).ok()?))
}

/// Returns what a server and those that were copied from it are known by.
async fn number(client: &Client) -> Option<i64> {
    let own = "SELECT system_identifier FROM pg_control_system()";
    let row = client.query_one(own, &[]).await.ok()?;
    row.try_get(0).ok()
}

async fn ask_replica(
    client: &Client,
    address: &Address,
    written: Option<Place>,
) -> Result<Replica, Error> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version'), pg_is_in_recovery(), \
             EXISTS (SELECT FROM pg_stat_wal_receiver), CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END, \
             pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint, \
             extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::bigint, \
             (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl)",
            &[],
        )
        .await?;
    let version: String = row.try_get(0)?;
    let (is_standby, receives, is_paused): (bool, bool, bool) =
        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let (replayed, seconds): (Option<i64>, Option<i64>) = (row.try_get(4)?, row.try_get(5)?);
    let own = number(client).await;
    let primary = written.and_then(|(number, _)| number);
    let behind = written
        .zip(replayed)
        .map(|((_, written), replayed)| (written - replayed).max(0));
    let age =
        seconds.map(|seconds| format!("the last transaction that arrived is {seconds} s old"));
    let behind = behind.map(|bytes| format!("{bytes} bytes of log"));
    let lag: Vec<String> = behind.into_iter().chain(age).collect();
    Ok(Replica {
        server: format!("PostgreSQL {version}"),
        tls: row.try_get(6)?,
        is_local: address.is_local(),
        takes_writes: !is_standby,
        is_of_primary: own.zip(primary).map(|(own, primary)| own == primary),
        following: match (receives, is_paused) {
            (_, true) => Following::No("its replay is paused".to_owned()),
            (true, false) => Following::Yes,
            (false, false) => Following::No("it receives nothing from its primary".to_owned()),
        },
        lag: Some(lag.join(", ")).filter(|lag| !lag.is_empty()),
    })
}

async fn ask(client: &Client, address: &Address) -> Result<Inspection, Error> {
    let setting = async |name: &str| {
        let row = client
            .query_one("SELECT current_setting($1)", &[&name])
            .await?;
        row.try_get::<_, String>(0)
    };
    let encrypted = client
        .query_opt(
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl",
            &[],
        )
        .await?;
    let writes = client
        .query_one(
            "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'",
            &[],
        )
        .await?;
    let schema = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) \
             OR has_database_privilege(current_database(), 'CREATE')",
            &[&OWN_SCHEMA],
        )
        .await?;
    let mut durability = Vec::new();
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        durability.push((name, setting(name).await?));
    }
    Ok(Inspection {
        version: setting("server_version").await?,
        tls: encrypted.map(|row| row.try_get(0)).transpose()?,
        is_local: address.is_local(),
        isolation: setting("default_transaction_isolation").await?,
        takes_writes: writes.try_get(0)?,
        has_schema: schema.try_get(0)?,
        durability,
        connections_max: setting("max_connections").await?,
    })
}
