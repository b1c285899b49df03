//! Locks that are bound to PostgreSQL: the same guests on a real server, several servers of wrun's that share it, what holds
//! when it is killed, and what is refused to a holder whose connection is cut.

use crate::{serve, wrun};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::lock_history;
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::sale::{Report, Sale, Way};
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, Outcome, SOON, Server, eventually, folder};

const SALE: Sale = Sale {
    way: Way::Lock,
    stock: 40,
    buyers: 60,
    victims: Victims::Nobody,
};

fn postgres() -> Option<Postgres> {
    let postgres = Postgres::for_test()?;
    postgres.create("shop");
    Some(postgres)
}

fn bind(launch: Launch, url: &str) -> Launch {
    launch.flag("--bind", format!("lock.default={url}"))
}

fn locks(url: &str) -> Launch {
    bind(serve("state_lock").flag("--lock", "default"), url)
}

fn shop(postgres: &Postgres) -> Server {
    let url = postgres.url("shop");
    let launch = bind(wrun().serve(example("inventory")).workers(2), &url);
    launch.flag("--bind", format!("db.default={url}")).start()
}

/// Kills the server and starts it again, each time after some locks were given out, until `is_over`, three times at most.
/// Returns how many it were.
fn kill(postgres: &mut Postgres, is_over: impl Fn() -> bool) -> usize {
    let mut kills = 0;
    while kills < 3 {
        let token = || {
            let last = "SELECT max(token) FROM wrun.locks";
            postgres.query("shop", last)
        };
        let before = token();
        eventually("a lock is given out, or all is over", SOON, || {
            (is_over() || token() != before).then_some(())
        });
        if is_over() {
            break;
        }
        postgres.kill();
        postgres.start_again();
        kills += 1;
    }
    kills
}

/// Returns the lock space as `wrun ps` has it, once that is or is not to be reached.
fn binding(server: &Server, reachable: bool) -> Value {
    eventually("ps knows", SOON, || {
        let ps = server.ps();
        let binding = &ps["bindings"][0];
        (binding["reachable"] == reachable).then(|| binding.clone())
    })
}

#[test]
fn sale_at_two_servers_does_not_oversell_while_their_processes_are_killed() {
    let Some(postgres) = postgres() else { return };
    let (one, other) = (shop(&postgres), shop(&postgres));
    let victims = Victims::Both;
    let report = Sale { victims, ..SALE }.hold_at(&[&one, &other]);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    let seen = "SELECT count(*) FROM wrun.fences WHERE key = 'default/stock'";
    assert_eq!(postgres.query("shop", seen), "1");
    let kept = "SELECT count(*) FROM wrun.locks WHERE space = 'default' AND key = 'stock'";
    assert_eq!(postgres.query("shop", kept), "1");
}

#[test]
fn sale_does_not_oversell_while_the_server_is_killed() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let (one, other) = (shop(&postgres), shop(&postgres));
    let report: Report = std::thread::scope(|scope| {
        let held = scope.spawn(|| SALE.hold_at(&[&one, &other]));
        let kills = kill(&mut postgres, || held.is_finished());
        assert!(kills > 0, "the sale was over before the first");
        held.join().expect("the sale goes on")
    });
    assert!(report.faults.is_empty(), "{report:#?}");
}

#[test]
fn locks_are_exclusive_and_tokens_grow_while_workers_state_process_and_the_server_are_killed() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let server = locks(&postgres.url("shop")).workers(2).start();
    let (mut holdings, kills, server_kills) = std::thread::scope(|scope| {
        let record = scope.spawn(|| lock_history::record(&server, 400, Victims::Both));
        let server_kills = kill(&mut postgres, || record.is_finished());
        let (holdings, kills) = record.join().expect("it is recorded");
        (holdings, kills, server_kills)
    });
    assert!(kills > 0 && server_kills > 0, "{kills} and {server_kills}");
    let faults = lock_history::faults(&holdings);
    assert!(faults.is_empty(), "{faults:#?}");
    // Three keys as if they were one: the check must notice.
    for holding in &mut holdings {
        holding.key = "one".to_owned();
    }
    assert!(!lock_history::faults(&holdings).is_empty());
}

#[test]
fn calls_fail_at_once_while_the_server_is_away_and_go_on_when_it_is_back() {
    let Some(mut postgres) = postgres() else {
        return;
    };
    let server = locks(&postgres.url("shop")).start();
    let take = || server.get_json("/acquire?key=a&wait=60000");
    assert_eq!(ok(&take())["held"], true);
    let here = binding(&server, true);
    assert_eq!(
        (&here["name"], &here["backend"]),
        (&json!("lock.default"), &json!("postgres"))
    );
    postgres.kill();
    let away = binding(&server, false);
    assert!(away["why"].is_string(), "{away}");
    let begin = Instant::now();
    assert_eq!(error(&take()), "unavailable");
    assert!(begin.elapsed() < Duration::from_secs(5));
    postgres.start_again();
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
}

