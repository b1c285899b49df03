//! The log: what guests write, who asked for what, and in which form.

use crate::serve;
use serde_json::Value;
use wrun_tests::{SOON, Server, eventually};

fn lines_of(server: &Server, id: &str) -> Vec<Value> {
    let events = server.log().events().into_iter();
    events
        .filter(|event| event["request_id"] == id && event["stream"].is_string())
        .collect()
}

fn get_as(server: &Server, id: &str, target: &str) {
    server
        .connect()
        .exchange("GET", target, &[("x-request-id", id)], &[])
        .ok();
}

#[test]
fn log_is_json_when_it_goes_to_a_file_or_pipe() {
    let server = serve("http_log").start();
    get_as(&server, "one", "/line?text=from+the+guest");
    server.log().line_with("from the guest");
    for line in server.log().lines().iter().skip(1) {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(event[field].is_string(), "no {field}: {line}");
        }
    }
}

#[test]
fn log_is_text_on_a_terminal() {
    let server = serve("http_log").on_terminal().start();
    get_as(&server, "one", "/line?text=from+the+guest");
    let line = server.log().line_with("from the guest");
    assert!(serde_json::from_str::<Value>(&line).is_err(), "{line}");
}

#[test]
fn line_of_a_guest_is_logged_with_its_request_and_stream() {
    let server = serve("http_log").start();
    get_as(&server, "the-id", "/line?text=from+the+guest");
    let event = server.log().event("the guest's line", |event| {
        event["message"] == "from the guest"
    });
    assert_eq!(
        (&event["request_id"], &event["stream"]),
        (&"the-id".into(), &"stdout".into())
    );
}

#[test]
fn line_of_a_guest_cannot_command_a_terminal_or_fake_a_line() {
    let server = serve("http_log").on_terminal().start();
    get_as(&server, "one", "/ansi");
    let line = server.log().line_with("utf8");
    let guest_part = &line[line.find("red").expect("the text is there")..];
    assert!(
        !guest_part.contains(|c: char| c.is_control() && c != '\u{1b}'),
        "{line:?}"
    );
    for command in ["\u{1b}]0;title", "\u{1b}[0m \u{1b}]"] {
        assert!(!line.contains(command), "{line:?}");
    }
    assert!(guest_part.contains("title"), "{line:?}");
    assert!(guest_part.contains("end"), "{line:?}");
}

#[test]
fn log_of_one_request_is_bounded_and_says_that_it_was_cut() {
    let server = serve("http_log").flag("--log", "4KiB").start();
    get_as(&server, "much", "/?bytes=1000000");
    get_as(&server, "little", "/?bytes=800");
    eventually("the other request's lines", SOON, || {
        (lines_of(&server, "little").len() == 10).then_some(())
    });
    let lines = lines_of(&server, "much");
    let len: usize = lines
        .iter()
        .map(|event| event["message"].as_str().unwrap().len())
        .sum();
    assert!((3000..=4096).contains(&len), "{len} bytes were logged");
    let events = server.log().events();
    let cut = events
        .iter()
        .filter(|event| event["request_id"] == "much" && !event["stream"].is_string());
    assert_eq!(cut.count(), 1, "one event says that the rest is missing");
}

#[test]
fn guest_that_floods_the_log_is_still_answered() {
    let server = serve("http_log").start();
    get_as(&server, "flood", "/?bytes=20000000");
}

#[test]
fn access_log_has_one_event_for_each_request() {
    let server = serve("http_hello").arg("--access-log").start();
    let response = server.connect().exchange(
        "POST",
        "/some/path?q=1",
        &[("x-request-id", "an-id")],
        b"body",
    );
    assert_eq!(response.status, 200);
    let event = server
        .log()
        .event("the request", |event| event["request_id"] == "an-id");
    assert_eq!(event["method"], "POST");
    assert!(
        event["path"].as_str().unwrap().starts_with("/some/path"),
        "{event}"
    );
    assert_eq!(event["status"], 200);
    assert_eq!(event["bytes"], 6);
    assert!(event["duration_ms"].is_number(), "{event}");
    let of_this = |event: &&Value| event["request_id"] == "an-id";
    assert_eq!(server.log().events().iter().filter(of_this).count(), 1);
}

#[test]
fn access_log_has_refusals_too() {
    let server = serve("http_hello").arg("--access-log").start();
    assert_eq!(
        server
            .connect()
            .exchange("TRACE", "/refused", &[], &[])
            .status,
        405
    );
    let event = server
        .log()
        .event("the refusal", |event| event["path"] == "/refused");
    assert_eq!(event["status"], 405);
}

#[test]
fn requests_are_not_logged_unless_asked_for() {
    let server = serve("http_log").start();
    get_as(&server, "an-id", "/line?text=marker");
    server.log().line_with("marker");
    assert!(
        server
            .log()
            .events()
            .iter()
            .all(|event| event["status"].is_null()),
        "{}",
        server.log().text()
    );
}
