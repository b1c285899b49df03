//! What a server says of itself, for `wrun doctor`: version, encryption, and the settings that promises rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::error::whole;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error};
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