#[test]
fn server_that_says_nothing_is_away_until_it_speaks_again() {
    let Some(postgres) = postgres() else { return };
    let proxy = Proxy::to(postgres.port());
    let url = format!("postgres://postgres@127.0.0.1:{}/shop", proxy.port());
    let server = locks(&url).start();
    let take = || server.get_json("/acquire?key=a&wait=60000");
    assert_eq!(ok(&take())["held"], true);
    proxy.be(Weather::Silent);
    binding(&server, false);
    assert_eq!(error(&take()), "unavailable");
    proxy.be(Weather::Fair);
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
}

/// Two servers with the databases and locks in common; of the first one the locks can be cut off.
fn pair(postgres: &Postgres) -> (Server, Server, Proxy) {
    postgres.query("shop", "CREATE TABLE t (who text)");
    let proxy = Proxy::to(postgres.port());
    let start = |locks: &str| {
        let launch = serve("state_db")
            .flag("--db", "default")
            .flag("--lock", "default");
        let database = format!("db.default={}", postgres.url("shop"));
        bind(launch, locks).flag("--bind", database).start()
    };
    let cut_off = format!("postgres://postgres@127.0.0.1:{}/shop", proxy.port());
    (start(&cut_off), start(&postgres.url("shop")), proxy)
}

fn run(server: &Server, script: &Value) -> Vec<Value> {
    let answer = server.post("/", script.to_string().as_bytes()).ok();
    serde_json::from_str(&answer).expect("the guest answers JSON")
}

/// Has a holder be cut off until another one has its lock; returns what its write came to, and what was written.
fn cut_off(fenced: bool) -> Option<(Value, String)> {
    let postgres = postgres()?;
    let (one, other, proxy) = pair(&postgres);
    let late = json!([
        { "op": "acquire", "keys": ["k"], "ttl_ms": 600 },
        { "op": "log", "text": "holds it" },
        { "op": "sleep", "ms": 2500 },
        { "op": "batch", "fenced": fenced, "statements": [{ "sql": "INSERT INTO t VALUES ('late')" }] },
    ]);
    let next = json!([
        { "op": "acquire", "keys": ["k"] },
        { "op": "batch", "fenced": true, "statements": [{ "sql": "INSERT INTO t VALUES ('next')" }] },
    ]);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| run(&one, &late));
        one.log().line_with("holds it");
        proxy.be(Weather::Cut);
        // Nobody renews it.
        let next = run(&other, &next);
        assert!(next.iter().all(|step| step["err"].is_null()), "{next:?}");
        let late = late.join().expect("it is answered").pop()?;
        let written = postgres.query("shop", "SELECT string_agg(who, ' ' ORDER BY who) FROM t");
        Some((late, written))
    })
}

#[test]
fn holder_that_was_cut_off_writes_without_a_fence_though_another_one_has_its_lock() {
    let Some((late, written)) = cut_off(false) else {
        return;
    };
    ok(&late);
    assert_eq!(written, "late next");
}

#[test]
fn commit_with_a_fence_of_a_holder_that_was_cut_off_is_refused() {
    let Some((late, written)) = cut_off(true) else {
        return;
    };
    assert_eq!(error(&late), "lost-fence");
    assert_eq!(written, "next");
}

#[test]
fn lock_space_database_and_queue_share_a_database_that_an_older_wrun_has_made() {
    let Some(postgres) = postgres() else { return };
    drop(shop(&postgres));
    postgres.query("shop", "DROP TABLE wrun.locks");
    let server = locks(&postgres.url("shop")).start();
    assert_eq!(ok(&server.get_json("/acquire?key=a"))["held"], true);
}

#[test]
fn doctor_tries_it_and_a_server_that_is_away_at_the_start_is_said_to_be() {
    let Some(postgres) = postgres() else { return };
    let here = folder();
    let mut command = wrun().command();
    command.args(["doctor", "--json", "--lock", "default", "--bind"]);
    command
        .arg(format!("lock.default={}", postgres.url("shop")))
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    assert_eq!(outcome.code, Some(0), "{report}");
    let server = finding(&report, "lock.default");
    let found = server["found"].as_str().expect("it says what it found");
    assert!(found.starts_with("PostgreSQL "), "{server}");
    let away = locks("postgres://postgres@127.0.0.1:1/shop").fail();
    away.fails_after_its_log_with(69, &["lock space default", "refused", "lock.default"]);
}
