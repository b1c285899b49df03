//! Databases that are bound to MariaDB: the same guests on a real server that is killed, cut off, or loses the answer to a
//! commit; what they are told while it is away, and who gets to know its password.

use crate::wrun;
use serde_json::Value;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::mariadb::{MariaDb, product};
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::sale::{Report, Sale, Way};
use wrun_tests::{Launch, Outcome, SOON, eventually, folder};

const PASSWORD: &str = "s3cret-and-long";

/// Starts a MariaDB with an empty database `shop`.
fn mariadb() -> Option<MariaDb> {
    let mariadb = MariaDb::for_test()?;
    mariadb.create("shop");
    Some(mariadb)
}

fn shop(url: &str) -> Launch {
    let launch = wrun().serve(example("inventory")).workers(4);
    launch.flag("--bind", format!("db.default={url}"))
}

fn sale(way: Way, victims: Victims) -> Sale {
    Sale {
        way,
        stock: 60,
        buyers: 100,
        victims,
    }
}

fn hold(launch: Launch, way: Way, victims: Victims) -> Report {
    sale(way, victims).hold(&launch.start())
}

/// Gives a user a password, and returns the URL with it.
fn with_password(mariadb: &MariaDb) -> String {
    let anew = "DROP USER IF EXISTS safe@'127.0.0.1'";
    let create = format!("{anew}; CREATE USER safe@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'");
    mariadb.query(
        "shop",
        &format!("{create}; GRANT ALL ON shop.* TO safe@'127.0.0.1'"),
    );
    safe_url(mariadb)
}

fn safe_url(mariadb: &MariaDb) -> String {
    let url = mariadb.url("shop");
    url.replace("wrun@", &format!("safe:{PASSWORD}@"))
}

fn sold(mariadb: &MariaDb) -> u32 {
    let sold = mariadb.query("shop", "SELECT count(*) FROM orders WHERE status = 'sold'");
    sold.parse().expect("a number")
}

#[test]
fn sale_in_transactions_does_not_oversell_while_workers_and_state_process_are_killed() {
    let Some(mariadb) = mariadb() else { return };
    let report = hold(shop(&mariadb.url("shop")), Way::Db, Victims::Both);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    // There, and not in a file.
    assert_eq!(
        mariadb.query("shop", "SELECT stock - remaining FROM item"),
        "60"
    );
    assert_eq!(
        mariadb.query("shop", "SELECT name FROM _wrun_migrations"),
        "1-stock.sql"
    );
}

#[test]
fn sale_under_a_lock_does_not_oversell_while_workers_and_state_process_are_killed() {
    let Some(mariadb) = mariadb() else { return };
    let report = hold(shop(&mariadb.local_url("shop")), Way::Lock, Victims::Both);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
}

#[test]
fn sale_from_memory_oversells_and_the_check_notices() {
    let Some(mariadb) = mariadb() else { return };
    let report = hold(shop(&mariadb.url("shop")), Way::Memory, Victims::Nobody);
    assert!(!report.faults.is_empty(), "{report:#?}");
}

#[test]
fn server_that_is_killed_is_away_at_once_and_what_was_acknowledged_is_there_when_it_is_back() {
    let Some(mut mariadb) = mariadb() else { return };
    let server = shop(&mariadb.url("shop")).start();
    // So many that they are not gone before somebody looks.
    let sale = Sale {
        stock: 300,
        buyers: 360,
        ..sale(Way::Db, Victims::Nobody)
    };
    thread::scope(|scope| {
        let held = scope.spawn(|| sale.hold(&server));
        eventually("some are sold", SOON, || {
            (sold(&mariadb) >= 1).then_some(())
        });
        mariadb.kill();
        // It fails, and does not wait: until it is back nobody would answer.
        assert_eq!(server.get("/stats").status, 500);
        assert!(server.log().line_with("unavailable").contains("MariaDB"));
        mariadb.start_again();
        let report = held.join().expect("the sale goes on");
        assert!(report.faults.is_empty(), "{report:#?}");
        assert!(report.retries > 0, "{report:#?}");
    });
}

