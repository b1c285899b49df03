//! Locks that are bound to Redis: the same guests on a real server, several servers of wrun's that share it, what they are
//! told while it is away, and what holds when it forgets or its clients stand still.

use crate::{serve, wrun};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::lock_history::{self, Holding};
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::redis::Redis;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, Outcome, SOON, Server, eventually, folder, process};

const SALE: Sale = Sale {
    way: Way::Lock,
    stock: 40,
    buyers: 60,
    victims: Victims::Nobody,
};

fn shop(redis: &str) -> Launch {
    let launch = wrun().serve(example("inventory")).workers(2);
    launch.flag("--bind", format!("lock.default={redis}"))
}

fn with_database(launch: Launch, postgres: &Postgres) -> Launch {
    launch.flag("--bind", format!("db.default={}", postgres.url("shop")))
}

fn locks(redis: &Redis) -> Launch {
    let launch = serve("state_lock").flag("--lock", "default");
    launch.flag("--bind", format!("lock.default={}", redis.url(0)))
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
fn sale_does_not_oversell_while_workers_and_state_process_are_killed() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    // The name has to be resolved, in the sandbox.
    let url = redis.url(0).replace("127.0.0.1", "localhost");
    let victims = Victims::Both;
    let report = Sale { victims, ..SALE }.hold(&shop(&url).start());
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    // There, and not in this process.
    assert!(redis.call(&["GET", "wrun:{default}:fence"]).len() > 10);
}

#[test]
fn sale_is_exact_while_the_way_to_the_server_is_slow_silent_and_cut() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let proxy = Proxy::to(redis.port());
    let server = shop(&format!("redis://127.0.0.1:{}", proxy.port())).start();
    // Buyers take turns, and each turn has its ways there and back: the sale takes seconds, however quick the machine is.
    let slow = Weather::Slow(Duration::from_millis(10));
    proxy.be(slow);
    let report = std::thread::scope(|scope| {
        let sale = scope.spawn(|| SALE.hold(&server));
        let sold = |least: u64| {
            eventually("some more are sold", SOON, || {
                let stats: Value = serde_json::from_str(&server.get("/stats").text()).ok()?;
                (stats["sold"].as_u64()? >= least || sale.is_finished()).then_some(())
            });
        };
        sold(5);
        proxy.be(Weather::Silent);
        // It is found out to say nothing.
        binding(&server, false);
        proxy.be(slow);
        binding(&server, true);
        sold(15);
        proxy.be(Weather::Cut);
        binding(&server, false);
        // Calls fail, and do not wait: until it is mended nobody would answer.
        assert_eq!(server.post("/buy/lock", b"").status, 500);
        proxy.be(Weather::Fair);
        sale.join().expect("the sale goes on")
    });
    assert!(report.faults.is_empty(), "{report:#?}");
    assert!(report.retries > 0, "{report:#?}");
}

#[test]
fn sale_at_two_servers_does_not_oversell_while_their_processes_are_killed() {
    let (Some(redis), Some(postgres)) = (Redis::for_test(), Postgres::for_test()) else {
        return;
    };
    postgres.create("shop");
    let start = || with_database(shop(&redis.local_url()), &postgres).start();
    let (one, other) = (start(), start());
    let victims = Victims::Both;
    let report = Sale { victims, ..SALE }.hold_at(&[&one, &other]);
    assert!(report.faults.is_empty() && report.kills > 0, "{report:#?}");
    let seen = "SELECT count(*) FROM wrun.fences WHERE key = 'default/stock'";
    assert_eq!(postgres.query("shop", seen), "1");
}

#[test]
fn sale_does_not_oversell_when_the_server_is_killed_and_has_forgotten_all_locks() {
    let Some(mut redis) = Redis::for_test() else {
        return;
    };
    let server = shop(&redis.url(0)).start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| SALE.hold(&server));
        let mut kills = 0;
        while kills < 3 {
            let token = || redis.call(&["GET", "wrun:{default}:fence"]);
            let before = token();
            eventually("one is sold, or all are", SOON, || {
                (held.is_finished() || token() != before).then_some(())
            });
            if held.is_finished() {
                break;
            }
            redis.kill();
            redis.start_again();
            kills += 1;
        }
        assert!(kills > 0, "the sale was over before the first");
        let report = held.join().expect("the sale goes on");
        assert!(report.faults.is_empty(), "{report:#?}");
    });
}

