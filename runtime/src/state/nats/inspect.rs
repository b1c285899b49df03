//! What a server says of itself, for `wrun doctor`: version, JetStream, and what its streams rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::api;
use super::line::open;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// How long all of it may take.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// A server as it was found, which has JetStream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inspection {
    pub version: String,
    pub is_encrypted: bool,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// The name of its cluster, if it is in one.
    pub cluster: Option<String>,
    /// How many servers are to keep each stream, if the URL says so.
    pub replicas: Option<u8>,
    /// The largest message in bytes.
    pub max_payload: u64,
    /// How many bytes are kept, and may be.
    pub storage: u64,
    pub max_storage: Option<u64>,
}

/// Asks a server; the error is why it cannot be reached, or has no JetStream. To be called in a runtime of tokio's.
pub async fn inspect(address: &Address) -> Result<Inspection, String> {
    let silent = |_| "it does not answer".to_owned();
    // The tasks of the set end with it.
    let tasks = LocalSet::new();
    let asked = tasks.run_until(ask(address));
    timeout(INSPECT_MAX, asked).await.map_err(silent)?
}

async fn ask(address: &Address) -> Result<Inspection, String> {
    let live = open(address).await?;
    let info = live.client.server_info();
    let account = api::account(&live.client).await;
    let account = account.map_err(|failed| failed.to_string())?;
    Ok(Inspection {
        version: info.version,
        is_encrypted: address.is_encrypted() || info.tls_required,
        is_local: address.is_local(),
        cluster: info.cluster.filter(|name| !name.is_empty()),
        replicas: address.replicas,
        max_payload: info.max_payload as u64,
        storage: account.storage,
        max_storage: u64::try_from(account.limits.max_storage)
            .ok()
            .filter(|it| *it > 0),
    })
}
