//! Guests in Python: the SDK as `tests/guests/python-state` uses it, the templates, and how wrun builds a project.

use crate::wrun;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::thread;
use wrun_tests::project::tool;
use wrun_tests::{Outcome, SOON, Server, eventually, folder, http1, repository, third_party};

const MANIFEST: &str =
    "[databases.default]\n[locks.default]\n[queues.jobs]\nbackoff = \"10ms\"\n[consumers.jobs]\n";

/// All that the guest is asked, one after the other: its component takes long to compile.
#[test]
fn guest_finds_what_the_sdk_promises() {
    let Some(component) = third_party::python_state() else {
        return;
    };
    let server = wrun().serve(component).manifest(MANIFEST).workers(2);
    let server = server.start();
    server.post("/tables", b"").ok();
    request_and_response_are_whole(&server);
    exception_answers_500_and_is_logged(&server);
    values_keep_what_they_are(&server);
    errors_have_their_types_codes_and_whether_another_try_may_help(&server);
    transactions_do_not_oversell(&server);
    transaction_that_raises_leaves_nothing(&server);
    transaction_commits_only_under_a_lock_that_holds(&server);
    lock_keeps_others_out(&server);
    every_message_is_handled_and_only_the_hopeless_one_dies(&server);
}

/// Has wrun build a project, and starts a server of it.
fn project_server(name: &str, source: &str, workers: u32) -> Option<Server> {
    let project = third_party::python_project(name, &repository().join(source))?;
    let built = wrun().run(["build".as_ref(), project.as_os_str()]).ok();
    assert!(built.ends_with("/dist/app.wasm\n"), "{built}");
    Some(wrun().serve(project).workers(workers).start())
}

