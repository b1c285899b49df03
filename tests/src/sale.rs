//! The sale: hundreds of buyers want a stock that is smaller than their number, while workers and the state process are
//! killed, and in the end the books are checked: sold + left = stock, orders = sold, and every sale that a buyer was told
//! of is there.

use crate::http1::try_exchange;
use crate::murder::{Murders, Victims};
use crate::response::Response;
use crate::server::Server;
use crate::wait::{SOON, eventually};
use serde::Deserialize;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// How to buy: the last part of `/buy/…`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// In a transaction.
    Db,
    /// Under a lock.
    Lock,
    /// Through a queue.
    Queue,
    /// In memory, which cannot work: the control.
    Memory,
}

impl Way {
    /// Every way that must not oversell.
    pub const SOUND: [Self; 3] = [Self::Db, Self::Lock, Self::Queue];

    /// Returns its name in the URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Lock => "lock",
            Self::Queue => "queue",
            Self::Memory => "memory",
        }
    }
}

/// A sale that is about to begin.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    /// How to buy.
    pub way: Way,
    /// How many there are.
    pub stock: u32,
    /// How many buyers want one each.
    pub buyers: u32,
    /// Who is killed meanwhile.
    pub victims: Victims,
}

/// What `GET /stats` says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub struct Stats {
    /// What there was.
    pub stock: i64,
    /// What there is.
    pub left: i64,
    /// What is gone.
    pub sold: i64,
    /// What orders say was sold.
    pub orders: i64,
}

/// What came of a sale.
#[derive(Debug)]
pub struct Report {
    /// The books in the end.
    pub stats: Stats,
    /// Buyers who were told that they have one.
    pub acknowledged: usize,
    /// Processes that were killed.
    pub kills: usize,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// How long it took.
    pub took: Duration,
    /// What is wrong with the books.
    pub faults: Vec<String>,
}

/// How long a buyer goes on asking.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a buyer was told in the end.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Told {
    Sold,
    SoldOut,
    Nothing,
}

impl Sale {
    /// Holds the sale at a server of `examples/inventory`.
    pub fn hold(self, server: &Server) -> Report {
        self.hold_at(&[server])
    }

    /// Holds the sale at several servers that share all there is.
    ///
    /// # Panics
    ///
    /// If there is no server.
    pub fn hold_at(self, servers: &[&Server]) -> Report {
        let server = servers[0];
        let begin = Instant::now();
        persist(
            server.addr(),
            "POST",
            &format!("/reset?stock={}", self.stock),
            "reset",
        );
        let murders = servers.iter().map(|it| Murders::begin(it, self.victims));
        let murders: Vec<_> = murders.collect();
        let buyers: Vec<_> = (0..self.buyers)
            .map(|number| {
                let place = number as usize % servers.len();
                let (addr, way) = (servers[place].addr(), self.way);
                let id = format!("{}-{number}", way.name());
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || (buy(addr, way, &id), id))
                    .expect("a thread can be started")
            })
            .collect();
        let mut retries = 0;
        let mut told = Vec::new();
        for buyer in buyers {
            let ((answer, tries), id) = buyer.join().expect("a buyer does not panic");
            retries += tries - 1;
            told.push((id, answer));
        }
        let kills = murders.into_iter().map(Murders::end).sum();
        let stats = settled(server);
        Report {
            faults: self.faults(server, stats, &told),
            stats,
            acknowledged: told.iter().filter(|(_, told)| *told == Told::Sold).count(),
            kills,
            retries,
            took: begin.elapsed(),
        }
    }

    /// Checks the books.
    fn faults(self, server: &Server, stats: Stats, told: &[(String, Told)]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                faults.push(what);
            }
        };
        let Stats {
            stock,
            left,
            sold,
            orders,
        } = stats;
        let wanted = i64::from(self.stock.min(self.buyers));
        must(
            stock == i64::from(self.stock),
            format!("the stock was {} and is {stock}", self.stock),
        );
        must(left >= 0, format!("{left} are left"));
        must(
            sold + left == stock,
            format!("{sold} sold and {left} left of {stock}"),
        );
        must(orders == sold, format!("{orders} orders for {sold} sold"));
        must(sold == wanted, format!("{sold} sold, {wanted} should be"));
        let acknowledged = told.iter().filter(|(_, told)| *told == Told::Sold).count();
        must(
            acknowledged == usize::try_from(orders).unwrap_or(0),
            format!("{acknowledged} buyers were told that they have one, {orders} do"),
        );
        for (id, told) in told {
            let status = match told {
                Told::Sold => "sold",
                Told::SoldOut => continue,
                Told::Nothing => {
                    must(false, format!("buyer {id} was never answered"));
                    continue;
                }
            };
            let order = persist(server.addr(), "GET", &format!("/orders/{id}"), id).text();
            must(
                order.contains(&format!("\"{status}\"")),
                format!("order {id} is {order}"),
            );
        }
        faults.truncate(20);
        faults
    }
}

/// Waits until nobody is pending, and returns the books.
fn settled(server: &Server) -> Stats {
    let read = || {
        let text = persist(server.addr(), "GET", "/stats", "stats").text();
        serde_json::from_str::<Stats>(&text).expect("the stats")
    };
    let mut last = read();
    // With every buyer answered nothing moves any more; a consumer that was late would show between two looks.
    eventually("the books do not move", SOON, || {
        let now = read();
        let is_still = now == last;
        last = now;
        is_still.then_some(now)
    })
}

/// Buys one, asking again under the same id until there is an answer; returns it, and how often it took.
fn buy(addr: SocketAddr, way: Way, id: &str) -> (Told, u64) {
    let begin = Instant::now();
    let mut tries = 0;
    let target = format!("/buy/{}", way.name());
    while begin.elapsed() < PATIENCE {
        tries += 1;
        match exchange(addr, "POST", &target, id, "") {
            Ok(response) if response.status == 200 => return (Told::Sold, tries),
            Ok(response) if response.status == 409 => return (Told::SoldOut, tries),
            Ok(response) if response.status == 202 => return (outcome(addr, id, begin), tries),
            _ => thread::sleep(PAUSE),
        }
    }
    (Told::Nothing, tries)
}

/// A client's pause before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The pause before it asks again what became of an order: hundreds ask.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Asks what became of an order.
fn outcome(addr: SocketAddr, id: &str, begin: Instant) -> Told {
    while begin.elapsed() < PATIENCE {
        if let Ok(response) = exchange(addr, "GET", &format!("/orders/{id}"), id, "") {
            match response.text() {
                text if text.contains("\"sold\"") => return Told::Sold,
                text if text.contains("\"rejected\"") => return Told::SoldOut,
                _ => {}
            }
        }
        thread::sleep(LOOK_AGAIN);
    }
    Told::Nothing
}

/// Sends a request until it is answered with 200.
pub(crate) fn persist(addr: SocketAddr, method: &str, target: &str, id: &str) -> Response {
    eventually(target, PATIENCE, || {
        exchange(addr, method, target, id, "")
            .ok()
            .filter(|response| response.status == 200)
    })
}

/// Sends one request with an idempotency key; an answer that takes longer than 30 s is none.
pub(crate) fn exchange(
    addr: SocketAddr,
    method: &str,
    target: &str,
    id: &str,
    body: &str,
) -> std::io::Result<Response> {
    let headers = [("idempotency-key", id)];
    let patience = Duration::from_secs(30);
    try_exchange(addr, patience, (method, target), &headers, body)
}
