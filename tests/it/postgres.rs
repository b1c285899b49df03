//! Databases that are bound to PostgreSQL: the same guests on a real server, what they are told while it is away, and who
//! gets to know its password.

use crate::{serve, wrun};
use serde_json::Value;
use std::fs;
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::sale::{Report, Sale, Way};
use wrun_tests::{Launch, Outcome, SOON, eventually, folder};

const PASSWORD: &str = "s3cret-and-long";

/// Starts a PostgreSQL with an empty database `shop`.
fn postgres() -> Option<Postgres> {
    let postgres = Postgres::for_test()?;
    postgres.create("shop");
    Some(postgres)
}

fn shop(url: &str) -> Launch {
    let launch = wrun().serve(example("inventory")).workers(4);
    launch.flag("--bind", format!("db.default={url}"))
}

fn hold(launch: Launch, way: Way, victims: Victims) -> Report {
    let server = launch.start();
    let sale = Sale {
        way,
        stock: 60,
        buyers: 100,
        victims,
    };
    sale.hold(&server)
}

/// Returns the URL with a password, which the server does not ask for.
fn with_password(postgres: &Postgres) -> String {
    let url = postgres.url("shop");
    url.replace("postgres@", &format!("postgres:{PASSWORD}@"))
}

#[test]
fn sale_in_transactions_does_not_oversell_while_workers_and_state_process_are_killed() {
    let Some(postgres) = postgres() else { return };
    // The name has to be resolved, in the sandbox.
    let url = postgres.url("shop").replace("127.0.0.1", "localhost");
    let report = hold(shop(&url), Way::Db, Victims::Both);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    // There, and not in a file.
    let sold = "SELECT stock - remaining FROM item";
    assert_eq!(postgres.query("shop", sold), "60");
    assert_eq!(
        postgres.query("shop", "SELECT name FROM wrun.migrations"),
        "1-stock.sql"
    );
}

#[test]
fn sale_under_a_lock_does_not_oversell_while_workers_and_state_process_are_killed() {
    let Some(postgres) = postgres() else { return };
    let report = hold(shop(&postgres.local_url("shop")), Way::Lock, Victims::Both);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
}

#[test]
fn sale_from_memory_oversells_and_the_check_notices() {
    let Some(postgres) = postgres() else { return };
    let report = hold(shop(&postgres.url("shop")), Way::Memory, Victims::Nobody);
    assert!(!report.faults.is_empty(), "{report:#?}");
}

#[test]
fn server_that_is_killed_is_away_at_once_and_what_was_acknowledged_is_there_when_it_is_back() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let server = shop(&postgres.url("shop")).start();
    let sale = Sale {
        way: Way::Db,
        // So many that they are not gone before somebody looks.
        stock: 300,
        buyers: 360,
        victims: Victims::Nobody,
    };
    std::thread::scope(|scope| {
        let held = scope.spawn(|| sale.hold(&server));
        eventually("some are sold", SOON, || {
            let sold = postgres.query("shop", "SELECT count(*) FROM orders WHERE status = 'sold'");
            (sold.parse::<u32>().ok()? >= 1).then_some(())
        });
        postgres.kill();
        // It fails, and does not wait: until it is back nobody would answer.
        assert_eq!(server.get("/stats").status, 500);
        assert!(server.log().line_with("unavailable").contains("PostgreSQL"));
        postgres.start_again();
        let report = held.join().expect("the sale goes on");
        assert!(report.faults.is_empty(), "{report:#?}");
        assert!(report.retries > 0, "{report:#?}");
    });
}

#[test]
fn server_that_is_away_at_the_start_is_said_to_be() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let url = postgres.url("shop");
    postgres.stop();
    let launch = serve("state_db").flag("--db", "default");
    let outcome = launch.flag("--bind", format!("db.default={url}")).fail();
    outcome.fails_after_its_log_with(69, &["database default", "refused", "db.default"]);
    postgres.start_again();
}

