//! Components that nobody wrote for wrun, from the registries: each runs as it is.

use crate::wrun;
use std::path::PathBuf;
use wrun_tests::{Http2, Server, third_party};

/// Starts a server, unless this machine lacks what builds the component.
fn serve(component: Option<PathBuf>) -> Option<Server> {
    component.map(|path| wrun().serve(path).start())
}

#[test]
fn example_server_of_wstd_runs() {
    let Some(server) = serve(third_party::wstd_http_server()) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello, wasi:http/proxy world!\n");
    assert!(server.get("/wait-response").ok().starts_with("slept for 1"));
    assert!(server.get("/wait-body").ok().starts_with("slept for 1"));
    assert_eq!(server.get("/stream-body").ok().lines().count(), 5);
    assert_eq!(server.get("/no-such-page").status, 404);
    for status in ["200", "302", "404", "503"] {
        let response = server.connect().exchange(
            "GET",
            "/response-status",
            &[("x-response-status", status)],
            &[],
        );
        assert_eq!(response.status.to_string(), status);
    }
    server.log().event("its println!", |event| {
        event["message"] == "serving /stream-body"
    });
}

#[test]
fn example_server_of_wstd_echoes() {
    let Some(server) = serve(third_party::wstd_http_server()) else {
        return;
    };
    let body = vec![b'x'; 1_000_000];
    assert!(server.post("/echo", &body).body == body);
    let response = server.connect().exchange(
        "GET",
        "/echo-headers",
        &[("x-mine", "yes"), ("x-two", "2")],
        &[],
    );
    assert_eq!(
        (response.header("x-mine"), response.header("x-two")),
        (Some("yes"), Some("2"))
    );
    let response = Http2::connect(server.addr()).get("/echo-trailers");
    assert_eq!(
        response.trailers,
        [("x-no-trailers".to_owned(), "1".to_owned())]
    );
}

#[test]
fn example_server_of_wstd_fails_as_it_means_to() {
    let Some(server) = serve(third_party::wstd_http_server()) else {
        return;
    };
    assert_eq!(server.get("/response-fail").status, 500);
    let mut connection = server.connect();
    connection.send_head("GET", "/response-body-fail", &[]);
    // Its head may still have been held back; then it can be an error.
    if let Ok(response) = connection.try_response() {
        assert_eq!(response.status, 500, "a failed body looks whole");
    }
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.worker().restarts, 0);
}

#[test]
fn axum_on_wstd_runs() {
    let Some(server) = serve(third_party::wstd_axum_hello_world()) else {
        return;
    };
    let response = server.get("/");
    assert_eq!(
        response.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(response.ok(), "<h1>Hello, World!</h1>");
    assert_eq!(server.get("/elsewhere").status, 404);
    assert_eq!(server.post("/", b"body").status, 405);
}

#[test]
fn example_of_wasip3_runs() {
    let Some(server) = serve(third_party::wasip3_http_proxy()) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello, WASI!");
    assert_eq!(Http2::connect(server.addr()).get("/").ok(), "Hello, WASI!");
}

#[test]
fn python_runs() {
    let Some(server) = serve(third_party::python_p3()) else {
        return;
    };
    assert_eq!(server.get("/").ok(), "Hello from Python 0.3!\n");
    let body = vec![b'x'; 300_000];
    assert!(server.post("/echo", &body).body == body);
}
