//! What a server says of itself, for `wrun doctor`: version, role, and the settings that locks rest on.
//!
//! Looks, and changes nothing.

use super::Address;
use super::line::open;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// How long all of it may take.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// A server as it was found.
#[derive(Debug)]
pub struct Inspection {
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    pub version: String,
    pub is_encrypted: bool,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// Whether it takes writes: a replica does not.
    pub takes_writes: bool,
    /// How many replicas it has, to which it may lose what it acknowledged.
    pub replicas: u64,
    pub is_cluster: bool,
    /// What is thrown away when memory is short, unless memory is not limited.
    pub eviction: Option<String>,
    /// Whether every write is in its log; how soon it is on the disk only its settings say.
    pub has_log: bool,
    /// `appendfsync`, where it may be asked.
    pub fsync: Option<String>,
    /// Whether nothing is synced while the log is written anew.
    pub pauses_fsync: bool,
}

/// Asks a server; the error is why it cannot be reached. To be called in a runtime of tokio's.
pub async fn inspect(address: &Address) -> Result<Inspection, String> {
    let silent = |_| "it does not answer".to_owned();
    // The tasks of the set end with it.
    let tasks = LocalSet::new();
    let asked = tasks.run_until(ask(address));
    timeout(INSPECT_MAX, asked).await.map_err(silent)?
}

async fn ask(address: &Address) -> Result<Inspection, String> {
    let (mut connection, _pushes, driver) = open(address).await?;
    let told = redis::cmd("INFO")
        .query_async::<String>(&mut connection)
        .await;
    let told = told.map_err(|error| error.to_string())?;
    let settings = redis::cmd("CONFIG")
        .arg("GET")
        .arg("*appendfsync*")
        .to_owned();
    // Hosted ones do not tell.
    let settings = settings
        .query_async::<HashMap<String, String>>(&mut connection)
        .await;
    let mut settings = settings.unwrap_or_default();
    driver.abort();
    Ok(Inspection {
        fsync: settings.remove("appendfsync"),
        pauses_fsync: settings
            .get("no-appendfsync-on-rewrite")
            .is_some_and(|it| it == "yes"),
        is_encrypted: address.is_encrypted(),
        is_local: address.is_local(),
        ..read(&told)
    })
}

/// Reads what INFO says.
fn read(told: &str) -> Inspection {
    let all: HashMap<&str, &str> = told
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let word = |name: &str| all.get(name).copied().unwrap_or_default();
    let number = |name: &str| word(name).parse().unwrap_or(0u64);
    let (product, version) = match all.get("valkey_version") {
        Some(version) => ("Valkey", *version),
        None => ("Redis", word("redis_version")),
    };
    Inspection {
        product,
        version: version.to_owned(),
        is_encrypted: false,
        is_local: false,
        takes_writes: word("role") == "master",
        replicas: number("connected_slaves"),
        is_cluster: number("cluster_enabled") == 1,
        eviction: (number("maxmemory") > 0).then(|| word("maxmemory_policy").to_owned()),
        has_log: number("aof_enabled") == 1,
        fsync: None,
        pauses_fsync: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_understood() {
        let found = read(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\nrole:slave\r\n\
             maxmemory:1048576\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\ncluster_enabled:1\r\n",
        );
        assert_eq!((found.product, &*found.version), ("Valkey", "8.1.0"));
        assert!(!found.takes_writes && found.is_cluster && found.has_log);
        assert_eq!(found.eviction.as_deref(), Some("allkeys-lru"));
        let found =
            read("redis_version:7.0.15\r\nrole:master\r\nconnected_slaves:2\r\nmaxmemory:0\r\n");
        assert_eq!((found.product, found.replicas), ("Redis", 2));
        assert!(found.takes_writes && found.eviction.is_none());
    }
}
