//! Queues that are bound to RabbitMQ: the same guests on a real one, several servers of wrun's that share a queue, and what is
//! left when one of them, or RabbitMQ, is killed, and when the way between them is cut.

use crate::shared_queue::{
    ATTEMPTS_MAX, assert_away, assert_nothing_is_lost, assert_sound, becomes, handles_one_more,
    sender, server, when_tried,
};
use crate::wrun;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wrun_tests::murder::Victims;
use wrun_tests::outcome::finding;
use wrun_tests::proxy::{Proxy, Weather};
use wrun_tests::queue_history;
use wrun_tests::rabbitmq::Rabbit;
use wrun_tests::state::{error, ok};
use wrun_tests::{Outcome, SOON, eventually, folder, process};

#[test]
fn two_servers_share_a_queue_and_lose_nothing_while_workers_are_killed() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let url = rabbit.virtual_host();
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::Workers);
}

#[test]
fn two_servers_lose_nothing_while_their_state_processes_are_killed() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let url = rabbit.virtual_host();
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::State);
}

#[test]
fn check_notices_a_message_that_is_lost() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let url = rabbit.virtual_host();
    let sending = sender(&url, "").start();
    let message = json!([{ "key": "k", "dedup_id": "lost", "body": { "do": "ack" } }]);
    let lost = ok(&sending.send(&message))[0].clone();
    let server = server(&url).start();
    // The control: one message less than was acknowledged.
    server.when_tried("it is handled", |tries| tries.len() == 1);
    let mut history = queue_history::record(&server, 4, Victims::Nobody);
    assert_sound(&history);
    history.tries.retain(|one| json!(one.id) != lost);
    let id = lost.as_str().expect("ids are text").to_owned();
    history.sent.insert("k".to_owned(), vec![id]);
    assert_eq!(history.faults(ATTEMPTS_MAX).len(), 1);
}

#[test]
fn messages_of_a_killed_server_or_state_process_are_handled_by_another_one() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let url = rabbit.virtual_host();
    let one = server(&url).start();
    let long = json!({ "do": "ack", "ms": 600_000 });
    ok(&one.send(&json!([{ "key": "k", "body": long }, { "key": "k", "body": { "do": "ack" } }])));
    let first = one.when_tried("it is handled", |tries| tries.len() == 1);
    one.kill_state_process();
    one.when_tried("it is handled again", |tries| tries.len() == 2);
    let other = server(&url).start();
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
fn nothing_is_lost_or_out_of_order_while_rabbitmq_is_killed_and_the_way_to_it_is_cut_and_silent() {
    let Some(mut rabbit) = Rabbit::for_test() else {
        return;
    };
    let proxy = Proxy::to(rabbit.port());
    let far = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port());
    let (far, near) = (server(&far).start(), server(&rabbit.url("/")).start());
    let both = [&far, &near];
    let history = std::thread::scope(|scope| {
        let recorded = scope.spawn(|| queue_history::record_at(&both, 30, Victims::Nobody));
        for (count, weather) in [(20, Weather::Cut), (40, Weather::Silent)] {
            when_tried(&both, count);
            proxy.be(weather);
            becomes(&far, false);
            proxy.be(Weather::Fair);
            becomes(&far, true);
        }
        when_tried(&both, 80);
        rabbit.kill();
        becomes(&near, false);
        rabbit.start_again();
        becomes(&near, true);
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn commands_work_on_what_is_there() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let url = rabbit.virtual_host();
    let sending = sender(&url, "max-depth = 3\n").start();
    let message = json!([{ "body": { "do": "dead" }, "key": "k", "headers": { "a": "b" } }]);
    let sent = sending.send(&message);
    sending
        .control(["queue", "send", "jobs", "{\"do\": \"ack\"}"])
        .ok();
    ok(&sending.send(&message));
    assert_eq!(error(&sending.send(&message)), "full");
    assert_eq!(sending.queue("jobs").messages, 3);
    // What nobody holds is not to be seen.
    let peeked: Value = sending.command(&["queue", "peek", "jobs"]);
    assert_eq!(peeked, json!([]));
    let mut handling = server(&url).start();
    sending.when_queue("all are handled", |it| it.messages == 0 && it.dead == 2);
    handling.stop();
    let letters: Value = sending.command(&["queue", "peek", "jobs", "--dead"]);
    assert_eq!(
        (&letters[0]["id"], &letters[0]["key"]),
        (&ok(&sent)[0], &"k".into())
    );
    let headers = letters[0]["headers"].to_string();
    assert!(headers.contains("wrun-dead-reason"), "{headers}");
    let back: Value = sending.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 2 }));
    assert_eq!(sending.queue("jobs").messages, 2);
    sending.control(["queue", "purge", "jobs", "--yes"]).ok();
    let left = sending.queue("jobs");
    assert_eq!((left.messages, left.dead), (0, 0));
}

#[test]
fn rabbitmq_that_is_away_is_said_to_be_at_once_and_is_back_by_itself_also_encrypted() {
    let Some(mut rabbit) = Rabbit::for_test() else {
        return;
    };
    let (port, certificate) = rabbit.encrypt();
    let url = format!(
        "amqps://guest:guest@localhost:{port}/?sslrootcert={}",
        certificate.display()
    );
    let server = sender(&url, "[consumers.jobs]\n[queues.here]\n").start();
    becomes(&server, true);
    rabbit.kill();
    becomes(&server, false);
    assert_away(&server, "RabbitMQ", SOON / 2);
    rabbit.start_again();
    becomes(&server, true);
    handles_one_more(&server, 1);
    // One that stands still is away, too.
    rabbit.pause();
    becomes(&server, false);
    rabbit.resume();
    becomes(&server, true);
    handles_one_more(&server, 2);
    // Whom nobody has vouched for is not trusted.
    let unknown = sender(&format!("amqps://guest:guest@localhost:{port}/"), "").fail();
    unknown.fails_after_its_log_with(69, &["queue jobs", "certificate", "queue.jobs"]);
}

#[test]
fn rabbitmq_that_is_away_or_lets_nobody_in_at_the_start_is_said_to_be() {
    let outcome = sender("amqp://127.0.0.1:1", "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "refused", "queue.jobs"]);
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    for (url, word) in [
        (rabbit.url("nowhere"), "vhost nowhere not found"),
        (
            rabbit.url("/").replace("guest@", "s3cret@"),
            "ACCESS_REFUSED",
        ),
    ] {
        let outcome = sender(&url, "").fail();
        outcome.fails_after_its_log_with(69, &["queue jobs", word, "queue.jobs"]);
        assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
    }
}

#[test]
fn doctor_says_what_is_there_and_what_is_not_promised() {
    let Some(rabbit) = Rabbit::shared() else {
        return;
    };
    let here = folder();
    let mut command = wrun().command();
    command
        .args(["doctor", "--json", "--queue", "jobs"])
        .env("WRUN_BIND_QUEUE_JOBS", rabbit.virtual_host())
        .current_dir(here.path());
    let outcome: Outcome = command.output().expect("wrun can be run").into();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("it prints JSON");
    let server = finding(&report, "queue.jobs");
    assert_eq!(server["status"], "ok", "{report}");
    assert!(
        server["found"].to_string().contains("RabbitMQ 3."),
        "{server}"
    );
    assert_eq!(finding(&report, "queue.jobs quorum queues")["status"], "ok");
    assert_eq!(finding(&report, "queue.jobs dedup ids")["status"], "info");
}
