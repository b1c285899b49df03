//! A history of messages: clients send keyed messages while processes are killed, consumers handle them, some of them
//! badly, and in the end every message that was acknowledged is accounted for.

use crate::murder::{Murders, Victims};
use crate::sale::exchange;
use crate::server::Server;
use crate::state::Try;
use crate::wait::eventually;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// Clients, each with a key of its own.
const CLIENTS: usize = 8;

/// How long a client goes on asking, and how long the last message may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was sent and acknowledged, in order, and what came of it.
#[derive(Debug)]
pub struct History {
    /// By key, the ids in the order in which they were sent.
    pub sent: BTreeMap<String, Vec<String>>,
    /// Every try at handling one, in the order in which they began.
    pub tries: Vec<Try>,
    /// What is in the dead letters.
    pub dead: BTreeSet<String>,
    /// Processes that were killed.
    pub kills: usize,
}

/// Sends `each` messages per client to the queue `jobs` of `state_queue`, and waits until the queue is empty.
pub fn record(server: &Server, each: usize, victims: Victims) -> History {
    record_at(&[server], each, victims)
}

/// Does the same at several servers that share the queue, each with a database of its own for what it handled.
///
/// # Panics
///
/// If there is no server.
pub fn record_at(servers: &[&Server], each: usize, victims: Victims) -> History {
    let server = servers[0];
    let murders = servers.iter().map(|it| Murders::begin(it, victims));
    let murders: Vec<_> = murders.collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let addr = servers[client % servers.len()].addr();
            let key = format!("key-{client}");
            thread::spawn(move || {
                let ids = (0..each).map(|number| send(addr, &key, number)).collect();
                (key, ids)
            })
        })
        .collect();
    let sent = clients
        .into_iter()
        .map(|client| client.join().expect("a client does not panic"));
    let mut sent: BTreeMap<String, Vec<String>> = sent.collect();
    let kills = murders.into_iter().map(Murders::end).sum();
    // Alone: there is a broker that miscounts a queue whose last messages came together.
    for (key, ids) in &mut sent {
        ids.push(send(server.addr(), key, LAST));
    }
    eventually("every message is handled or dead", PATIENCE, || {
        // What one of them holds another one may not know.
        let is_empty = |server: &&Server| {
            let text = server.control(["queue", "ls", "--json"]);
            let queues: Value = serde_json::from_str(&text.stdout).unwrap_or_default();
            queues[0]["messages"] == 0
        };
        servers.iter().all(is_empty).then_some(())
    });
    // A broker that was just killed may not answer at once.
    let dead: Vec<Value> = eventually("dead letters are shown", PATIENCE, || {
        let peek = [
            "queue", "peek", "jobs", "--dead", "--count", "100", "--json",
        ];
        serde_json::from_str(&server.control(peek).stdout).ok()
    });
    let id = |message: &Value| message["id"].as_str().map(str::to_owned);
    History {
        sent,
        tries: tries_at(servers),
        dead: dead.iter().filter_map(id).collect(),
        kills,
    }
}

/// Returns every try at one of the servers, in the order in which they began.
fn tries_at(servers: &[&Server]) -> Vec<Try> {
    let mut tries: Vec<Try> = servers.iter().flat_map(|it| it.tries()).collect();
    if servers.len() > 1 {
        tries.sort_by_key(|one| one.start_ns);
        let mut known = BTreeSet::new();
        for one in &mut tries {
            one.first = known.insert(one.id.clone());
        }
    }
    tries
}

/// The number of a key's last message, which is handled.
const LAST: usize = 1000;

/// Sends one message until it is acknowledged, and returns its id. Of ten, one fails once, and one can never be
/// handled.
fn send(addr: SocketAddr, key: &str, number: usize) -> String {
    let body = match number % 10 {
        3 => json!({ "do": "retry", "after_ms": 10, "until": 1 }),
        8 => json!({ "do": "dead" }),
        _ => json!({ "do": "ack" }),
    };
    let dedup_id = format!("{key}-{number}");
    let message = json!([{ "key": key, "dedup_id": dedup_id, "body": body }]).to_string();
    eventually("the message is acknowledged", PATIENCE, || {
        let response = exchange(addr, "POST", "/send", &dedup_id, &message).ok()?;
        let answer: Value = serde_json::from_slice(&response.body).ok()?;
        Some(answer["ok"][0].as_str()?.to_owned())
    })
}

impl History {
    /// Returns what is wrong with it, with `attempts_max` as the queue's limit.
    pub fn faults(&self, attempts_max: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                faults.push(what);
            }
        };
        for (key, ids) in &self.sent {
            let first_tries: Vec<&String> = self
                .tries
                .iter()
                .filter(|one| one.first && one.key.as_ref() == Some(key))
                .map(|one| &one.id)
                .collect();
            for id in ids {
                // One that killed its workers before it could note itself is among the dead.
                let is_known = first_tries.contains(&id) || self.dead.contains(id);
                must(
                    is_known,
                    format!("{id} of {key} was acknowledged and is lost"),
                );
            }
            let in_order: Vec<&String> = ids.iter().filter(|id| first_tries.contains(id)).collect();
            must(
                in_order == first_tries,
                format!("{key} was sent as {in_order:?} and handled as {first_tries:?}"),
            );
            let unique: BTreeSet<&String> = ids.iter().collect();
            must(
                unique.len() == ids.len(),
                format!("two messages of {key} have one id"),
            );
        }
        for one in &self.tries {
            must(
                one.attempt <= attempts_max,
                format!("{} was tried too often", one.id),
            );
        }
        let told_dead = |one: &&Try| one.body["do"] == "dead";
        for one in self.tries.iter().filter(told_dead) {
            must(
                self.dead.contains(&one.id),
                format!("{} is not among the dead", one.id),
            );
        }
        faults
    }
}
