//! Locks in Redis or Valkey, which other servers of wrun's may share: in one server, or in the majority of several; `queue`
//! has its queues.
//!
//! Knows how locks are taken, renewed and given back there; who waits for them here is `lock::leased`'s. A server may forget
//! a lock: docs/redis.md says what holds then.

mod address;
mod inspect;
mod line;
mod majority;
mod names;
mod nodes;
mod queue;
mod scripts;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use inspect::{Inspection, inspect};
pub(in crate::state) use nodes::Nodes;
pub use queue::RedisQueue;

/// How many servers keep locks of one space, at most.
const NODES_MAX: usize = 9;

/// Reads one URL, or several of servers that know nothing of each other. What is said of a wrong one does not repeat it.
pub fn parse(urls: &[&str]) -> Result<Vec<Address>, String> {
    let addresses: Vec<Address> = urls
        .iter()
        .map(|url| Address::parse(url))
        .collect::<Result<_, _>>()?;
    let count = addresses.len();
    if count.is_multiple_of(2) || count > NODES_MAX {
        return Err(format!(
            "it names {count} servers: a majority takes an odd number of them, 3 to {NODES_MAX}"
        ));
    }
    for (at, address) in addresses.iter().enumerate() {
        if addresses[..at].iter().any(|it| it.is_same_server(address)) {
            return Err(format!(
                "it names {} twice, which is one server",
                address.place()
            ));
        }
    }
    Ok(addresses)
}
