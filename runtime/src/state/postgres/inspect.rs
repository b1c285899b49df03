//! What a server says of itself, for `wrun doctor`: version, encryption, and the settings that promises rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::error::whole;
use super::tokens::OWN_SCHEMA;
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
