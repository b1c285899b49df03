//! Says what this instance can see of its host, and what it gets when it reaches for more.

use std::env;
use std::fs::File;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};

use wasip2::filesystem::preopens;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, response};

handler!(handle);

/// Answers one line per fact: `env K=V`, `arg A`, `preopens N`, and `<attempt>: ok` or its error kind.
fn handle(_request: IncomingRequest, out: ResponseOutparam) {
    let mut lines = String::new();
    for (name, value) in env::vars() {
        lines += &format!("env {name}={value}\n");
    }
    for arg in env::args() {
        lines += &format!("arg {arg}\n");
    }
    lines += &format!("preopens {}\n", preopens::get_directories().len());
    lines += &attempt("open /etc/passwd", File::open("/etc/passwd"));
    lines += &attempt("connect 127.0.0.1:1", TcpStream::connect("127.0.0.1:1"));
    lines += &attempt("listen 127.0.0.1:0", TcpListener::bind("127.0.0.1:0"));
    lines += &attempt("resolve localhost", "localhost:80".to_socket_addrs());
    response::text(out, &lines);
}

fn attempt<T>(what: &str, result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => format!("{what}: ok\n"),
        Err(error) => format!("{what}: {:?} ({error})\n", error.kind()),
    }
}
