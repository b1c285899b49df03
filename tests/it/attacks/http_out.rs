//! Answers that would put the connection out of step: cases 37 to 41. What is on the wire is read byte by byte.

use super::Target;
use crate::serve;
use std::io::Read as _;
use wrun_tests::{Connection, Response};

/// Values that would begin a field or an answer of their own, percent-encoded.
const SPLITS: [&str; 10] = [
    "a%0d%0aset-cookie:%20b=c",
    "a%0aset-cookie:%20b=c",
    "a%0dset-cookie:%20b=c",
    "a%0d%0a%0d%0aHTTP/1.1%20200%20OK",
    "%0d%0a",
    "%0a",
    "%0d",
    "a%00b",
    "a%7fb",
    "a%1fb",
];

/// Names that would do the same, or are none.
const NAMES: [&str; 12] = [
    "x%0d%0aset-cookie",
    "x%0ay",
    "x%0dy",
    "x:y",
    "x%20y",
    "%20x",
    "x%20",
    "",
    ":",
    "x%00y",
    "x%c3%a9",
    "x(y)",
];

/// Fields that belong to the connection.
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
];

/// Answers and what the client may get: `true` if it may look whole.
const ANSWERS: [(&str, &str, bool); 22] = [
    (
        "a length that is too short",
        "name=content-length&value=3&body=hello",
        false,
    ),
    (
        "a length that is too long",
        "name=content-length&value=9&body=hello",
        false,
    ),
    (
        "a length of nothing",
        "name=content-length&value=0&body=hello",
        false,
    ),
    (
        "a length of a gigabyte",
        "name=content-length&value=1073741824&body=hello",
        false,
    ),
    (
        "a length of 64 bits",
        "name=content-length&value=18446744073709551615&body=hello",
        false,
    ),
    (
        "a length of more than 64 bits",
        "name=content-length&value=18446744073709551616&body=hello",
        true,
    ),
    (
        "a length that is no number",
        "name=content-length&value=five&body=hello",
        true,
    ),
    (
        "a length with a sign",
        "name=content-length&value=%2b5&body=hello",
        true,
    ),
    (
        "a list of lengths",
        "name=content-length&value=5,5&body=hello",
        true,
    ),
    (
        "two lengths",
        "name=content-length&value=5&name2=content-length&value2=6&body=hello",
        true,
    ),
    ("no content and a body", "status=204&body=hello", true),
    (
        "no content and a length",
        "status=204&name=content-length&value=5&body=hello",
        true,
    ),
    ("not modified and a body", "status=304&body=hello", true),
    (
        "not modified and a length",
        "status=304&name=content-length&value=5&body=hello",
        true,
    ),
    ("reset and a body", "status=205&body=hello", true),
    ("100", "status=100&body=hello", true),
    ("101", "status=101&body=hello", true),
    ("103", "status=103&body=hello", true),
    ("199", "status=199&body=hello", true),
    (
        "a length among the trailers",
        "trailer=content-length&body=hello",
        true,
    ),
    (
        "a coding among the trailers",
        "trailer=transfer-encoding&body=hello",
        true,
    ),
    (
        "a date of its own",
        "name=date&value=yesterday&body=hello",
        true,
    ),
];

/// Checks that one answer and no more is on the connection: it is over, or the next request is the next.
#[track_caller]
fn assert_in_step(
    what: &str,
    connection: &mut Connection,
    answer: std::io::Result<Response>,
    may_be_whole: bool,
) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            assert!(!may_be_whole, "{what}: {error}");
            return;
        }
    };
    assert!(answer.status >= 200, "{what}: {answer:?}");
    assert!(
        may_be_whole || matches!(answer.status, 500 | 502),
        "{what}: {answer:?}"
    );
    let framings = answer.all("content-length").count() + answer.all("transfer-encoding").count();
    assert!(framings <= 1, "{what}: {answer:?}");
    assert_eq!(answer.all("date").count(), 1, "{what}: {answer:?}");
    match answer.status {
        204 => assert_eq!(framings, 0, "{what}: {answer:?}"),
        205 => assert_eq!(answer.body, [0; 0], "{what}: {answer:?}"),
        _ => {}
    }
    if answer.closes() {
        let rest = connection.rest().unwrap_or_default();
        assert!(rest.is_empty(), "{what}: {answer:?}");
        return;
    }
    connection.expects_no_body(false);
    assert_eq!(connection.get("/").ok(), "harmless\n", "{what}");
}

#[test]
fn value_or_name_that_would_end_its_line_is_refused() {
    let target = Target::guest("attack_response");
    for value in SPLITS {
        let text = target.answers("GET", &format!("/send?name=x&value={value}"), 200);
        assert_eq!(text, "refused x\n", "{value}");
    }
    for name in NAMES {
        let text = target.answers("GET", &format!("/send?name={name}&value=y"), 200);
        assert!(text.starts_with("refused "), "{name}: {text}");
    }
}

#[test]
fn field_of_the_connection_is_refused() {
    let target = Target::guest("attack_response");
    for name in HOP_BY_HOP {
        let response = target
            .server
            .get(&format!("/send?name={name}&value=x&body=hello"));
        let refused = response.text() == format!("refused {name}\n");
        assert!(
            refused || response.header(name).is_none(),
            "{name}: {response:?}"
        );
    }
    target.is_unharmed();
}