#[test]
fn waiting_in_one_server_goes_on_when_another_one_releases_and_nobody_is_left_out() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let (one, other) = (locks(&redis).start(), locks(&redis).start());
    let mut held = Vec::new();
    let held_here = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let hold_here = || {
            let hold = |_| {
                let result = one.get_json("/hold?key=a&ms=5&wait=60000");
                held_here.fetch_add(1, Ordering::Relaxed);
                result
            };
            (0..20).map(hold).collect::<Vec<_>>()
        };
        // Several wait here all the time.
        let busy: Vec<_> = (0..4).map(|_| scope.spawn(hold_here)).collect();
        held.extend((0..5).map(|_| other.get_json("/hold?key=a&ms=5&wait=60000")));
        // They had not to wait until nobody waits there any more.
        assert!(held_here.load(Ordering::Relaxed) < 75, "{held_here:?}");
        held.extend(
            busy.into_iter()
                .flat_map(|busy| busy.join().expect("no panic")),
        );
    });
    let holding = |result: &Value| Holding::of("a", ok(result)).expect("the numbers of a holding");
    let holdings: Vec<_> = held.iter().map(holding).collect();
    assert_eq!(lock_history::faults(&holdings), [""; 0]);
}

#[test]
fn calls_fail_at_once_while_the_server_is_away_and_go_on_when_it_is_back() {
    let Some(mut redis) = Redis::for_test() else {
        return;
    };
    let server = locks(&redis).start();
    let take = || server.get_json("/acquire?key=a&wait=60000");
    assert_eq!(ok(&take())["held"], true);
    let here = binding(&server, true);
    assert_eq!(here["name"], "lock.default");
    assert_eq!(here["url"], format!("redis://127.0.0.1:{}/0", redis.port()));
    redis.kill();
    let away = binding(&server, false);
    assert!(away["why"].is_string(), "{away}");
    let begin = Instant::now();
    assert_eq!(error(&take()), "unavailable");
    assert!(begin.elapsed() < Duration::from_secs(5));
    redis.start_again();
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
    // One that stands still is away, too, and not only one that has ended.
    redis.pause();
    binding(&server, false);
    assert_eq!(error(&take()), "unavailable");
    redis.resume();
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
}

/// Two servers with the databases and locks in common.
fn pair(redis: &Redis, postgres: &Postgres) -> (Server, Server) {
    postgres.create("shop");
    postgres.query("shop", "CREATE TABLE t (who text)");
    let start = || {
        let launch = serve("state_db")
            .flag("--db", "default")
            .flag("--lock", "default");
        let launch = launch.flag("--bind", format!("lock.default={}", redis.url(0)));
        with_database(launch, postgres).start()
    };
    (start(), start())
}

fn run(server: &Server, script: &Value) -> Vec<Value> {
    let answer = server.post("/", script.to_string().as_bytes()).ok();
    serde_json::from_str(&answer).expect("the guest answers JSON")
}

/// Takes a lock for a short time, stands still for longer, and writes.
fn late_writer(fenced: bool) -> Value {
    json!([
        { "op": "acquire", "keys": ["k"], "ttl_ms": 600 },
        { "op": "log", "text": "holds it" },
        { "op": "sleep", "ms": 2500 },
        { "op": "batch", "fenced": fenced, "statements": [{ "sql": "INSERT INTO t VALUES ('late')" }] },
    ])
}

/// Writes under a lock that it waits for.
fn writer() -> Value {
    json!([
        { "op": "acquire", "keys": ["k"] },
        { "op": "batch", "fenced": true, "statements": [{ "sql": "INSERT INTO t VALUES ('next')" }] },
    ])
}

