//! Applications in JavaScript and TypeScript: what `wrun new` makes of the templates, an example, Hono, and a guest that uses
//! all of the SDK.

use crate::wrun;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;
use wrun_tests::npm::{self, App};
use wrun_tests::{Launch, SOON, Server, eventually};

/// Starts a server with some workers, unless this machine lacks what builds the application.
fn serve(app: Option<App>, workers: usize) -> Option<Server> {
    let app = app?;
    let launch = app.serve(&wrun(), &app.component());
    Some(launch.workers(workers).start())
}

/// Prepares a server of the guest that uses all of the SDK. It is compiled once: that takes much longer than a test.
fn state() -> Option<Launch> {
    static COMPILED: OnceLock<Option<(App, PathBuf)>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let app = npm::state(&wrun())?;
        let code = app.component().with_extension("cwasm");
        let component = app.component();
        let args = [
            "compile".as_ref(),
            component.as_os_str(),
            "-o".as_ref(),
            code.as_os_str(),
        ];
        wrun().run(args).ok();
        Some((app, code))
    });
    let (app, code) = compiled.as_ref()?;
    Some(app.serve(&wrun(), code))
}

fn posted(server: &Server, target: &str, body: &str) -> (u16, Value) {
    let response = server.post(target, body.as_bytes());
    let value = serde_json::from_slice(&response.body).expect("JSON");
    (response.status, value)
}

/// Sends so many requests at once, on as many connections, and returns the statuses.
fn at_once(server: &Server, requests: usize, method: &str, target: &str) -> Vec<u16> {
    thread::scope(|scope| {
        let senders: Vec<_> = (0..requests)
            .map(|_| scope.spawn(|| server.connect().exchange(method, target, &[], &[]).status))
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().expect("a request is answered"))
            .collect()
    })
}

/// Returns what the guest says to `what`, written as a query.
fn written(server: &Server, what: &str) -> Value {
    server.get_json(&format!("/write?what={what}"))
}

/// Waits until these letters were handled, and returns them.
fn when_read(server: &Server, count: usize) -> Vec<Value> {
    eventually("the letters are handled", SOON, || {
        let letters = server.get_json("/letters");
        let letters = letters.as_array().expect("a list").clone();
        (letters.len() >= count).then_some(letters)
    })
}

#[test]
fn example_in_javascript_runs() {
    let Some(server) = serve(npm::hello(&wrun()), 1) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello from JavaScript!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
    let mut kept = server.connect();
    for _ in 0..20 {
        assert_eq!(kept.get("/").ok(), "Hello from JavaScript!\n");
    }
}

#[test]
fn hono_in_typescript_runs_beside_the_sdk() {
    let Some(server) = serve(npm::hono(&wrun()), 1) else {
        return;
    };
    let response = server.get("/");
    assert_eq!(response.header("x-middleware"), Some("ran"));
    assert_eq!(response.ok(), "Hello from Hono!\n");
    assert_eq!(server.get("/users/ada").ok(), "{\"name\":\"ada\"}");
    assert_eq!(server.post("/echo", b"some text").ok(), "some text");
    assert_eq!(server.get("/stream").ok(), "one\ntwo\nthree\n");
    let failed = server.get("/error");
    assert_eq!(
        (failed.status, failed.text()),
        (500, "caught: asked to fail\n".to_owned())
    );
    for n in 1..=3 {
        assert_eq!(server.get_json("/visits"), json!({ "n": n }));
    }
}