#[test]
fn sale_is_exact_while_the_way_to_the_server_is_slow_silent_and_cut() {
    let Some(mariadb) = mariadb() else { return };
    let proxy = Proxy::to(mariadb.port());
    let port = mariadb.port().to_string();
    let url = mariadb
        .url("shop")
        .replace(&port, &proxy.port().to_string());
    let server = shop(&url).start();
    let slow = Weather::Slow(Duration::from_millis(3));
    proxy.be(slow);
    let report = thread::scope(|scope| {
        let held = scope.spawn(|| sale(Way::Db, Victims::Nobody).hold(&server));
        let wait_for = |count: u32| {
            eventually("some more are sold", SOON, || {
                (sold(&mariadb) >= count || held.is_finished()).then_some(())
            });
        };
        wait_for(10);
        proxy.be(Weather::Silent);
        let since = Instant::now();
        eventually("a second", SOON, || {
            (since.elapsed() >= Duration::from_secs(1)).then_some(())
        });
        proxy.be(slow);
        wait_for(20);
        proxy.be(Weather::Cut);
        assert_eq!(server.get("/stats").status, 500);
        proxy.be(Weather::Fair);
        held.join().expect("the sale goes on")
    });
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.retries > 0, "{report:#?}");
}

#[test]
fn commits_whose_answers_are_lost_are_said_to_be_unknown_and_asking_again_under_the_same_name_is_safe()
 {
    let Some(mariadb) = mariadb() else { return };
    let proxy = Proxy::to(mariadb.port());
    let port = mariadb.port().to_string();
    let url = mariadb
        .url("shop")
        .replace(&port, &proxy.port().to_string());
    let server = shop(&url).start();
    proxy.be(Weather::LosesCommits(5));
    let report = sale(Way::Db, Victims::Nobody).hold(&server);
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(proxy.lost() > 0 && report.retries > 0, "{report:#?}");
    server.log().line_with("outcome");
    // Who asks again under another name has bought twice.
    proxy.be(Weather::Fair);
    assert_eq!(server.post("/reset?stock=60", b"").status, 200);
    proxy.be(Weather::LosesCommits(5));
    let buy = |number: usize| {
        let mut connection = server.connect();
        let id = format!("again-{number}");
        let answer = connection.exchange("POST", "/buy/db", &[("idempotency-key", &id)], b"");
        answer.status == 200
    };
    let acknowledged = (0..40).filter(|&number| buy(number)).count();
    assert!(
        acknowledged < 40 && sold(&mariadb) as usize > acknowledged,
        "{acknowledged}"
    );
}

#[test]
fn server_that_is_away_at_the_start_is_said_to_be() {
    let Some(mut mariadb) = mariadb() else { return };
    let url = mariadb.url("shop");
    mariadb.stop();
    let outcome = shop(&url).fail();
    outcome.fails_after_its_log_with(69, &["database default", "refused", "db.default"]);
    mariadb.start_again();
}

