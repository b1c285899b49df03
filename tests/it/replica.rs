//! Databases that have a replica: who is served by it, what happens while it is away, and what operators are told.

use crate::{serve, wrun};
use serde_json::{Value, json};
use wrun_tests::mariadb::MariaDb;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::state::{ok, rows};
use wrun_tests::{Launch, Outcome, SOON, Server, eventually, folder};

const PASSWORD: &str = "s3cret-and-long";

/// A server of PostgreSQL's is a standby if it is in recovery.
const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";

/// Starts a PostgreSQL with an empty database `shop`, and a standby.
fn pair() -> Option<(Postgres, Postgres)> {
    let primary = Postgres::for_test()?;
    primary.create("shop");
    let standby = primary.standby();
    Some((primary, standby))
}

fn shop(primary: &str, replica: &str) -> Launch {
    serve("state_db")
        .flag("--db", "default")
        .flag("--bind", format!("db.default={primary}"))
        .env("WRUN_BIND_REPLICA_DEFAULT", replica)
}

/// Returns the URL with a password, which the server does not ask for.
fn with_password(server: &Postgres) -> String {
    let url = server.url("shop");
    url.replace("postgres@", &format!("postgres:{PASSWORD}@"))
}

/// Returns what a transaction reads.
#[track_caller]
fn read_in(server: &Server, begin: &Value, sql: &str) -> Value {
    let steps = [
        begin.clone(),
        json!({ "op": "tx_query", "sql": sql }),
        json!({ "op": "commit" }),
    ];
    let results = server.script(&json!(steps));
    ok(&results[2]);
    rows(&results[1])[0][0].clone()
}

#[track_caller]
fn read_only(server: &Server, sql: &str) -> Value {
    read_in(server, &json!({ "op": "begin", "read_only": true }), sql)
}

/// Waits until a binding can be reached, or cannot, and returns what `ps` says of it.
fn becomes(server: &Server, name: &str, reachable: bool) -> Value {
    eventually("ps knows", SOON, || {
        let ps = server.ps();
        let all = ps["bindings"].as_array()?.iter();
        let mut named = all.filter(|it| it["name"] == name);
        let binding = named.find(|it| it["reachable"] == reachable)?;
        Some(binding.clone())
    })
}

#[test]
fn guest_that_asks_only_to_read_is_served_by_the_standby_and_by_the_primary_while_that_is_dead() {
    let Some((primary, mut standby)) = pair() else {
        return;
    };
    let server = shop(&primary.url("shop"), &with_password(&standby)).start();
    becomes(&server, "replica.default", true);
    // What it is to have is not what the primary has, or the sandbox would not have to know of it.
    assert_ne!(primary.port(), standby.port());
    assert_eq!(read_only(&server, IS_STANDBY), true);
    assert_eq!(
        read_in(&server, &json!({ "op": "begin" }), IS_STANDBY),
        false
    );
    let query = server.step(json!({ "op": "query", "sql": IS_STANDBY }));
    assert_eq!(rows(&query), &json!([[false]]));

    standby.kill();
    for _ in 0..20 {
        assert_eq!(read_only(&server, IS_STANDBY), false);
    }
    let away = becomes(&server, "replica.default", false);
    let place = format!("postgres://127.0.0.1:{}/shop", standby.port());
    assert_eq!(away["url"], Value::from(&*place));
    becomes(&server, "db.default", true);
    let told = server.control(["ps"]).stdout;
    let line =
        format!("replica.default is at {place}, away, what only reads goes to the primary: ");
    assert!(told.contains(&line), "{told}");
    let warning = server
        .log()
        .line_with("what only reads goes to the primary");
    assert!(warning.contains("replica.default"), "{warning}");
    standby.start_again();
    becomes(&server, "replica.default", true);
    eventually("the standby is read again", SOON, || {
        (read_only(&server, IS_STANDBY) == true).then_some(())
    });
    assert!(!told.contains(PASSWORD) && !server.log().text().contains(PASSWORD));
}

#[test]
fn replica_that_is_away_at_the_start_keeps_nobody_from_starting() {
    let Some((primary, mut standby)) = pair() else {
        return;
    };
    standby.kill();
    let server = shop(&primary.url("shop"), &standby.url("shop")).start();
    assert_eq!(read_only(&server, IS_STANDBY), false);
    becomes(&server, "replica.default", false);
    standby.start_again();
    becomes(&server, "replica.default", true);
    assert_eq!(read_only(&server, IS_STANDBY), true);
}

#[test]
fn guest_on_mariadb_is_served_by_the_replica_if_it_asks_only_to_read() {
    let Some(primary) = MariaDb::followed() else {
        return;
    };
    primary.create("shop");
    let mut replica = primary.replica();
    let server = shop(&primary.url("shop"), &replica.url("shop")).start();
    becomes(&server, "replica.default", true);
    let number = "SELECT @@server_id";
    assert_eq!(read_only(&server, number), 2);
    assert_eq!(read_in(&server, &json!({ "op": "begin" }), number), 1);
    replica.kill();
    assert_eq!(read_only(&server, number), 1);
    becomes(&server, "replica.default", false);
    replica.start_again();
    becomes(&server, "replica.default", true);
    assert_eq!(read_only(&server, number), 2);
}

/// Returns what `wrun doctor` finds of these URLs.
fn doctor(primary: &str, replica: &str) -> (Option<i32>, Value) {
    let here = folder();
    let mut command = wrun().command();
    command.args(["doctor", "--json", "--db", "default"]);
    command
        .env("WRUN_BIND_DB_DEFAULT", primary)
        .env("WRUN_BIND_REPLICA_DEFAULT", replica)
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    assert!(!outcome.stdout.contains(PASSWORD), "{}", outcome.stdout);
    let report = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    (outcome.code, report)
}

#[test]
fn doctor_says_whether_a_replica_is_one_and_follows_and_refuses_one_in_place_of_the_primary() {
    let Some((primary, mut standby)) = pair() else {
        return;
    };
    primary.wait_for(&standby);
    let status = |report: &Value, name: &str| finding(report, name)["status"].clone();
    let (at, replica) = (primary.url("shop"), with_password(&standby));
    let (code, report) = doctor(&at, &replica);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(status(&report, "replica.default"), "ok");
    assert_eq!(status(&report, "replica.default following"), "ok");
    let lag = finding(&report, "replica.default lag");
    assert!(
        lag["found"].as_str().unwrap().contains("bytes of log"),
        "{lag}"
    );

    let (code, report) = doctor(&at, &at);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(status(&report, "replica.default writes"), "off");

    let (code, report) = doctor(&replica, &replica);
    assert_eq!(code, Some(69), "{report}");
    assert_eq!(status(&report, "db.default writes"), "missing");

    standby.stop();
    let (code, report) = doctor(&at, &replica);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(status(&report, "replica.default"), "off");
}
