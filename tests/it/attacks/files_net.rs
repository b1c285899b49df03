//! Files, sockets and names, of which there are none: cases 32 to 34.

use super::Target;
use crate::serve;
use std::net::TcpListener;

#[test]
fn no_file_can_be_opened_listed_written_linked_renamed_or_removed() {
    let target = Target::guest("attack_files");
    let lines = target.answers("GET", "/files", 200);
    assert!(lines.starts_with("preopens: 0\n"), "{lines}");
    assert!(lines.lines().count() > 70, "{lines}");
    assert!(!lines.contains(": ok"), "{lines}");
}

#[test]
fn no_socket_can_be_made_and_no_name_looked_up() {
    // Something to connect to, if that were possible.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // A grant of requests is no grant of sockets.
    let grant = format!("http://127.0.0.1:{port}");
    let target = Target::start(serve("attack_files").flag("--allow-outbound", &grant));
    let lines = target.answers("GET", &format!("/sockets?port={port}"), 200);
    assert_eq!(lines.lines().count(), 15, "{lines}");
    assert!(!lines.contains(": ok"), "{lines}");
    assert!(listener.accept().is_err(), "a guest connected");
}