#[test]
fn ps_says_where_a_label_is_and_whether_it_can_be_reached_without_anybody_asking_for_it() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let launch = wrun().serve(example("inventory")).workers(1);
    let server = launch
        .env("WRUN_BIND_DB_DEFAULT", with_password(&postgres))
        .start();
    let becomes = |reachable: bool| {
        eventually("ps knows", SOON, || {
            let ps = server.ps();
            let binding = &ps["bindings"][0];
            (binding["reachable"] == reachable).then(|| binding.clone())
        })
    };
    let place = format!("postgres://127.0.0.1:{}/shop", postgres.port());
    let here = becomes(true);
    assert_eq!(here["name"], "db.default");
    assert_eq!(
        (&here["backend"], &here["url"]),
        (&"postgres".into(), &Value::from(&*place))
    );
    postgres.stop();
    becomes(false);
    // At first it may have said that it shuts down.
    eventually("ps knows why", SOON, || {
        let ps = server.ps();
        let why = ps["bindings"][0]["why"].as_str()?;
        why.contains("refused").then_some(())
    });
    let told = server.control(["ps"]).stdout;
    let line = format!("db.default is at {place}, away: ");
    assert!(told.contains(&line), "{told}");
    postgres.start_again();
    becomes(true);
    // Where it is, and not how to get in.
    assert!(!told.contains(PASSWORD) && !server.ps().to_string().contains(PASSWORD));
    assert_eq!(server.get("/stats").status, 200);
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
    let Some(mut postgres) = postgres() else {
        return;
    };
    let (code, report) = doctor(&with_password(&postgres));
    assert_eq!(code, Some(0), "{report}");
    let server = finding(&report, "db.default");
    assert_eq!(server["status"], "ok");
    assert!(
        server["found"]
            .as_str()
            .unwrap()
            .starts_with("PostgreSQL 1"),
        "{server}"
    );
    assert_eq!(finding(&report, "db.default durability")["status"], "ok");
    let isolation = finding(&report, "db.default isolation");
    assert!(
        isolation["found"]
            .as_str()
            .unwrap()
            .contains("serializable"),
        "{isolation}"
    );
    assert_eq!(
        finding(&report, "db.default TLS")["found"],
        "none, on this machine"
    );

    postgres.query("shop", "ALTER DATABASE shop SET synchronous_commit = off");
    postgres.encrypt();
    let (code, report) = doctor(&with_password(&postgres));
    let weak = finding(&report, "db.default durability");
    assert_eq!(
        (code, &weak["status"]),
        (Some(0), &"off".into()),
        "{report}"
    );
    assert!(
        weak["next"]
            .as_str()
            .unwrap()
            .contains("synchronous_commit"),
        "{weak}"
    );
    let tls = finding(&report, "db.default TLS");
    assert_eq!(tls["found"], "TLSv1.3");

    postgres.stop();
    let (code, report) = doctor(&with_password(&postgres));
    let away = finding(&report, "db.default");
    assert_eq!(
        (code, &away["status"]),
        (Some(69), &"missing".into()),
        "{report}"
    );
    assert!(
        away["found"].as_str().unwrap().contains("refused"),
        "{away}"
    );
    postgres.start_again();
}

#[test]
fn password_is_in_no_worker_and_in_no_log() {
    let Some(postgres) = postgres() else { return };
    let launch = wrun().serve(example("inventory")).workers(2);
    let server = launch
        .env("WRUN_BIND_DB_DEFAULT", with_password(&postgres))
        .start();
    assert_eq!(server.get("/stats").status, 200);
    let read = |pid: i32, what: &str| {
        let text = fs::read(format!("/proc/{pid}/{what}")).expect("the process is there");
        String::from_utf8_lossy(&text).contains(PASSWORD)
    };
    // Or the rest would prove nothing.
    assert!(read(server.pid(), "environ"));
    let workers: Vec<i32> = server.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(workers.len(), 2);
    for pid in workers.into_iter().chain([server.state_pid()]) {
        assert!(!read(pid, "environ") && !read(pid, "cmdline"));
    }
    assert!(!server.ps().to_string().contains(PASSWORD));
    assert!(!server.log().text().contains(PASSWORD));
}

#[test]
fn bindings_that_make_no_sense_are_refused_with_a_hint() {
    let folder = folder();
    let file = folder.path().join("bindings.toml");
    fs::write(&file, format!("[db]\ndefault = {PASSWORD}\n")).expect("the folder takes files");
    let guest = || serve("state_db").flag("--db", "default");
    let bind = |what: &str| guest().flag("--bind", what);
    let listed = guest().flag("--bindings", &file);
    let variable = guest().env("WRUN_BIND_DB_NOWHERE", "postgres://x/y");
    for (launch, code, says) in [
        (
            bind("db.nowhere=postgres://x/y"),
            78,
            &["nowhere", "[databases.nowhere]"][..],
        ),
        (
            bind("db.default=redis://x"),
            78,
            &["redis://", "postgres://"],
        ),
        (
            bind("db.default=env:WRUN_X_NOT_SET"),
            78,
            &["WRUN_X_NOT_SET"],
        ),
        (bind("db.default=file:/nowhere/url"), 66, &["/nowhere/url"]),
        (
            bind(&format!("db.default=postgres://a:{PASSWORD}@x/y")),
            64,
            &["env:NAME"],
        ),
        (
            bind("db.default=postgres://x/y?sslmode=allow"),
            78,
            &["sslmode", "db.default"],
        ),
        (listed, 78, &["line 2", "[db]"]),
        (variable, 78, &["WRUN_BIND_DB_NOWHERE"]),
    ] {
        let outcome = launch.fail();
        outcome.fails_after_its_log_with(code, says);
        assert!(!outcome.stderr.contains(PASSWORD), "{}", outcome.stderr);
    }
}

#[test]
fn other_bindings_are_refused_by_a_reload() {
    let Some(postgres) = postgres() else { return };
    let folder = folder();
    let file = folder.path().join("bindings.toml");
    let write = |database: &str| {
        let text = format!("[db]\ndefault = \"{}\"\n", postgres.url(database));
        fs::write(&file, text).expect("the folder takes files");
    };
    write("shop");
    let launch = wrun().serve(example("inventory")).flag("--bindings", &file);
    let server = launch.start();
    write("other");
    let refused = server.control(["reload"]);
    refused.fails_with(78, &["bindings", "restart the server"]);
    write("shop");
    server.reload();
}

#[test]
fn send_in_from_a_bound_database_to_an_embedded_queue_says_why_it_cannot_be() {
    let Some(postgres) = postgres() else { return };
    let server = shop(&postgres.url("shop")).start();
    assert_eq!(server.post("/buy/queue", b"").status, 500);
    server
        .log()
        .line_with("queue sends in a transaction need a queue that is bound");
    assert_eq!(postgres.query("shop", "SELECT count(*) FROM orders"), "0");
}
