//! Queues that are bound to Redis: the same guests on a real one, several servers of wrun's that share a queue, and what is
//! left when one of them, or Redis, is killed, and when the way between them is cut.

use crate::shared_queue::{
    ATTEMPTS_MAX, assert_away, assert_nothing_is_lost, assert_sound, becomes, handles_one_more,
    sender, server,
};
use crate::wrun;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::queue_history;
use wrun_tests::redis::Redis;
use wrun_tests::state::{error, ok};
use wrun_tests::{Outcome, SOON, eventually, folder, process};

/// Returns a number that Redis answers with.
fn number(redis: &Redis, command: &[&str]) -> u64 {
    let answer = redis.call(command);
    let number = answer.strip_prefix(':').and_then(|it| it.parse().ok());
    number.unwrap_or_else(|| panic!("{command:?}: {answer}"))
}

/// Waits until Redis knows more than so many dedup ids, of which there is one for each message that was sent.
fn when_sent(redis: &Redis, count: usize) {
    let known = "return #redis.call('KEYS', 'wrun:{jobs}:queue:dedup:*')";
    eventually("some are sent", SOON, || {
        (number(redis, &["EVAL", known, "0"]) > count as u64).then_some(())
    });
}

#[test]
fn two_servers_share_a_queue_and_lose_nothing_while_workers_are_killed() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let (one, other) = (
        server(&redis.url(0)).start(),
        server(&redis.local_url()).start(),
    );
    let history = queue_history::record_at(&[&one, &other], 12, Victims::Workers);
    assert_sound(&history);
    assert!(history.kills > 0);
    for server in [&one, &other] {
        assert!(!server.tries().is_empty(), "both took part");
    }
    // Nothing is left behind but what tells of the dead.
    let dead = history.dead.len() as u64;
    for part in ["content", "state"] {
        let part = format!("wrun:{{jobs}}:queue:{part}");
        assert_eq!(number(&redis, &["HLEN", &part]), dead);
    }
    for part in ["live", "due", "lanes", "heads", "held"] {
        let part = format!("wrun:{{jobs}}:queue:{part}");
        assert_eq!(number(&redis, &["EXISTS", &part]), 0, "{part}");
    }
}

#[test]
fn two_servers_lose_nothing_while_their_state_processes_are_killed() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let url = redis.url(0);
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::State);
}

#[test]
fn check_notices_a_message_that_is_lost_and_one_out_of_order() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let server = server(&redis.url(0)).start();
    let mut history = queue_history::record(&server, 4, Victims::Nobody);
    assert_sound(&history);
    // The controls: a try that never was, and an order that was another.
    let lost = history.tries.remove(0);
    history.tries.retain(|one| one.id != lost.id);
    history.dead.remove(&lost.id);
    assert!(!history.faults(ATTEMPTS_MAX).is_empty());
    let mut history = queue_history::record(&server, 0, Victims::Nobody);
    history.sent.clear();
    assert_sound(&history);
    let mut ids: Vec<String> = Vec::new();
    for one in history
        .tries
        .iter()
        .filter(|it| it.key.as_deref() == Some("key-0"))
    {
        if !ids.contains(&one.id) {
            ids.push(one.id.clone());
        }
    }
    ids.reverse();
    history.sent.insert("key-0".to_owned(), ids);
    assert!(!history.faults(ATTEMPTS_MAX).is_empty());
}

