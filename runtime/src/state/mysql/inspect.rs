//! What a server says of itself, for `wrun doctor`: version, encryption, and the settings that promises rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::error::whole;
use crate::state::replica::{Following, Replica};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Row, from_value_opt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// How long all of it may take.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// Wherever a server does not have one of them, it is not there.
const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'tx_isolation', \
    'transaction_isolation', 'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog', 'sql_mode', \
    'autocommit', 'read_only', 'innodb_read_only', 'innodb_rollback_on_timeout', 'wsrep_on', 'max_connections', \
    'max_allowed_packet')";

/// Tables of guests that take part in no transaction.
const OTHERS: &str = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
    AND TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB'";

/// Whether wrun's tables are there, or the user has the right to make them, by itself or by a role.
const MAY_CREATE: &str = "SELECT \
    (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '_wrun_meta') \
    + (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'CREATE' \
        AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')) \
    + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES WHERE PRIVILEGE_TYPE = 'CREATE' \
        AND DATABASE() LIKE TABLE_SCHEMA) \
    + (SELECT COUNT(*) FROM information_schema.APPLICABLE_ROLES)";

/// A server as it was found.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub product: &'static str,
    pub version: String,
    /// The version of TLS, if the connection is encrypted.
    pub tls: Option<String>,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// Whether wrun's own tables are there, or may be made.
    pub may_create: bool,
    /// How many tables have no transactions.
    pub others: u64,
    /// Its settings, by name.
    pub settings: BTreeMap<String, String>,
}

impl Inspection {
    /// Returns a setting; empty if the server does not have it.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }
}

/// Asks a server; the error is why it cannot be reached. To be called in a runtime of tokio's.
pub async fn inspect(address: &Address) -> Result<Inspection, String> {
    let silent = |_| "it does not answer".to_owned();
    let asked = timeout(INSPECT_MAX, ask(address)).await.map_err(silent)?;
    asked.map_err(|error| whole(&error))
}

/// Asks a replica, and its primary for what to compare that with; the error is why the replica cannot be reached. To be
/// called in a runtime of tokio's.
pub async fn inspect_replica(replica: &Address, primary: &Address) -> Result<Replica, String> {
    let silent = |_| "it does not answer".to_owned();
    let number = timeout(INSPECT_MAX, number(primary)).await.ok();
    let number = number.and_then(Result::ok).flatten();
    let asked = timeout(INSPECT_MAX, ask_replica(replica, number)).await;
    asked.map_err(silent)?.map_err(|error| whole(&error))
}

/// Returns what a server is known by to those that follow it.
async fn number(address: &Address) -> Result<Option<u64>, Error> {
    let mut conn = Conn::new(address.opts.clone()).await?;
    let number = conn.query_first("SELECT @@server_id").await?;
    conn.disconnect().await?;
    Ok(number)
}

async fn ask_replica(address: &Address, primary: Option<u64>) -> Result<Replica, Error> {
    let found = ask(address).await?;
    let mut conn = Conn::new(address.opts.clone()).await?;
    // It takes a right of its own.
    let status = conn.query_first::<Row, _>("SHOW REPLICA STATUS").await;
    conn.disconnect().await?;
    let (following, lag, followed) = match &status {
        Ok(Some(status)) => (following(status), lag(status), source(status)),
        Ok(None) => (Following::No("it follows no server".to_owned()), None, None),
        Err(_) => (Following::Unknown, None, None),
    };
    let is_on = |name: &str| ["ON", "1"].contains(&found.setting(name));
    Ok(Replica {
        server: format!("{} {}", found.product, found.version),
        tls: found.tls.clone(),
        is_local: found.is_local,
        takes_writes: !is_on("read_only") && !is_on("innodb_read_only"),
        // One that follows another replica may follow the primary, too.
        is_of_primary: followed
            .zip(primary)
            .and_then(|(followed, primary)| (followed == primary).then_some(true)),
        following,
        lag,
    })
}

fn following(status: &Row) -> Following {
    for (newer, older, what) in [
        (
            "Replica_IO_Running",
            "Slave_IO_Running",
            "receives nothing from its primary",
        ),
        (
            "Replica_SQL_Running",
            "Slave_SQL_Running",
            "does not apply what it receives",
        ),
    ] {
        let state: Option<String> = field(status, newer, older);
        if state.as_deref() != Some("Yes") {
            let state = state.unwrap_or_default();
            return Following::No(format!("it {what}: {state}"));
        }
    }
    Following::Yes
}

fn lag(status: &Row) -> Option<String> {
    let seconds: Option<u64> = field(status, "Seconds_Behind_Source", "Seconds_Behind_Master");
    seconds.map(|seconds| format!("{seconds} s"))
}

fn source(status: &Row) -> Option<u64> {
    field(status, "Source_Server_Id", "Master_Server_Id")
}

/// Reads what newer versions of MySQL, and all other servers, call by these names.
fn field<T: mysql_async::prelude::FromValue>(status: &Row, newer: &str, older: &str) -> Option<T> {
    let columns = status.columns_ref().iter();
    let mut named = columns.map(|column| column.name_str());
    let at = named.position(|name| [newer, older].contains(&&*name))?;
    from_value_opt(status.as_ref(at)?.clone()).ok()
}

async fn ask(address: &Address) -> Result<Inspection, Error> {
    let mut conn = Conn::new(address.opts.clone()).await?;
    let settings: Vec<(String, String)> = conn.query(SETTINGS).await?;
    let settings: BTreeMap<_, _> = settings.into_iter().collect();
    let tls: Option<(String, String)> = conn.query_first("SHOW STATUS LIKE 'Ssl_version'").await?;
    let others: Option<u64> = conn.query_first(OTHERS).await?;
    let may_create: Option<i64> = conn.query_first(MAY_CREATE).await?;
    conn.disconnect().await?;
    let version = settings.get("version").cloned().unwrap_or_default();
    Ok(Inspection {
        product: match version.contains("MariaDB") {
            true => "MariaDB",
            false => "MySQL",
        },
        version,
        tls: tls.map(|(_, version)| version).filter(|it| !it.is_empty()),
        is_local: address.is_local(),
        may_create: may_create.unwrap_or(0) > 0,
        others: others.unwrap_or(0),
        settings,
    })
}