#[test]
fn http_template_greets() {
    let Some(server) = serve(npm::template(&wrun(), "js", "http"), 1) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello from app!\n");
    assert_eq!(server.get("/hello/Ada").ok(), "Hello, Ada!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
}

/// Sells everything to more buyers than there is for, while the state process is killed, and checks the books.
fn assert_does_not_oversell(lang: &str) {
    const BUYERS: usize = 150;
    let Some(server) = serve(npm::template(&wrun(), lang, "inventory"), 3) else {
        return;
    };
    assert_eq!(
        posted(&server, "/buy/ticket", ""),
        (200, json!({ "order": 1, "left": 99 }))
    );
    assert_eq!(posted(&server, "/buy/nothing", "").0, 404);
    let statuses = thread::scope(|scope| {
        let buying = scope.spawn(|| at_once(&server, BUYERS, "POST", "/buy/ticket"));
        eventually("a third is sold", SOON, || {
            let left = server.get_json("/stock")["ticket"].as_i64()?;
            (left < 67).then_some(())
        });
        server.kill_state_process();
        buying.join().expect("all buyers are answered")
    });
    let mut sold = statuses.iter().filter(|status| **status == 200).count();
    // Whoever was at the commit just then is told that nobody knows.
    let unknown = statuses.iter().filter(|status| **status == 500).count();
    while posted(&server, "/buy/ticket", "").0 == 200 {
        sold += 1;
    }
    assert!(sold <= 99 && sold + unknown >= 99, "{statuses:?}");
    let orders: Value =
        server.command(&["db", "query", "default", "SELECT count(*) AS n FROM orders"]);
    assert_eq!(orders, json!([{ "n": 100 }]), "as many as there were");
    assert_eq!(server.get_json("/stock"), json!({ "ticket": 0 }));
    assert_eq!(posted(&server, "/buy/ticket", "").0, 409);
    assert_eq!(
        posted(&server, "/restock/ticket?n=5", ""),
        (200, json!({ "left": 5 }))
    );
}

#[test]
fn inventory_template_in_javascript_does_not_oversell() {
    assert_does_not_oversell("js");
}

#[test]
fn inventory_template_in_typescript_does_not_oversell() {
    assert_does_not_oversell("ts");
}

#[test]
fn consumer_template_handles_what_it_took() {
    const ORDERS: i64 = 20;
    let Some(server) = serve(npm::template(&wrun(), "js", "consumer"), 2) else {
        return;
    };
    for id in 1..=ORDERS {
        let placed = posted(&server, "/orders", r#"{"item": "ticket"}"#);
        assert_eq!(placed, (202, json!({ "id": id })));
    }
    for id in 1..=ORDERS {
        eventually("the order is done", SOON, || {
            let order = server.get_json(&format!("/orders/{id}"));
            (order == json!({ "id": id, "state": "done" })).then_some(())
        });
    }
    assert_eq!(server.get("/orders/1000").status, 404);
    assert_eq!(posted(&server, "/orders", "not JSON").0, 400);
}

#[test]
fn values_come_back_as_they_were() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    let typed = server.get_json("/typed");
    let expected = json!({
        "whole": 9_007_199_254_740_991_u64,
        "huge": "9223372036854775807n",
        "real_": 0.5,
        "text_": "grüße",
        "blob_": "bytes 0 1 254 255",
        "flag": true,
        "at": "2024-02-29T12:30:15.250Z",
        "document": { "list": [1, null] },
        "price": "12.50",
        "day": "2024-02-29",
        "moment": "12:30:15",
        "uid": "01234567-89ab-cdef-0123-456789abcdef",
        "absent": null,
    });
    assert_eq!(typed["row"], expected);
    assert_eq!(typed["isDate"], true);
    assert_eq!(typed["dialect"], "sqlite");
}

#[test]
fn errors_are_of_the_class_of_their_case() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    let errors = server.get_json("/errors");
    let errors = errors.as_object().expect("an object");
    assert_eq!(errors.len(), 16);
    for (name, error) in errors {
        assert_eq!(error["right"], true, "{name}: {error}");
        let (module, class) = name.split_once('.').unwrap_or_default();
        assert!(
            module.is_empty() || error["retryable"] == false,
            "{name}: {error}"
        );
        assert!(
            class.is_empty() || error["code"].is_string(),
            "{name}: {error}"
        );
    }
    assert_eq!(errors["db.RefusedError"]["code"], "23514");
    let said = errors["db.DeniedError"]["message"]
        .as_str()
        .expect("a text");
    assert!(said.contains("[databases.none]"), "{said}");
    assert_eq!(
        server.get_json("/ended"),
        json!(["closed", "closed", "closed"]),
        "what has ended is an error, and no trap"
    );
}