/// Sends as many POST requests at the same time as there are threads, and returns how many had which status.
fn at_once(server: &Server, threads: usize, each: usize, target: &str) -> HashMap<u16, usize> {
    let addr = server.addr();
    let clients: Vec<_> = (0..threads)
        .map(|_| {
            let target = target.to_owned();
            thread::spawn(move || {
                let mut connection = http1::Connection::open(addr);
                let post = |_| connection.exchange("POST", &target, &[], b"").status;
                (0..each).map(post).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut counts = HashMap::new();
    for client in clients {
        for status in client.join().expect("a client does not panic") {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts
}

fn request_and_response_are_whole(server: &Server) {
    let body = vec![b'x'; 300_000];
    let fields = [("x-mine", "yes")];
    let target = "/echo?name=a%20b&name=c";
    let response = server.connect().exchange("POST", target, &fields, &body);
    assert_eq!(response.status, 201);
    assert!(response.body == body);
    let field = |name| response.header(name);
    assert_eq!(
        (field("x-path"), field("x-query"), field("x-mine")),
        (Some("/echo"), Some("a b"), Some("yes"))
    );
    let cookies: Vec<_> = response.all("set-cookie").collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(server.get("/elsewhere").status, 404);
}

fn exception_answers_500_and_is_logged(server: &Server) {
    let response = server.get("/raise");
    assert_eq!(
        (response.status, response.text().as_str()),
        (500, "Internal error\n")
    );
    server.log().event("its last line", |event| {
        event["message"] == "RuntimeError: as told"
    });
    assert!(server.workers().iter().all(|worker| worker.restarts == 0));
}

fn values_keep_what_they_are(server: &Server) {
    assert_eq!(
        server.get_json("/values"),
        json!({ "wrong": {}, "at": "2024-02-29T12:30:00.000001+00:00", "decimal": "-12.50" })
    );
    let sum = 3 * 1200 * 1201 / 2;
    assert_eq!(
        server.get_json("/rows"),
        json!({ "total": sum, "first": [1, 2], "affected": 1, "rows": [{ "n": 1 }] })
    );
}

fn errors_have_their_types_codes_and_whether_another_try_may_help(server: &Server) {
    let db = |name: &str, code| json!([format!("wrun_sdk.db.errors.{name}"), code, false]);
    let of = |module: &str, name: &str| json!([format!("wrun_sdk.{module}.{name}"), null, false]);
    assert_eq!(
        server.get_json("/errors"),
        json!({
            "db": db("Denied", Value::Null),
            "lock": of("lock", "Denied"),
            "queue": of("queue", "Denied"),
            "unique": db("Refused", json!("23505")),
            "syntax": db("Refused", json!("42601")),
            "closed": db("Closed", Value::Null),
            "count": db("RowCount", Value::Null),
            "row": db("UnexpectedRow", Value::Null),
            "params": db("Invalid", Value::Null),
            "deadlock": of("lock", "WouldDeadlock"),
            "key": of("lock", "Invalid"),
            "empty": of("queue", "Invalid"),
        })
    );
}

fn transactions_do_not_oversell(server: &Server) {
    server.post("/stock?n=15", b"").ok();
    let told = at_once(server, 8, 5, "/sell");
    assert_eq!(told, HashMap::from([(200, 15), (409, 25)]));
    assert_eq!(
        server.get_json("/stock"),
        json!({ "left": 0, "orders": 15 })
    );
}

fn transaction_that_raises_leaves_nothing(server: &Server) {
    assert_eq!(server.get_json("/rollback"), json!([]));
    server.when_queue("nothing was sent", |queue| queue.messages == 0);
    assert_eq!(server.get_json("/handled"), json!([]));
}

fn transaction_commits_only_under_a_lock_that_holds(server: &Server) {
    assert_eq!(server.get("/fenced?held=no").status, 409);
    assert_eq!(server.get("/counter?name=fenced").status, 500);
    server.get("/fenced?held=yes").ok();
    assert_eq!(
        server.get_json("/counter?name=fenced"),
        json!({ "name": "fenced", "n": 1 })
    );
}

fn lock_keeps_others_out(server: &Server) {
    let count = |name: &str| {
        let counter = server.get_json(&format!("/counter?name={name}"));
        counter["n"].as_u64().expect("a number")
    };
    let told = at_once(server, 8, 3, "/count?name=locked");
    assert_eq!(told, HashMap::from([(200, 24)]));
    assert_eq!(count("locked"), 24);
    // The control: the same without the lock loses some.
    at_once(server, 8, 3, "/count?name=open&lock=no");
    assert!(count("open") < 24, "the lock made no difference");
}

fn every_message_is_handled_and_only_the_hopeless_one_dies(server: &Server) {
    let mut bodies = vec![
        json!({ "do": "retry" }),
        json!({ "do": "raise" }),
        json!({ "do": "dead" }),
    ];
    bodies.extend((0..40).map(|n| json!({ "do": "größe", "n": n })));
    let sent = server.post("/send", Value::from(bodies.clone()).to_string().as_bytes());
    let sent: BTreeSet<String> = serde_json::from_str(&sent.ok()).expect("ids");
    assert_eq!(sent.len(), bodies.len());
    server.when_queue("all are handled", |queue| {
        queue.messages == 0 && queue.dead == 1
    });
    let dead = server.control(["queue", "peek", "jobs", "--dead"]).ok();
    assert!(dead.contains("as told"), "{dead}");
    let handled = server.get_json("/handled");
    let handled = handled.as_array().expect("a list");
    assert_eq!(handled.len(), bodies.len() - 1);
    for one in handled {
        assert!(sent.contains(one["id"].as_str().expect("a text")));
        let is_late = one["body"]["do"] == "retry" || one["body"]["do"] == "raise";
        let attempt = one["attempt"].as_u64().expect("a number");
        assert!(attempt > u64::from(is_late), "{one}");
        assert!(bodies.contains(&one["body"]), "{one}");
    }
}

#[test]
fn sdk_and_templates_pass_their_own_tests() {
    let sdk = repository().join("guest-sdk/python");
    let templates = ["http", "inventory", "consumer"];
    let templates = templates.map(|name| repository().join("runtime/templates/python").join(name));
    for folder in templates.iter().chain([&sdk]) {
        if !third_party::python_tests(folder, &sdk) {
            return;
        }
    }
}

#[test]
fn template_http_answers() {
    let Some(server) = project_server("python-http", "runtime/templates/python/http", 1) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello from python-http!\n");
    assert_eq!(server.get("/hello/J%C3%BCrgen").ok(), "Hello, Jürgen!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
}

#[test]
fn template_inventory_does_not_oversell() {
    let source = "runtime/templates/python/inventory";
    let Some(server) = project_server("python-inventory", source, 2) else {
        return;
    };
    let first = server.post("/buy/ticket", b"");
    assert_eq!(first.ok(), r#"{"order":1,"left":99}"#);
    assert_eq!(server.post("/buy/castle", b"").status, 404);
    let told = at_once(&server, 8, 20, "/buy/ticket");
    assert_eq!(told, HashMap::from([(200, 99), (409, 61)]));
    assert_eq!(
        server.post("/buy/ticket", b"").text(),
        r#"{"error":"sold out"}"#
    );
    assert_eq!(server.post("/restock/ticket?n=many", b"").status, 404);
    server.post("/restock/ticket?n=3", b"").ok();
    assert_eq!(server.get("/stock").ok(), r#"{"ticket":3}"#);
}

#[test]
fn template_consumer_finishes_every_order() {
    let source = "runtime/templates/python/consumer";
    let Some(server) = project_server("python-consumer", source, 2) else {
        return;
    };
    for id in 1..=5 {
        let told = server.post("/orders", br#"{"item":"lamp"}"#);
        assert_eq!(
            (told.status, told.text()),
            (202, format!(r#"{{"id":{id}}}"#))
        );
    }
    for id in 1..=5 {
        eventually("the order is done", SOON, || {
            let order = server.get_json(&format!("/orders/{id}"));
            assert_eq!(order["id"], id);
            (order["state"] == "done").then_some(())
        });
    }
    assert_eq!(server.post("/orders", b"{").status, 400);
    assert_eq!(server.get("/orders/6").status, 404);
}

#[test]
fn example_runs_and_a_mistake_in_it_is_shown_by_the_build() {
    let Some(server) = project_server("python-hello", "examples/hello-python", 1) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello from Python!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
    let project = repository().join("target/third-party/python-hello");
    let app = project.join("app.py");
    let text = fs::read_to_string(&app).expect("an example has a source");
    let build_with = |text: String| {
        fs::write(&app, text).expect("a folder takes a file");
        wrun().run(["build".as_ref(), project.as_os_str()])
    };
    let forgotten = build_with(text.replace("@http.handler\n", ""));
    let wrong = build_with(format!("{text}\nimport nothing\n"));
    let repaired = build_with(text);
    assert_refused(&forgotten, "@http.handler in app.py");
    assert_refused(&wrong, "No module named 'nothing'");
    assert_refused(&wrong, "File \"app.py\", line");
    repaired.ok();
}

#[track_caller]
fn assert_refused(build: &Outcome, says: &str) {
    assert_eq!(build.code, Some(65), "{build:?}");
    assert!(build.stderr.contains("could not build"), "{build:?}");
    assert!(build.stderr.contains(says), "{says} is missing: {build:?}");
}

/// Makes a project of these files.
fn project(files: &[(&str, &str)]) -> wrun_tests::TempDir {
    let folder = folder();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a temporary folder takes files");
    }
    folder
}

#[test]
fn project_with_a_mistake_is_refused_with_what_to_change() {
    let unknown = project(&[("pyproject.toml", "[tool.wrun]\nworld = \"grpc\"\n")]);
    let launch = wrun().serve(unknown.path());
    launch
        .fail()
        .fails_with(78, &["grpc", "http, consumer or both"]);
    let without = project(&[("pyproject.toml", "[project]\nname = \"shop\"\n")]);
    let launch = wrun().serve(without.path());
    launch
        .fail()
        .fails_with(66, &["requirements.txt", "componentize-py=="]);
}

#[test]
fn python_that_is_missing_or_too_old_is_named() {
    let files = [
        ("pyproject.toml", ""),
        ("requirements.txt", "componentize-py==0.25.1\n"),
    ];
    let folder = project(&files);
    let serve = |path: &Path| wrun().serve(folder.path()).env("PATH", path).fail();
    let tools = wrun_tests::folder();
    serve(tools.path()).fails_with(69, &["cannot run python3", "apt install python3-venv"]);
    tool(tools.path(), "python3", "echo 3 9");
    serve(tools.path()).fails_with(69, &["Python 3.9", "3.10"]);
    let version_only = "case $2 in *print*) echo 3 11;; *) exit 1;; esac";
    tool(tools.path(), "python3", version_only);
    serve(tools.path()).fails_with(69, &["lacks the module venv", "apt install python3-venv"]);
}