#[test]
fn messages_of_a_killed_server_or_state_process_are_handled_by_another_one() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let one = server(&redis.url(0)).start();
    let long = json!({ "do": "ack", "ms": 600_000 });
    ok(&one.send(&json!([{ "key": "k", "body": long }, { "key": "k", "body": { "do": "ack" } }])));
    let first = one.when_tried("it is handled", |tries| tries.len() == 1);
    one.kill_state_process();
    // At once, and not when the lease is over.
    one.when_tried("it is handled again", |tries| tries.len() == 2);
    let other = server(&redis.url(0)).start();
    for pid in process::family(one.pid()) {
        process::send(pid, Signal::SIGKILL);
    }
    let tries = eventually("the other one has it", SOON, || {
        Some(other.tries()).filter(|tries| !tries.is_empty())
    });
    assert_eq!(tries[0].id, first[0].id);
    // The one behind it has to wait.
    assert_eq!(tries.len(), 1);
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_a_redis_that_syncs_every_write_is_killed() {
    let Some(mut redis) = Redis::durable() else {
        return;
    };
    let url = redis.url(0);
    let (one, other) = (server(&url).start(), server(&url).start());
    let history = std::thread::scope(|scope| {
        let recorded =
            scope.spawn(|| queue_history::record_at(&[&one, &other], 20, Victims::Nobody));
        for count in [20, 60] {
            when_sent(&redis, count);
            redis.kill();
            redis.start_again();
        }
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

/// Sends messages that nobody handles to a Redis, which is killed then; returns how many are left.
fn left_after_a_kill(mut redis: Redis) -> u64 {
    let server = sender(&redis.url(0), "").start();
    let message = json!([{ "key": "k", "body": 1 }, { "body": 2 }]);
    ok(&server.send(&message));
    assert_eq!(server.queue("jobs").messages, 2);
    redis.kill();
    becomes(&server, false);
    redis.start_again();
    becomes(&server, true);
    server.queue("jobs").messages
}

#[test]
fn messages_are_kept_over_a_kill_by_a_redis_that_syncs_and_by_no_other() {
    let (Some(durable), Some(other)) = (Redis::durable(), Redis::for_test()) else {
        return;
    };
    assert_eq!(left_after_a_kill(durable), 2);
    // The control: what is acknowledged is not more than Redis keeps.
    assert_eq!(left_after_a_kill(other), 0);
}

#[test]
fn nothing_is_lost_or_out_of_order_while_the_way_to_redis_is_cut_and_silent() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let proxy = Proxy::to(redis.port());
    let far = server(&format!("redis://127.0.0.1:{}/0", proxy.port())).start();
    let near = server(&redis.url(0)).start();
    let history = std::thread::scope(|scope| {
        let recorded =
            scope.spawn(|| queue_history::record_at(&[&far, &near], 20, Victims::Nobody));
        for (count, weather) in [
            (20, Weather::Cut),
            (40, Weather::Silent),
            (60, Weather::Cut),
        ] {
            when_sent(&redis, count);
            proxy.be(weather);
            becomes(&far, false);
            proxy.be(Weather::Fair);
            becomes(&far, true);
        }
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn commands_work_on_what_is_there() {
    let Some(redis) = Redis::for_test() else {
        return;
    };
    let sending = sender(&redis.url(0), "max-depth = 3\n").start();
    let message = json!([{ "body": { "do": "dead" }, "key": "k", "headers": { "a": "b" } }]);
    let sent = sending.send(&message);
    sending
        .control(["queue", "send", "jobs", "{\"do\": \"ack\"}"])
        .ok();
    let peeked: Value = sending.command(&["queue", "peek", "jobs"]);
    assert_eq!(
        (&peeked[0]["id"], &peeked[0]["key"]),
        (&ok(&sent)[0], &"k".into())
    );
    ok(&sending.send(&message));
    assert_eq!(error(&sending.send(&message)), "full");
    assert_eq!(sending.queue("jobs").messages, 3);
    let mut handling = server(&redis.url(0)).start();
    sending.when_queue("all are handled", |it| it.messages == 0 && it.dead == 2);
    handling.stop();
    let letters: Value = sending.command(&["queue", "peek", "jobs", "--dead"]);
    assert!(
        letters[0]["headers"]
            .to_string()
            .contains("wrun-dead-reason")
    );
    let back: Value = sending.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 2 }));
    assert_eq!(sending.queue("jobs").messages, 2);
    sending.control(["queue", "purge", "jobs", "--yes"]).ok();
    let left = sending.queue("jobs");
    assert_eq!((left.messages, left.dead), (0, 0));
}

#[test]
fn redis_that_is_away_is_said_to_be_at_once_and_is_back_by_itself() {
    let Some(mut redis) = Redis::for_test() else {
        return;
    };
    let server = sender(&redis.url(0), "[consumers.jobs]\n[queues.here]\n").start();
    becomes(&server, true);
    redis.kill();
    becomes(&server, false);
    assert_away(&server, "Redis", SOON / 2);
    redis.start_again();
    becomes(&server, true);
    handles_one_more(&server, 1);
    // One that stands still is away, too.
    redis.pause();
    becomes(&server, false);
    redis.resume();
    becomes(&server, true);
    handles_one_more(&server, 2);
}

#[test]
fn redis_that_is_away_or_takes_no_writes_at_the_start_is_said_to_be() {
    let outcome = sender("redis://127.0.0.1:1", "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "refused", "queue.jobs"]);
    let Some(redis) = Redis::for_test() else {
        return;
    };
    redis.call(&["REPLICAOF", "127.0.0.1", "1"]);
    let outcome = sender(&redis.url(0), "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "cannot be claimed", "queue.jobs"]);
}

#[test]
fn doctor_says_what_weakens_the_promise() {
    let Some(redis) = Redis::durable() else {
        return;
    };
    let doctor = || {
        let here = folder();
        let mut command = wrun().command();
        command
            .args(["doctor", "--json", "--queue", "jobs"])
            .env("WRUN_BIND_QUEUE_JOBS", redis.url(0))
            .current_dir(here.path());
        let outcome: Outcome = command.output().expect("wrun can be run").into();
        serde_json::from_str::<Value>(&outcome.stdout).expect("it prints JSON")
    };
    let report = doctor();
    assert_eq!(finding(&report, "queue.jobs")["status"], "ok", "{report}");
    assert_eq!(finding(&report, "queue.jobs durability")["status"], "ok");
    redis.call(&["CONFIG", "SET", "appendfsync", "everysec"]);
    redis.call(&["CONFIG", "SET", "maxmemory", "100mb"]);
    redis.call(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let report = doctor();
    for what in ["durability", "eviction"] {
        let finding = finding(&report, &format!("queue.jobs {what}"));
        assert_eq!(finding["status"], "off", "{finding}");
        assert!(finding["next"].is_string(), "{finding}");
    }
}
