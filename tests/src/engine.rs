//! What the engines that tests start have in common: a port, and a certificate.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Returns a port that nobody uses.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// Returns a command that makes a key, and a certificate for `localhost`.
pub(crate) fn certify(key: &Path, certificate: &Path) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(key).arg("-out").arg(certificate);
    openssl
}
