//! Queues that are bound to a broker of Kafka's protocol which shares no code with wrun's client: several servers of wrun's that
//! share a queue, their processes killed, and the way to the broker slow, silent and cut.

use crate::shared_queue::{
    assert_away, assert_nothing_is_lost, assert_sound, becomes, handles_one_more, sender, server,
    when_tried,
};
use serde_json::{Value, json};
use std::time::Duration;
use wrun_tests::murder::Victims;
use wrun_tests::proxy::Weather;
use wrun_tests::queue_history;
use wrun_tests::state::ok;
use wrun_tests::tansu::Tansu;

#[test]
fn two_servers_share_a_queue_on_another_broker_and_lose_nothing_while_workers_are_killed() {
    let Some(tansu) = Tansu::for_test() else {
        return;
    };
    let url = tansu.cluster().with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::Workers);
}

#[test]
fn two_servers_lose_nothing_on_another_broker_while_state_processes_are_killed() {
    let Some(tansu) = Tansu::for_test() else {
        return;
    };
    let url = tansu.cluster().with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    assert_nothing_is_lost(&[&one, &other], Victims::State);
}

#[test]
fn nothing_is_lost_or_out_of_order_while_another_broker_is_slow_silent_and_cut_off() {
    let Some((tansu, proxy)) = Tansu::behind_proxy() else {
        return;
    };
    let url = tansu.cluster().with_jobs(4);
    let (one, other) = (server(&url).start(), server(&url).start());
    let both = [&one, &other];
    let history = std::thread::scope(|scope| {
        let recorded = scope.spawn(|| queue_history::record_at(&both, 30, Victims::Nobody));
        for (count, weather) in [(20, Weather::Cut), (60, Weather::Silent)] {
            when_tried(&both, count);
            proxy.be(weather);
            becomes(&one, false);
            proxy.be(Weather::Fair);
            becomes(&one, true);
        }
        when_tried(&both, 100);
        proxy.be(Weather::Slow(Duration::from_millis(100)));
        when_tried(&both, 110);
        proxy.be(Weather::Fair);
        recorded.join().expect("the clients go on")
    });
    assert_sound(&history);
}

#[test]
fn another_broker_that_is_away_is_said_to_be_at_once_and_is_back_by_itself() {
    let Some((tansu, proxy)) = Tansu::behind_proxy() else {
        return;
    };
    let url = tansu.cluster().with_jobs(1);
    let server = sender(&url, "[consumers.jobs]\n[queues.here]\n").start();
    becomes(&server, true);
    proxy.be(Weather::Cut);
    becomes(&server, false);
    assert_away(&server, "Kafka", wrun_tests::SOON / 10);
    proxy.be(Weather::Fair);
    becomes(&server, true);
    handles_one_more(&server, 1);
}

#[test]
fn commands_work_on_what_is_on_another_broker() {
    let Some(tansu) = Tansu::for_test() else {
        return;
    };
    let url = tansu.cluster().with_jobs(2);
    let sending = sender(&url, "").start();
    let message = json!([{ "body": { "do": "dead" }, "key": "k", "headers": { "a": "b" } }]);
    let sent = sending.send(&message);
    assert_eq!(sending.queue("jobs").messages, 1);
    let mut handling = server(&url).start();
    sending.when_queue("it is handled", |it| it.messages == 0 && it.dead == 1);
    handling.stop();
    let letters: Value = sending.command(&["queue", "peek", "jobs", "--dead"]);
    assert_eq!(
        (&letters[0]["id"], &letters[0]["key"]),
        (&ok(&sent)[0], &"k".into())
    );
    let back: Value = sending.command(&["queue", "redrive", "jobs"]);
    assert_eq!(back, json!({ "count": 1 }));
    assert_eq!(sending.queue("jobs").messages, 1);
    assert_eq!(sending.queue("jobs").dead, 0);
    sending.control(["queue", "purge", "jobs", "--yes"]).ok();
    assert_eq!(sending.queue("jobs").messages, 0);
}

#[test]
fn encrypted_connection_is_only_made_to_a_broker_whose_certificate_is_trusted() {
    let Some((tansu, _front)) = Tansu::behind_tls() else {
        return;
    };
    let url = tansu.cluster().with_jobs(2);
    let server = server(&url).start();
    handles_one_more(&server, 1);
    let (trusting_all, _) = url.split_once('?').expect("it names the certificate");
    let outcome = sender(trusting_all, "").fail();
    outcome.fails_after_its_log_with(69, &["queue jobs", "certificate verify failed"]);
}

#[test]
fn broker_that_lets_nobody_in_is_said_to_do_so() {
    let Some(tansu) = Tansu::for_nobody() else {
        return;
    };
    let broker = tansu.cluster().brokers();
    let url = format!("kafka://shop:s3cret@{broker}?sasl=SCRAM-SHA-512");
    let outcome = sender(&url, "").fail();
    let said = ["queue jobs", "SASL authentication error"];
    outcome.fails_after_its_log_with(69, &said);
    assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
}
