//! A history of locks: many clients take a few keys again and again while processes are killed, and every holding that
//! ended well is checked: no two of one key at a time, and tokens that only grow.

use crate::murder::{Murders, Victims};
use crate::sale::exchange;
use crate::server::Server;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients that take locks at the same time.
const CLIENTS: usize = 24;

/// Keys that they want.
const KEYS: usize = 3;

/// How long it may take until there are enough holdings.
const PATIENCE: Duration = Duration::from_secs(120);

/// A time in which a guest held a key, and was told at its end that nobody else did.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The key.
    pub key: String,
    /// The fencing token.
    pub token: u64,
    /// From its first instruction under the lock, in nanoseconds since 1970.
    pub start_ns: u64,
    /// To its last.
    pub end_ns: u64,
}

impl Holding {
    /// Reads what `state_lock` says of a time in which it held `key`.
    pub fn of(key: &str, held: &Value) -> Option<Self> {
        Some(Self {
            key: key.to_owned(),
            token: held["token"].as_u64()?,
            start_ns: held["start_ns"].as_u64()?,
            end_ns: held["end_ns"].as_u64()?,
        })
    }
}

/// Takes locks of `state_lock` until `count` holdings ended well. Returns them, and how many processes were killed.
///
/// # Panics
///
/// If it takes too long.
pub fn record(server: &Server, count: usize, victims: Victims) -> (Vec<Holding>, usize) {
    let murders = Murders::begin(server, victims);
    let done = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (addr, done) = (server.addr(), Arc::clone(&done));
            thread::spawn(move || {
                let mut mine = Vec::new();
                let key = format!("key-{}", client % KEYS);
                let target = format!("/acquire?key={key}&wait=5000&ms=1");
                while done.load(Ordering::Relaxed) < count && begin.elapsed() < PATIENCE {
                    let answer = exchange(addr, "GET", &target, "history", "");
                    let answer = answer.ok().filter(|response| response.status == 200);
                    if let Some(holding) = answer.and_then(|response| parse(&key, &response.body)) {
                        done.fetch_add(1, Ordering::Relaxed);
                        mine.push(holding);
                    }
                }
                mine
            })
        })
        .collect();
    let mut holdings = Vec::new();
    for client in clients {
        holdings.extend(client.join().expect("a client does not panic"));
    }
    let kills = murders.end();
    assert!(
        holdings.len() >= count,
        "{} holdings within {PATIENCE:?}",
        holdings.len()
    );
    (holdings, kills)
}

/// Returns the holding that an answer tells of, if its lock held until it was released.
fn parse(key: &str, body: &[u8]) -> Option<Holding> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let held = &answer["ok"];
    held["released"].get("ok")?;
    Holding::of(key, held)
}

/// Returns what is wrong with a history.
pub fn faults(holdings: &[Holding]) -> Vec<String> {
    let mut by_key: BTreeMap<&str, Vec<&Holding>> = BTreeMap::new();
    for holding in holdings {
        by_key.entry(&holding.key).or_default().push(holding);
    }
    let mut faults = Vec::new();
    for holdings in by_key.values_mut() {
        holdings.sort_by_key(|holding| holding.start_ns);
        for pair in holdings.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after.start_ns < before.end_ns {
                faults.push(format!("two at a time: {before:?} and {after:?}"));
            }
            if after.token <= before.token {
                faults.push(format!(
                    "a token that does not grow: {before:?} and {after:?}"
                ));
            }
        }
    }
    faults
}
