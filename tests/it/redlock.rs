//! Locks that are bound to several Redis of which a majority decides: the same guests, while one after another is killed,
//! what they are told while a majority is away, and what is refused at the start.

use crate::{serve, wrun};
use serde_json::Value;
use std::time::{Duration, Instant};
use wrun_tests::guests::example;
use wrun_tests::lock_history;
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::postgres::Postgres;
use wrun_tests::redis::Redis;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::state::{error, ok};
use wrun_tests::{Launch, Outcome, SOON, Server, eventually, folder};

/// Servers that remember what they have acknowledged.
fn nodes() -> Option<Vec<Redis>> {
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    (0..3).map(|_| Redis::with(&settings)).collect()
}

fn urls(nodes: &[Redis]) -> String {
    let urls: Vec<String> = nodes.iter().map(|it| it.url(0)).collect();
    urls.join(",")
}

fn bind(launch: Launch, nodes: &[Redis]) -> Launch {
    launch.flag("--bind", format!("lock.default={}", urls(nodes)))
}

fn locks(nodes: &[Redis]) -> Launch {
    bind(serve("state_lock").flag("--lock", "default"), nodes)
}

/// Kills one after another, each after some locks were given out and until it was missed for as many, until `is_over`.
/// Returns how many it were.
fn kill_in_turn(nodes: &mut [Redis], is_over: impl Fn() -> bool) -> usize {
    let mut kills = 0;
    while !is_over() {
        let victim = kills % nodes.len();
        let witness = (victim + 1) % nodes.len();
        wait_for_tokens(&nodes[witness], &is_over);
        if is_over() {
            break;
        }
        nodes[victim].kill();
        kills += 1;
        wait_for_tokens(&nodes[witness], &is_over);
        nodes[victim].start_again();
    }
    kills
}

fn wait_for_tokens(node: &Redis, is_over: impl Fn() -> bool) {
    let token = || node.call(&["GET", "wrun:{default}:fence"]);
    let mut last = token();
    for _ in 0..5 {
        eventually("a lock is given out, or all is over", SOON, || {
            let now = token();
            let is_next = now != last;
            last = now;
            (is_next || is_over()).then_some(())
        });
    }
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
fn locks_are_exclusive_and_tokens_grow_while_workers_state_process_and_one_redis_after_another_are_killed()
 {
    let Some(mut nodes) = nodes() else { return };
    let server = locks(&nodes).workers(2).start();
    let (mut holdings, kills, redis_kills) = std::thread::scope(|scope| {
        let record = scope.spawn(|| lock_history::record(&server, 600, Victims::Both));
        let redis_kills = kill_in_turn(&mut nodes, || record.is_finished());
        let (holdings, kills) = record.join().expect("it is recorded");
        (holdings, kills, redis_kills)
    });
    assert!(kills > 0 && redis_kills > 0, "{kills} and {redis_kills}");
    let faults = lock_history::faults(&holdings);
    assert!(faults.is_empty(), "{faults:#?}");
    // Three keys as if they were one: the check must notice.
    for holding in &mut holdings {
        holding.key = "one".to_owned();
    }
    assert!(!lock_history::faults(&holdings).is_empty());
}

#[test]
fn sale_at_two_servers_does_not_oversell_while_one_redis_after_another_is_killed() {
    let (Some(mut nodes), Some(postgres)) = (nodes(), Postgres::for_test()) else {
        return;
    };
    postgres.create("shop");
    let start = || {
        let launch = bind(wrun().serve(example("inventory")).workers(2), &nodes);
        let database = format!("db.default={}", postgres.url("shop"));
        launch.flag("--bind", database).start()
    };
    let (one, other) = (start(), start());
    let sale = Sale {
        way: Way::Lock,
        stock: 60,
        buyers: 90,
        victims: Victims::Nobody,
    };
    let report = std::thread::scope(|scope| {
        let held = scope.spawn(|| sale.hold_at(&[&one, &other]));
        let kills = kill_in_turn(&mut nodes, || held.is_finished());
        assert!(kills > 0, "the sale was over before the first");
        held.join().expect("the sale goes on")
    });
    assert!(report.faults.is_empty(), "{report:#?}");
}

#[test]
fn one_that_is_away_is_not_missed_and_calls_fail_at_once_while_a_majority_is() {
    let Some(mut nodes) = nodes() else { return };
    let server = locks(&nodes).start();
    let take = || server.get_json("/acquire?key=a&wait=60000");
    assert_eq!(ok(&take())["held"], true);
    let here = binding(&server, true);
    assert_eq!(here["url"], urls(&nodes));
    nodes[0].kill();
    server.log().line_with("Redis is away");
    assert_eq!(ok(&take())["held"], true);
    let partly = eventually("ps knows", SOON, || {
        let binding = binding(&server, true);
        binding["why"].as_str().map(str::to_owned)
    });
    assert!(partly.starts_with("1 of 3 servers"), "{partly}");
    nodes[1].kill();
    let away = binding(&server, false);
    let why = away["why"].as_str().expect("it says why");
    assert!(why.starts_with("2 of 3 servers cannot be reached"), "{why}");
    let begin = Instant::now();
    assert_eq!(error(&take()), "unavailable");
    assert!(begin.elapsed() < Duration::from_secs(5));
    nodes[1].start_again();
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
    // One that stands still is away, too.
    nodes[1].pause();
    binding(&server, false);
    assert_eq!(error(&take()), "unavailable");
    nodes[1].resume();
    binding(&server, true);
    assert_eq!(ok(&take())["held"], true);
}

#[test]
fn server_starts_with_two_of_three_and_not_with_one() {
    let Some(mut nodes) = nodes() else { return };
    nodes[2].kill();
    let server = locks(&nodes).start();
    assert_eq!(ok(&server.get_json("/acquire?key=a"))["held"], true);
    drop(server);
    nodes[1].kill();
    let outcome = locks(&nodes).fail();
    outcome.fails_after_its_log_with(69, &["lock space default", "2 of 3", "lock.default"]);
}

#[test]
fn number_of_servers_that_has_no_majority_is_refused_with_a_hint() {
    let launch = |urls: &str| {
        let launch = serve("state_lock").flag("--lock", "default");
        launch.flag("--bind", format!("lock.default={urls}"))
    };
    let two = launch("redis://127.0.0.1:1,redis://127.0.0.1:2").fail();
    two.fails_with(78, &["2 servers", "odd number", "redis://A,redis://B"]);
    let twice = launch("redis://127.0.0.1:1,redis://127.0.0.1:2,redis://127.0.0.1:1/3").fail();
    twice.fails_after_its_log_with(78, &["127.0.0.1:1 twice", "lock.default"]);
}

#[test]
fn doctor_tries_each_of_them_and_says_which_comes_back_empty() {
    let (Some(remembers), Some(forgets)) = (nodes(), Redis::for_test()) else {
        return;
    };
    let mut nodes = remembers;
    nodes[1] = forgets;
    nodes[2].kill();
    let here = folder();
    let mut command = wrun().command();
    command.args(["doctor", "--json", "--lock", "default", "--bind"]);
    command
        .arg(format!("lock.default={}", urls(&nodes)))
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    assert_eq!(outcome.code, Some(69), "{report}");
    assert_eq!(finding(&report, "lock.default 1")["status"], "ok");
    assert_eq!(
        finding(&report, "lock.default 1 durability")["status"],
        "ok"
    );
    assert_eq!(finding(&report, "lock.default 2 restart")["status"], "off");
    assert_eq!(finding(&report, "lock.default 3")["status"], "missing");
}
