//! Queues that are bound to NATS JetStream: the same guests on a real one, several servers of wrun's that share a queue, and
//! what is left when one of them, or NATS, is killed, and when the way between them is cut.

use crate::shared_queue::{
    ATTEMPTS_MAX, assert_away, assert_nothing_is_lost, assert_sound, becomes, handles_one_more,
    sender, server,
};
use crate::{serve, wrun};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::nats::Nats;
use wrun_tests::outcome::finding;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::queue_history;
use wrun_tests::state::{error, ok};
use wrun_tests::{Outcome, SOON, eventually, folder, process};

/// Returns the number of the last message that the queue's stream has taken.
fn last(nats: &Nats) -> u64 {
    let info = nats.call("$JS.API.STREAM.INFO.wrun_jobs", &json!({}));
    info["state"]["last_seq"].as_u64().unwrap_or(0)
}

/// Waits until so many messages are sent.
fn when_sent(nats: &Nats, count: u64) {
    eventually("some are sent", SOON, || (last(nats) > count).then_some(()));
}

#[test]
fn two_servers_share_a_queue_and_lose_nothing_while_workers_are_killed() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let url = nats.url();
    let (one, other) = (server(&url).start(), server(&url).start());
    let history = queue_history::record_at(&[&one, &other], 12, Victims::Workers);
    assert_sound(&history);
    assert!(history.kills > 0);
    for server in [&one, &other] {
        assert!(!server.tries().is_empty(), "both took part");
    }
    // Nothing is left behind but what tells of the dead.
    assert_eq!(nats.messages("wrun_jobs"), 0);
    assert_eq!(nats.messages("wrun-dead_jobs"), history.dead.len() as u64);
    eventually("no tries are left", SOON, || {
        let question = json!({ "subjects_filter": "wrun.queue.jobs.tries.>" });
        let info = nats.call("$JS.API.STREAM.INFO.wrun-state_jobs", &question);
        info["state"]["subjects"].is_null().then_some(())
    });
}

#[test]
fn two_servers_lose_nothing_while_their_state_processes_are_killed() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let url = nats.url();
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::State);
}