#[test]
fn ps_says_where_a_label_is_and_whether_it_can_be_reached_and_nobody_gets_to_know_the_password() {
    let Some(mut mariadb) = mariadb() else { return };
    let launch = wrun().serve(example("inventory")).workers(2);
    let server = launch
        .env("WRUN_BIND_DB_DEFAULT", with_password(&mariadb))
        .start();
    assert_eq!(server.get("/stats").status, 200);
    let becomes = |reachable: bool| {
        eventually("ps knows", SOON, || {
            let ps = server.ps();
            let binding = &ps["bindings"][0];
            (binding["reachable"] == reachable).then(|| binding.clone())
        })
    };
    let place = format!("mysql://127.0.0.1:{}/shop", mariadb.port());
    let here = becomes(true);
    assert_eq!(here["name"], "db.default");
    assert_eq!(
        (&here["backend"], &here["url"]),
        (&"mysql".into(), &Value::from(&*place))
    );
    mariadb.stop();
    becomes(false);
    let told = server.control(["ps"]).stdout;
    let line = format!("db.default is at {place}, away: ");
    assert!(told.contains(&line), "{told}");
    mariadb.start_again();
    becomes(true);
    assert_eq!(server.get("/stats").status, 200);

    let read = |pid: i32, what: &str| {
        let text = fs::read(format!("/proc/{pid}/{what}")).expect("the process is there");
        String::from_utf8_lossy(&text).contains(PASSWORD)
    };
    // Or the rest would prove nothing.
    assert!(read(server.pid(), "environ"));
    let workers = server.workers();
    let workers = workers.iter().map(|worker| worker.pid);
    for pid in workers.chain([server.state_pid()]) {
        assert!(!read(pid, "environ") && !read(pid, "cmdline"));
    }
    assert!(!told.contains(PASSWORD) && !server.ps().to_string().contains(PASSWORD));
    assert!(!server.log().text().contains(PASSWORD));
}

/// Returns what `wrun doctor` finds of this URL.
fn doctor(url: &str) -> (Option<i32>, Value) {
    let here = folder();
    let mut command = wrun().command();
    command.args(["doctor", "--json", "--db", "default"]);
    command
        .env("WRUN_BIND_DB_DEFAULT", url)
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    assert!(!outcome.stdout.contains(PASSWORD), "{}", outcome.stdout);
    let report = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    (outcome.code, report)
}

#[test]
fn doctor_tries_a_binding_and_says_what_weakens_a_promise() {
    let Some(mut mariadb) = mariadb() else { return };
    let (code, report) = doctor(&with_password(&mariadb));
    assert_eq!(code, Some(0), "{report}");
    let found = |report: &Value, what: &str| {
        let finding = finding(report, &format!("db.default{what}"));
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("found"), text("next"))
    };
    let server = found(&report, "");
    assert!(
        server.0 == "ok" && server.1.starts_with(product()),
        "{server:?}"
    );
    assert_eq!(found(&report, " durability").0, "ok");
    assert!(found(&report, " isolation").1.contains("serializable"));
    assert_eq!(found(&report, " TLS").1, "none, on this machine");

    let weaken = "SET GLOBAL innodb_flush_log_at_trx_commit = 2, GLOBAL sql_mode = ''";
    mariadb.query(
        "shop",
        &format!("{weaken}; CREATE TABLE old (a int) ENGINE = MyISAM"),
    );
    let (code, report) = doctor(&with_password(&mariadb));
    let weak = found(&report, " durability");
    assert_eq!((code, &*weak.0), (Some(0), "off"), "{report}");
    assert!(
        weak.2.contains("innodb_flush_log_at_trx_commit=1"),
        "{weak:?}"
    );
    assert_eq!(found(&report, " tables").0, "off");
    assert_eq!(found(&report, " sql_mode").0, "info");

    mariadb.stop();
    let (code, report) = doctor(&safe_url(&mariadb));
    let away = found(&report, "");
    assert_eq!((code, &*away.0), (Some(69), "missing"), "{report}");
    assert!(away.1.contains("refused"), "{away:?}");
    mariadb.start_again();
}

#[test]
fn send_in_from_a_bound_database_to_an_embedded_queue_says_why_it_cannot_be() {
    let Some(mariadb) = mariadb() else { return };
    let server = shop(&mariadb.url("shop")).start();
    assert_eq!(server.post("/buy/queue", b"").status, 500);
    server.log().line_with(
        "queue sends in a transaction need a queue that is bound: db.default is bound to MariaDB",
    );
    assert_eq!(mariadb.query("shop", "SELECT count(*) FROM orders"), "0");
}