/// Has a holder stand still while another one gets its lock; returns what its write came to, and what was written.
fn stand_still(fenced: bool) -> Option<(Value, String)> {
    let (redis, postgres) = (Redis::for_test()?, Postgres::for_test()?);
    let (one, other) = pair(&redis, &postgres);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| run(&one, &late_writer(fenced)));
        one.log().line_with("holds it");
        let state = one.state_pid();
        process::send(state, Signal::SIGSTOP);
        // Nobody renews it.
        let next = run(&other, &writer());
        process::send(state, Signal::SIGCONT);
        assert!(next.iter().all(|step| step["err"].is_null()), "{next:?}");
        let late = late.join().expect("it is answered").pop()?;
        let written = postgres.query("shop", "SELECT string_agg(who, ' ' ORDER BY who) FROM t");
        Some((late, written))
    })
}

#[test]
fn holder_that_stood_still_writes_without_a_fence_though_another_one_has_its_lock() {
    let Some((late, written)) = stand_still(false) else {
        return;
    };
    ok(&late);
    assert_eq!(written, "late next");
}

#[test]
fn commit_with_a_fence_of_a_holder_that_stood_still_is_refused() {
    let Some((late, written)) = stand_still(true) else {
        return;
    };
    assert_eq!(error(&late), "lost-fence");
    assert_eq!(written, "next");
}

#[test]
fn commit_with_a_fence_is_refused_that_a_higher_token_was_ahead_of() {
    let (Some(redis), Some(postgres)) = (Redis::for_test(), Postgres::for_test()) else {
        return;
    };
    let (one, _other) = pair(&redis, &postgres);
    run(&one, &writer());
    // As if a server that has forgotten the locks had given out another one meanwhile.
    postgres.query(
        "shop",
        "UPDATE wrun.fences SET token = token + 1000000000000",
    );
    let refused = run(&one, &writer());
    assert_eq!(error(&refused[1]), "lost-fence", "{refused:?}");
    assert_eq!(postgres.query("shop", "SELECT count(*) FROM t"), "1");
}

#[test]
fn doctor_says_what_the_server_may_forget() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    redis.call(&["CONFIG", "SET", "maxmemory", "100mb"]);
    redis.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let doctor = |url: &str| {
        let here = folder();
        let mut command = wrun().command();
        command.args(["doctor", "--json", "--lock", "default", "--bind"]);
        command
            .arg(format!("lock.default={url}"))
            .current_dir(here.path());
        let outcome: Outcome = command.output().expect("wrun can be run").into();
        let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
        (outcome.code, report)
    };
    let (code, report) = doctor(&redis.url(0));
    assert_eq!(code, Some(0), "{report}");
    let server = finding(&report, "lock.default");
    assert!(
        server["found"]
            .as_str()
            .unwrap()
            .starts_with(redis.product()),
        "{server}"
    );
    assert_eq!(finding(&report, "lock.default eviction")["status"], "off");
    assert!(finding(&report, "lock.default durability")["next"].is_string());
    let (code, report) = doctor("redis://127.0.0.1:1/0");
    assert_eq!(code, Some(69), "{report}");
}

#[test]
fn encrypted_connection_is_made_to_a_server_whose_certificate_is_trusted_and_to_no_other() {
    let Some(mut redis) = Redis::for_test() else {
        return;
    };
    let (port, certificate) = redis.encrypt();
    let launch = |url: String| {
        let launch = serve("state_lock").flag("--lock", "default");
        launch.flag("--bind", format!("lock.default={url}"))
    };
    let url = format!("rediss://localhost:{port}/0");
    let trusted = format!("{url}?sslrootcert={}", certificate.display());
    let server = launch(trusted.clone()).start();
    assert_eq!(ok(&server.get_json("/acquire?key=a"))["held"], true);
    assert_eq!(binding(&server, true)["url"], url);
    launch(url)
        .fail()
        .fails_after_its_log_with(69, &["certificate"]);
    let elsewhere = trusted.replace("localhost", "127.0.0.1");
    launch(elsewhere)
        .fail()
        .fails_after_its_log_with(69, &["certificate"]);
}

#[test]
fn server_that_is_away_at_the_start_is_said_to_be() {
    let launch = serve("state_lock").flag("--lock", "default");
    let outcome = launch
        .flag("--bind", "lock.default=redis://127.0.0.1:1")
        .fail();
    outcome.fails_after_its_log_with(69, &["lock space default", "refused", "lock.default"]);
}