#[test]
fn transactions_are_committed_undone_and_tried_again() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    assert_eq!(
        server.get_json("/tries"),
        json!({ "tries": 3, "hopeless": 1, "n": 1 })
    );
    assert_eq!(
        server.get_json("/manual"),
        json!({
            "done": { "affected": 2, "lastId": 2 },
            "steps": [{ "affected": 2 }, [{ "n": 11 }, { "n": 12 }]],
            "none": "none",
        })
    );
    assert_eq!(server.get_json("/cursor"), 1200 * 1201 / 2);
}

#[test]
fn transaction_without_its_lock_is_not_committed() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    let first = server.get_json("/fenced");
    assert_eq!((&first["n"], &first["held"]), (&json!(1), &json!(true)));
    assert_eq!(
        server.get_json("/fenced?lose"),
        json!({ "code": "lost-fence", "held": false })
    );
    assert_eq!(server.get_json("/fenced")["n"], 2);
}

#[test]
fn lock_excludes_and_without_it_counts_are_lost() {
    const TIMES: usize = 60;
    let Some(launch) = state() else { return };
    let server = launch.workers(3).start();
    let counted = |name: &str| {
        let target = format!("/count?name={name}");
        let statuses = at_once(&server, TIMES, "GET", &target);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        server.get_json(&target)
    };
    assert_eq!(counted("locked"), TIMES + 1);
    let lost = counted("unlocked");
    assert!(
        lost.as_u64() <= Some(TIMES as u64),
        "nothing was lost: {lost}"
    );
}

#[test]
fn messages_are_handled_once_whoever_sends_them_and_however() {
    let Some(launch) = state() else { return };
    let server = launch.workers(3).start();
    assert_eq!(at_once(&server, 30, "GET", "/write"), [200; 30]);
    assert_eq!(written(&server, "many").as_array().map(Vec::len), Some(2));
    let twice = written(&server, "twice");
    assert_eq!(twice[0], twice[1]);
    assert_eq!(written(&server, "rolled%20back"), "Error: not after all");
    for what in ["headers", "committed", "retry"] {
        written(&server, what);
    }
    let letters = when_read(&server, 36);
    let count = |what: &str| {
        letters
            .iter()
            .filter(|letter| letter["what"]["what"] == what)
            .count()
    };
    let counts = [
        "plain",
        "many",
        "twice",
        "rolled back",
        "headers",
        "committed",
        "retry",
    ]
    .map(count);
    assert_eq!(counts, [30, 2, 1, 0, 1, 1, 1]);
    let find = |what: &str| {
        letters
            .iter()
            .find(|letter| letter["what"]["what"] == what)
            .expect("it is there")
    };
    assert_eq!(find("retry")["attempt"], 2);
    assert_eq!(
        find("headers")["what"],
        json!({ "what": "headers", "contentType": "text/x-letter", "headers": [["a", "1"], ["b", "2"]], "b": "2", "timely": true })
    );
}

#[test]
fn message_that_cannot_be_handled_goes_to_the_dead_letters() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    written(&server, "throw");
    written(&server, "dead");
    eventually("both are dead", SOON, || {
        (server.queue("letters").dead == 2).then_some(())
    });
    let said = server.log().event("the error", |event| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("failed to handle message"))
    });
    assert!(
        said["message"].to_string().contains("asked to fail"),
        "{said}"
    );
    assert_eq!(server.get_json("/letters"), json!([]));
}

#[test]
fn handler_that_throws_answers_500_and_its_reason_is_in_the_log() {
    let Some(launch) = state() else { return };
    let server = launch.start();
    let response = server.get("/throw");
    assert_eq!(
        (response.status, response.text()),
        (500, "Internal error\n".to_owned())
    );
    server.log().event("the error", |event| {
        event["message"] == "failed to answer: Error: asked to fail"
    });
}

#[test]
fn environment_is_that_of_the_manifest() {
    let Some(launch) = state() else { return };
    assert_eq!(launch.start().get_json("/env"), "hello from the manifest");
}
