//! What guests are granted: labels of the manifest, and nothing by any other name.

use crate::serve;
use serde_json::{Value, json};
use wrun_tests::Server;
use wrun_tests::state::{error, ok};

const GRANTS: &str = "[locks.default]\n[databases.default]\n[queues.jobs]\n";

/// Labels that no manifest grants, or could.
fn bad_labels() -> Vec<String> {
    let long = "a".repeat(64 << 10);
    let labels = [
        "not-granted",
        "",
        &long,
        "default\0",
        "jobs\0",
        "../default",
        "../jobs",
        "./jobs",
        "DEFAULT",
        "jobs.dead",
        "de fault",
        "*",
    ];
    labels.map(str::to_owned).to_vec()
}

/// Has a guest open a database and send to a queue of this label, and returns the names of the errors.
fn open(server: &Server, label: &str) -> [String; 2] {
    let results = server.script(&json!([
        { "op": "begin" }, { "op": "send_in", "queue": label, "body": 1 }, { "op": "open", "db": label },
    ]));
    [&results[2], &results[1]].map(|result| error(result).to_owned())
}

#[test]
fn what_is_not_granted_is_denied_whatever_its_name() {
    let server = serve("state_db").manifest(GRANTS).start();
    for label in bad_labels() {
        let shown: String = label.chars().take(20).collect();
        assert_eq!(open(&server, &label), ["denied", "denied"], "{shown:?}");
    }
    assert_eq!(server.worker().restarts, 0);
    let files = std::fs::read_dir(server.state().join("data")).expect("there is data");
    for file in files {
        let name = file
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        assert!(name.starts_with("default."), "{name}");
    }
}

#[test]
fn labels_of_one_kind_grant_nothing_of_another() {
    let server = serve("state_db").manifest(GRANTS).start();
    let results = server.script(&json!([
        { "op": "begin" }, { "op": "send_in", "queue": "default", "body": 1 }, { "op": "open", "db": "jobs" },
    ]));
    assert_eq!([error(&results[1]), error(&results[2])], ["denied"; 2]);
}

#[test]
fn without_grants_everything_is_denied_and_there_is_no_state_process() {
    for guest in ["state_db", "state_lock", "state_queue"] {
        let server = serve(guest).start();
        assert_eq!(server.ps()["state"], Value::Null);
        let result = match guest {
            "state_db" => server.step(json!({ "op": "open", "db": "default" })),
            "state_lock" => server.get_json("/acquire?key=a"),
            _ => {
                assert_eq!(server.get("/handled").status, 500, "it has no database");
                continue;
            }
        };
        assert_eq!(error(&result), "denied", "{guest}");
        server
            .control(["lock", "ls"])
            .fails_with(69, &["shares nothing"]);
    }
}

#[test]
fn reload_grants_more_and_less() {
    let folder = wrun_tests::folder();
    let manifest = folder.path().join("wrun.toml");
    let grant = |sections: &str| std::fs::write(&manifest, sections).expect("a file");
    grant("");
    let server = serve("state_lock").flag("--config", &manifest).start();
    let take = || server.get_json("/acquire?key=a&space=stock");
    assert_eq!(error(&take()), "denied");
    grant("[locks.stock]\n");
    server.reload();
    let first = take();
    assert!(ok(&first)["token"].as_u64().is_some());
    grant("[locks.other]\n");
    server.reload();
    assert_eq!(error(&take()), "denied");
    grant("[locks.other]\n[locks.stock]\n");
    server.reload();
    assert!(ok(&take())["token"].as_u64() > ok(&first)["token"].as_u64());
}

#[test]
fn flags_grant_like_a_manifest() {
    let server = serve("state_db")
        .flag("--db", "default")
        .flag("--queue", "jobs")
        .flag("--lock", "default")
        .start();
    let results = server.script(&json!([
        { "op": "acquire", "keys": ["a"] }, { "op": "begin", "fenced": true }, { "op": "send_in", "queue": "jobs", "body": 1 },
        { "op": "commit" },
    ]));
    for result in &results {
        ok(result);
    }
    assert_eq!(server.queue("jobs").messages, 1);
}

#[test]
fn grants_that_make_no_sense_are_refused_at_the_start() {
    for (manifest, says) in [
        ("[locks.\"../a\"]\n", "../a"),
        ("[databases.\"\"]\n", "[databases]"),
        ("[queues.\"a.dead\"]\n", "a.dead"),
        ("[queues.jobs]\ndatabase = \"other\"\n", "[databases.other]"),
        ("[consumers.jobs]\n", "[queues.jobs]"),
        (
            "[queues.jobs]\nmax-atempts = 3\n",
            "did you mean `max-attempts`?",
        ),
        ("[databases.default]\nmax-size = \"1KiB\"\n", "max-size"),
    ] {
        let launch = serve("state_db").manifest(manifest);
        launch.fail().fails_with(78, &[says]);
    }
}