#[test]
fn answer_that_lies_about_itself_never_puts_the_connection_out_of_step() {
    let target = Target::guest("attack_response");
    for (what, query, may_be_whole) in ANSWERS {
        for method in ["GET", "HEAD"] {
            let mut connection = target.server.connect();
            connection.send_head(method, &format!("/send?{query}"), &[]);
            let answer = connection.try_response();
            // Without a body there is nothing to be wrong.
            assert_in_step(
                what,
                &mut connection,
                answer,
                may_be_whole || method == "HEAD",
            );
        }
        target.is_unharmed();
    }
}

#[test]
fn answer_of_0_3_that_lies_about_itself_never_puts_the_connection_out_of_step() {
    let target = Target::guest("service_response");
    for (path, may_be_whole) in [
        ("/short", false),
        ("/long", false),
        ("/twice", true),
        ("/204", true),
        ("/304", true),
        ("/100", true),
        ("/101", true),
        ("/hop", true),
        ("/split", true),
    ] {
        for method in ["GET", "HEAD"] {
            let mut connection = target.server.connect();
            connection.send_head(method, path, &[]);
            let answer = connection.try_response();
            if let Ok(answer) = &answer {
                for name in ["connection", "upgrade", "keep-alive", "x-c"] {
                    assert_eq!(answer.header(name), None, "{path}: {answer:?}");
                }
            }
            assert_in_step(
                path,
                &mut connection,
                answer,
                may_be_whole || method == "HEAD",
            );
        }
        target.is_unharmed();
    }
}

#[test]
fn answer_without_a_body_has_none_on_the_wire() {
    let target = Target::guest("attack_response");
    for (method, status) in [("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404)] {
        let mut connection = target.server.connect();
        connection.send(format!(
            "{method} /send?status={status}&body=hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        let bytes = connection.rest().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(
            text.ends_with("\r\n\r\n") && !text.contains("hello"),
            "{text}"
        );
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    }
    target.is_unharmed();
}

#[test]
fn fields_without_measure_are_refused() {
    let target = Target::guest("attack_response");
    for query in [
        "count=100000&size=0",
        "count=100000&size=100",
        "count=1&size=1048576",
        "count=200&size=1000",
    ] {
        let response = target.server.get(&format!("/many-fields?{query}"));
        let refused = response.text().starts_with("refused at ");
        assert!(
            refused || matches!(response.status, 500 | 502),
            "{query}: {}",
            response.status
        );
        target.is_unharmed();
    }
}

#[test]
fn guest_that_never_answers_is_ended() {
    let target = Target::start(serve("attack_response").flag("--timeout", "500ms"));
    target.answers("GET", "/silent", 500);
    target.answers("GET", "/late", 504);
}

#[test]
fn guest_that_answers_twice_is_answered_for_once() {
    let target = Target::guest("attack_calls");
    let mut connection = target.server.connect();
    connection.send_head("GET", "/twice", &[]);
    if let Ok(response) = connection.try_response() {
        assert!(matches!(response.status, 200 | 500), "{response:?}");
        assert_eq!(connection.get("/").ok(), "harmless\n");
    }
    drop(connection);
    target.is_unharmed();
}

#[test]
fn what_is_written_after_the_end_or_not_to_the_end_is_no_answer() {
    let target = Target::guest("attack_response");
    for path in ["/after-finish", "/no-finish"] {
        let mut connection = target.server.connect();
        connection.send_head("GET", path, &[]);
        match connection.try_response() {
            Ok(response) if response.status == 200 => {
                assert_eq!(response.text(), "whole\n", "{path}");
            }
            Ok(response) => assert!(matches!(response.status, 500 | 502), "{path}: {response:?}"),
            Err(_) => {}
        }
        let rest = connection
            .try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .and_then(|()| connection.try_response());
        if let Ok(next) = rest {
            assert_eq!(next.ok(), "harmless\n", "{path}");
        }
        drop(connection);
        target.is_unharmed();
    }
}

#[test]
fn answer_that_stalls_is_cut_off() {
    let target = Target::start(serve("attack_response").flag("--timeout", "500ms"));
    let mut connection = target.server.connect();
    connection.send_head("GET", "/stalls", &[]);
    let head = connection.head().unwrap();
    let mut body = connection.body(&head).unwrap();
    body.read_to_end(&mut Vec::new())
        .expect_err("it has no end");
    drop(connection);
    target.is_unharmed();
}

#[test]
fn endless_answer_to_a_client_that_takes_nothing_is_cut_off_and_takes_no_memory() {
    let launch = serve("attack_response")
        .flag("--stall-timeout", "1s")
        .flag("--timeout", "10min");
    let target = Target::start(launch);
    let mut clients: Vec<_> = (0..8).map(|_| target.server.connect()).collect();
    for client in &mut clients {
        client.send_head("GET", "/pieces?size=1000000", &[]);
    }
    target.server.when_in_flight(8);
    target.server.when_in_flight(0);
    drop(clients);
    target.is_unharmed();
}

#[test]
fn answer_in_very_many_pieces_passes_in_flat_memory() {
    let target = Target::guest("attack_response");
    let response = target.server.get("/pieces?size=1&count=20000");
    assert_eq!(response.body.len(), 20_000);
    let response = target.server.get("/pieces?size=1000000&count=200");
    assert_eq!(response.body.len(), 200_000_000);
    target.is_unharmed();
}
