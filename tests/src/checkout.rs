//! The checkout: customers place orders at `examples/payments` while processes are killed, and in the end the books are
//! checked: every order that was acknowledged is there and decided, and nobody is charged twice, or for nothing.

use crate::murder::{Murders, Victims};
use crate::sale::{exchange, persist};
use crate::server::Server;
use crate::wait::eventually;
use serde::Deserialize;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// What `GET /stats` says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub struct Stats {
    /// Orders that were placed.
    pub orders: u64,
    /// Orders that were paid for.
    pub paid: u64,
    /// Orders that were given up.
    pub failed: u64,
    /// Orders that are not decided.
    pub pending: u64,
    /// Charges in the log.
    pub charges: u64,
    /// Orders with more than one charge.
    pub double_charged: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// The books in the end.
    pub stats: Stats,
    /// Processes that were killed.
    pub kills: usize,
    /// What is wrong with the books.
    pub faults: Vec<String>,
}

/// How long a customer goes on asking, and how long the last message may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Customers whose payments fail in the ways that the example knows, and one whose payment works.
const CUSTOMERS: [&str; 3] = ["good", "flaky-2", "fraud"];

/// Places `orders` orders, a few at a time, and waits until each is decided.
pub fn run(server: &Server, orders: usize, victims: Victims) -> Report {
    run_at(&[server], orders, victims)
}

/// Does so at several servers that share all there is.
///
/// # Panics
///
/// If there is no server.
pub fn run_at(servers: &[&Server], orders: usize, victims: Victims) -> Report {
    const CLIENTS: usize = 16;
    let server = servers[0];
    let murders = servers.iter().map(|it| Murders::begin(it, victims));
    let murders: Vec<_> = murders.collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let addr = servers[client % servers.len()].addr();
            let mine: Vec<usize> = (client..orders).step_by(CLIENTS).collect();
            thread::spawn(move || mine.into_iter().for_each(|number| place(addr, number)))
        })
        .collect();
    for client in clients {
        client.join().expect("a client does not panic");
    }
    let kills = murders.into_iter().map(Murders::end).sum();
    let stats = eventually("every order is decided", PATIENCE, || {
        Some(stats(server)).filter(|stats| stats.pending == 0)
    });
    let fraud = (0..orders)
        .filter(|number| customer(*number).starts_with("fraud"))
        .count() as u64;
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{what}: {stats:?}"));
        }
    };
    must(
        stats.orders == orders as u64,
        "every acknowledged order is there, once",
    );
    must(stats.double_charged == 0, "nobody is charged twice");
    must(stats.charges == stats.paid, "who is charged has paid");
    must(
        stats.paid + stats.failed == stats.orders,
        "every order is paid or given up",
    );
    must(stats.failed >= fraud, "fraud is given up");
    // A process that is killed during the last try leaves an order to the dead letters, at most one batch of them.
    must(
        stats.failed <= fraud + 10 * kills as u64,
        "other payments succeed in the end",
    );
    Report {
        stats,
        kills,
        faults,
    }
}

fn customer(number: usize) -> &'static str {
    CUSTOMERS[number % CUSTOMERS.len()]
}

fn stats(server: &Server) -> Stats {
    let text = persist(server.addr(), "GET", "/stats", "stats").text();
    serde_json::from_str(&text).expect("the stats")
}

/// Places an order under an id of its own until it is acknowledged.
fn place(addr: SocketAddr, number: usize) {
    // A key of its own for most, so that orders are handled side by side; the rest share one and come in order.
    let customer = match customer(number) {
        "good" if number.is_multiple_of(2) => format!("good-{number}"),
        name => name.to_owned(),
    };
    let body = format!(
        "{{\"customer\": \"{customer}\", \"amount_cents\": {}}}",
        100 + number
    );
    eventually("the order is acknowledged", PATIENCE, || {
        let id = format!("order-{number}");
        exchange(addr, "POST", "/orders", &id, &body)
            .ok()
            .filter(|response| response.status == 201)
    });
}