#[test]
fn check_notices_a_message_that_is_lost_and_one_out_of_order() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let server = server(&nats.url()).start();
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
    let of_one = |key: &Option<String>| key.as_deref() == Some("key-0");
    for one in history.tries.iter().filter(|it| of_one(&it.key)) {
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
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let one = server(&nats.url()).start();
    let long = json!({ "do": "ack", "ms": 600_000 });
    ok(&one.send(&json!([{ "key": "k", "body": long }, { "key": "k", "body": { "do": "ack" } }])));
    let first = one.when_tried("it is handled", |tries| tries.len() == 1);
    one.kill_state_process();
    // At once, and not when the lease is over.
    one.when_tried("it is handled again", |tries| tries.len() == 2);
    let other = server(&nats.url()).start();
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
fn nothing_that_was_acknowledged_is_lost_when_nats_is_killed() {
    let Some(mut nats) = Nats::for_test() else {
        return;
    };
    let url = nats.url();
    let (one, other) = (server(&url).start(), server(&url).start());
    let history = std::thread::scope(|scope| {
        let recorded =
            scope.spawn(|| queue_history::record_at(&[&one, &other], 20, Victims::Nobody));
        for count in [20, 60] {
            when_sent(&nats, count);
            nats.kill();
            nats.start_again();
        }
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn nothing_is_lost_or_out_of_order_while_the_way_to_nats_is_cut_and_silent() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let proxy = Proxy::to(nats.port());
    let far = server(&format!("nats://127.0.0.1:{}", proxy.port())).start();
    let near = server(&nats.url()).start();
    let history = std::thread::scope(|scope| {
        let recorded =
            scope.spawn(|| queue_history::record_at(&[&far, &near], 20, Victims::Nobody));
        for (count, weather) in [
            (20, Weather::Cut),
            (40, Weather::Silent),
            (60, Weather::Cut),
        ] {
            when_sent(&nats, count);
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
fn message_of_a_transaction_comes_by_the_outbox() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let launch = wrun().serve(example("inventory")).workers(1);
    let server = launch
        .flag("--bind", format!("queue.orders={}", nats.url()))
        .start();
    let bought = server.post("/buy/queue", b"");
    assert!((200..300).contains(&bought.status), "{bought:?}");
    eventually("it is in the stream, and handled", SOON, || {
        let info = nats.call("$JS.API.STREAM.INFO.wrun_orders", &json!({}));
        let state = &info["state"];
        (state["last_seq"] == 1 && state["messages"] == 0).then_some(())
    });
}

#[test]
fn commands_work_on_what_is_there() {
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let sending = sender(&nats.url(), "max-depth = 3\n").start();
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
    let mut handling = server(&nats.url()).start();
    sending.when_queue("all are handled", |it| it.messages == 0 && it.dead == 2);
    handling.stop();
    let letters: Value = sending.command(&["queue", "peek", "jobs", "--dead"]);
    assert!(
        letters[0]["headers"]
            .to_string()
            .contains("wrun-dead-reason")
    );
    assert_eq!(letters[0]["id"], ok(&sent)[0]);
    let back: Value = sending.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 2 }));
    assert_eq!(sending.queue("jobs").messages, 2);
    sending.control(["queue", "purge", "jobs", "--yes"]).ok();
    let left = sending.queue("jobs");
    assert_eq!((left.messages, left.dead), (0, 0));
}

#[test]
fn nats_that_is_away_is_said_to_be_at_once_and_is_back_by_itself() {
    let Some(mut nats) = Nats::for_test() else {
        return;
    };
    let server = sender(&nats.url(), "[consumers.jobs]\n[queues.here]\n").start();
    becomes(&server, true);
    nats.kill();
    becomes(&server, false);
    assert_away(&server, "NATS", SOON / 2);
    nats.start_again();
    becomes(&server, true);
    handles_one_more(&server, 1);
    // One that stands still is away, too.
    nats.pause();
    becomes(&server, false);
    nats.resume();
    becomes(&server, true);
    handles_one_more(&server, 2);
}

#[test]
fn nats_that_is_away_or_has_no_jetstream_at_the_start_is_said_to_be() {
    let outcome = sender("nats://127.0.0.1:1", "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "refused", "queue.jobs"]);
    let Some(nats) = Nats::without_jetstream() else {
        return;
    };
    let outcome = sender(&nats.url(), "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "JetStream", "queue.jobs"]);
}

#[test]
fn connection_is_encrypted_and_the_password_is_nowhere_to_be_seen() {
    let Some(mut nats) = Nats::for_test() else {
        return;
    };
    let refused = sender(&nats.url(), "")
        .flag("--bind", format!("queue.jobs={}", nats.account(1)))
        .fail();
    refused.fails_with(64, &["password", "WRUN_BIND_QUEUE_JOBS"]);
    let certificate = nats.encrypt();
    let place = format!("tls://u1:s3cret@localhost:{}", nats.port());
    let url = format!("{place}?sslrootcert={}", certificate.display());
    let manifest = "[databases.default]\n[queues.jobs]\n[consumers.jobs]\n";
    let server = serve("state_queue")
        .manifest(manifest)
        .env("WRUN_BIND_QUEUE_JOBS", &url)
        .start();
    ok(&server.send(&json!([{ "body": { "do": "ack" } }])));
    server.when_tried("it is handled", |tries| tries.len() == 1);
    let shown = format!("{} {:?}", server.ps(), server.log());
    assert!(!shown.contains("s3cret"));
    // A certificate that nobody vouches for is none.
    let outcome = serve("state_queue")
        .manifest(manifest)
        .env("WRUN_BIND_QUEUE_JOBS", &place)
        .fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "queue.jobs"]);
}

#[test]
fn doctor_says_what_it_found_and_what_cannot_be_seen() {
    let doctor = |url: &str| {
        let here = folder();
        let mut command = wrun().command();
        command
            .args(["doctor", "--json", "--queue", "jobs"])
            .env("WRUN_BIND_QUEUE_JOBS", url)
            .current_dir(here.path());
        let outcome: Outcome = command.output().expect("wrun can be run").into();
        serde_json::from_str::<Value>(&outcome.stdout).expect("it prints JSON")
    };
    let Some(nats) = Nats::for_test() else {
        return;
    };
    let report = doctor(&nats.url());
    assert_eq!(finding(&report, "queue.jobs")["status"], "ok", "{report}");
    let durability = finding(&report, "queue.jobs durability");
    assert_ne!(durability["status"], "ok", "{durability}");
    let next = durability["next"].to_string();
    assert!(next.contains("sync_interval"), "{durability}");
    assert_eq!(finding(&report, "queue.jobs storage")["status"], "info");
    let report = doctor("nats://127.0.0.1:1");
    assert_eq!(
        finding(&report, "queue.jobs")["status"],
        "missing",
        "{report}"
    );
    let Some(nats) = Nats::without_jetstream() else {
        return;
    };
    let report = doctor(&nats.url());
    let found = finding(&report, "queue.jobs");
    assert_eq!(found["status"], "missing", "{report}");
    let found = found["found"].to_string();
    assert!(
        found.contains("JetStream") && found.contains("not enabled"),
        "{found}"
    );
}
