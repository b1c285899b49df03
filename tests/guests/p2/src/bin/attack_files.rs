//! Reaches for what an instance was not given: files, sockets, names, other processes. `/` is harmless.

use std::fs::{self, File, OpenOptions};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasip2::filesystem::preopens;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const PATHS: [&str; 12] = [
    "/",
    ".",
    "..",
    "../..",
    "/etc/passwd",
    "etc/passwd",
    "/proc/self/mem",
    "/proc/self/environ",
    "/proc/1/root",
    "/dev/mem",
    "//",
    "\\",
];

handler!(handle);

/// Answers one line per attempt: `<attempt>: ok` or its error.
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let lines = match query::path(&request).as_str() {
        "/files" => files(),
        "/sockets" => sockets(query::number(&request, "port").unwrap_or(1)),
        _ => "harmless\n".to_owned(),
    };
    response::text(out, &lines);
}

fn files() -> String {
    let mut lines = format!("preopens: {}\n", preopens::get_directories().len());
    for path in PATHS {
        lines += &attempt(&format!("open {path}"), File::open(path));
        lines += &attempt(&format!("list {path}"), fs::read_dir(path));
        let mut write = OpenOptions::new();
        write.write(true).create(true).truncate(true);
        lines += &attempt(&format!("write {path}"), write.open(path));
        lines += &attempt(&format!("link {path}"), fs::hard_link(path, "linked"));
        lines += &attempt(&format!("rename {path}"), fs::rename(path, "renamed"));
        lines += &attempt(&format!("remove {path}"), fs::remove_file(path));
    }
    lines
}

fn sockets(port: u16) -> String {
    let mut lines = String::new();
    for host in ["127.0.0.1", "0.0.0.0", "[::1]", "169.254.169.254"] {
        lines += &attempt(
            &format!("connect {host}"),
            TcpStream::connect(format!("{host}:{port}")),
        );
        lines += &attempt(
            &format!("listen {host}"),
            TcpListener::bind(format!("{host}:0")),
        );
        lines += &attempt(
            &format!("datagram {host}"),
            UdpSocket::bind(format!("{host}:0")),
        );
    }
    for name in ["localhost", "example.com", "metadata.google.internal"] {
        lines += &attempt(&format!("resolve {name}"), (name, 80).to_socket_addrs());
    }
    lines
}

fn attempt<T>(what: &str, result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => format!("{what}: ok\n"),
        Err(error) => format!("{what}: {:?}\n", error.kind()),
    }
}
