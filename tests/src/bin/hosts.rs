//! `just hosts`: three hosts, each with a wrun of two workers, share a Redis for locks, a PostgreSQL for the database and a
//! RabbitMQ for queues; while they sell and charge, one is cut off for longer than its leases, another is killed, and both come
//! back. Fails if books are wrong, or if the broken way to sell is not noticed: then the run could not notice.
//!
//! Usage: hosts [BINARY]. It needs root, for `ip netns`.

use nix::sys::signal::Signal;
use std::process::ExitCode;
use std::thread::{Scope, ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::hosts::{HERE, Hosts, NETWORK};
use wrun_tests::murder::Victims;
use wrun_tests::postgres::Postgres;
use wrun_tests::rabbitmq::Rabbit;
use wrun_tests::redis::Redis;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::{Launch, Server, Wrun, checkout, process, repository};

/// The one that nothing happens to, the one that is cut off, and the one that is killed.
const HOSTS: [u8; 3] = [1, 2, 3];
const CUT: usize = 1;
const KILLED: usize = 2;

/// How long one is cut off: leases of messages are 10 s.
const CUT_FOR: Duration = Duration::from_secs(12);

/// How long it all goes well.
const BEFORE: Duration = Duration::from_millis(700);

/// What is sold, and to how many; and orders that are placed.
const STOCK: u32 = 200;
const BUYERS: u32 = 300;
const ORDERS: usize = 150;

fn main() -> ExitCode {
    let binary = std::env::args_os().nth(1);
    let binary = binary.map_or_else(|| repository().join("target/release/wrun"), Into::into);
    // What is built is fetched through the machine's own network.
    let (inventory, payments) = (example("inventory"), example("payments"));
    let last = HOSTS.len() as u8;
    let hosts = match Hosts::new(last) {
        Ok(hosts) => hosts,
        Err(error) => {
            eprintln!("hosts: network namespaces cannot be made: {error}\n  hint: run it as root");
            return ExitCode::FAILURE;
        }
    };
    let Some(engines) = Engines::start() else {
        return ExitCode::FAILURE;
    };
    let wrun = Wrun::new(binary);
    println!(
        "{:<10} {:>6} {:>6} {:>8} {:>7} {:>6}  books",
        "what", "orders", "done", "told so", "retries", "ms"
    );
    let mut wrong = false;
    for way in Way::SOUND {
        let shop = engines.bind(wrun.serve(&inventory), way.name(), "orders");
        wrong |= !sell(&hosts, &shop, way);
    }
    let desk = engines.bind(wrun.serve(&payments), "payments", "payments");
    wrong |= !pay(&hosts, &desk);
    let shop = engines.bind(wrun.serve(&inventory), "control", "orders");
    let noticed = !sell(&hosts, &shop, Way::Memory);
    match (wrong, noticed) {
        (false, true) => println!("all books are right, and the control was noticed"),
        (true, _) => println!("books are wrong"),
        (false, false) => println!("the control was not noticed: this run proves nothing"),
    }
    if noticed && !wrong {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What the hosts share.
struct Engines {
    redis: Redis,
    postgres: Postgres,
    rabbit: Rabbit,
}

impl Engines {
    fn start() -> Option<Self> {
        let everywhere = ["--bind", "0.0.0.0", "--protected-mode", "no"];
        let redis = Redis::with(&everywhere)?;
        let mut postgres = Postgres::for_test()?;
        postgres.serve_to(NETWORK);
        let mut rabbit = Rabbit::for_test()?;
        rabbit.serve_at(HERE);
        Some(Self {
            redis,
            postgres,
            rabbit,
        })
    }

    /// Binds all of a server's labels, so that `what` has nothing in common with what was before.
    fn bind(&self, launch: Launch, what: &str, queue: &str) -> Launch {
        self.postgres.create(what);
        let postgres = format!("postgres://postgres@{HERE}:{}/{what}", self.postgres.port());
        let redis = format!("redis://{HERE}:{}", self.redis.port());
        let rabbit = self.rabbit.virtual_host();
        let rabbit = rabbit.replace("127.0.0.1", &HERE.to_string());
        launch
            .workers(2)
            .flag("--bind", format!("db.default={postgres}"))
            // It has a password, which a flag may not have.
            .env(&format!("WRUN_BIND_QUEUE_{}", queue.to_uppercase()), rabbit)
            .flag("--lock", "default")
            .flag("--bind", format!("lock.default={redis}"))
    }
}

/// Has something go on at all hosts while one is cut off and another is killed.
fn through_disasters<T: Send>(
    hosts: &Hosts,
    launch: &Launch,
    run: impl FnOnce(&[&Server]) -> T + Send,
) -> T {
    // A host that comes back has what was on its disk.
    let disks: Vec<_> = HOSTS.iter().map(|_| wrun_tests::folder()).collect();
    let start = |at: usize| {
        let launch = launch.clone().state(disks[at].path());
        hosts.on(HOSTS[at], launch).start()
    };
    let servers: Vec<Server> = (0..HOSTS.len()).map(start).collect();
    let servers: Vec<&Server> = servers.iter().collect();
    scope(|scope: &Scope<'_, '_>| {
        let going_on: ScopedJoinHandle<'_, T> = scope.spawn(|| run(&servers));
        sleep(BEFORE);
        hosts.cut(HOSTS[CUT]);
        let cut = Instant::now();
        sleep(BEFORE);
        for pid in process::family(servers[KILLED].pid()) {
            process::send(pid, Signal::SIGKILL);
        }
        sleep(BEFORE);
        // It has to last: it ends with the thread that started it.
        let _again = start(KILLED);
        sleep(CUT_FOR.saturating_sub(cut.elapsed()));
        hosts.join(HOSTS[CUT]);
        going_on.join().expect("it goes on")
    })
}

fn sell(hosts: &Hosts, shop: &Launch, way: Way) -> bool {
    let sale = Sale {
        way,
        stock: STOCK,
        buyers: BUYERS,
        victims: Victims::Nobody,
    };
    let report = through_disasters(hosts, shop, |servers| sale.hold_at(servers));
    println!(
        "{:<10} {:>6} {:>6} {:>8} {:>7} {:>6}  {}",
        way.name(),
        BUYERS,
        report.stats.sold,
        report.acknowledged,
        report.retries,
        report.took.as_millis(),
        verdict(&report.faults),
    );
    report.faults.is_empty()
}

fn pay(hosts: &Hosts, desk: &Launch) -> bool {
    let begin = Instant::now();
    let report = through_disasters(hosts, desk, |servers| {
        checkout::run_at(servers, ORDERS, Victims::Nobody)
    });
    println!(
        "{:<10} {ORDERS:>6} {:>6} {:>8} {:>7} {:>6}  {}",
        "payments",
        report.stats.charges,
        report.stats.orders,
        "",
        begin.elapsed().as_millis(),
        verdict(&report.faults),
    );
    report.faults.is_empty()
}

fn verdict(faults: &[String]) -> String {
    match faults {
        [] => "right".to_owned(),
        faults => format!("WRONG: {}", faults.join("; ")),
    }
}
