//! Requests that guests send, and what comes back: cases 35 and 36.

use super::Target;
use crate::serve;
use std::fs;
use wrun_tests::folder;
use wrun_tests::upstream::Upstream;

/// Sends one request from the guest, percent-encoding nothing but what a query cannot hold.
#[track_caller]
fn send(target: &Target, authority: &str, more: &str) -> String {
    let authority: String = authority
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    target.answers("GET", &format!("/send?authority={authority}&{more}"), 200)
}

#[test]
fn no_spelling_of_an_address_leads_to_a_place_that_is_not_granted() {
    let (granted, other) = (Upstream::start(), Upstream::start());
    let target = Target::start(serve("attack_outbound").flag("--allow-outbound", granted.url()));
    let (port, to) = (other.port(), format!("127.0.0.1:{}", granted.port()));
    for authority in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f000001:{port}"),
        format!("0177.0.0.1:{port}"),
        format!("127.1:{port}"),
        format!("0:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("[::ffff:7f00:1]:{port}"),
        format!("[64:ff9b::7f00:1]:{port}"),
        format!("[::]:{port}"),
        format!("{to}@127.0.0.1:{port}"),
        format!("{to}#@127.0.0.1:{port}"),
        format!("{to}\\@127.0.0.1:{port}"),
        format!("{to}/@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}#{to}"),
        format!("127.0.0.1:{port}\r\nHost: {to}"),
        format!("127.0.0.1:{port},{to}"),
        format!("{to}.127.0.0.1:{port}"),
        "169.254.169.254".to_owned(),
        "metadata.google.internal".to_owned(),
        "unix:/run/control.sock".to_owned(),
        format!("127.0.0.1:{}", target.server.addr().port()),
        String::new(),
    ] {
        let answer = send(&target, &authority, "");
        assert!(answer.starts_with("error "), "{authority:?}: {answer}");
    }
    for scheme in ["https", "file", "unix", "ftp", "gopher"] {
        let answer = send(&target, &to, &format!("scheme={scheme}"));
        assert!(answer.starts_with("error "), "{scheme}: {answer}");
    }
    // A path that is a whole address of its own.
    for path in [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("@127.0.0.1:{port}/"),
    ] {
        let answer = send(&target, &to, &format!("path={path}"));
        println!("{path}: {answer}");
    }
    assert_eq!(other.requests(), 0);
    assert!(send(&target, &to, "").starts_with("answer 200 "));
}

#[test]
fn granted_name_that_leads_to_a_private_address_is_refused() {
    let upstream = Upstream::start();
    let folder = folder();
    let hosts = folder.path().join("hosts");
    let names = [
        ("loopback.example", "127.0.0.1"),
        ("metadata.example", "169.254.169.254"),
        ("network.example", "10.0.0.1"),
        ("shared.example", "100.64.0.1"),
        ("six.example", "::1"),
        ("mapped.example", "::ffff:127.0.0.1"),
        ("translated.example", "64:ff9b::7f00:1"),
        ("local.example", "fd00::1"),
    ];
    let lines: String = names
        .iter()
        .map(|(name, address)| format!("{address} {name}\n"))
        .collect();
    fs::write(&hosts, lines).unwrap();
    let mount = format!(
        "mount --bind {} /etc/hosts; exec \"$0\" \"$@\"",
        hosts.display()
    );
    let mut launch = serve("attack_outbound").through([
        "unshare",
        "--map-root-user",
        "--user",
        "--mount",
        "sh",
        "-c",
        &mount,
    ]);
    for (name, _) in names {
        launch = launch.flag(
            "--allow-outbound",
            format!("http://{name}:{}", upstream.port()),
        );
    }
    let target = Target::start(launch);
    for (name, _) in names {
        let answer = send(&target, &format!("{name}:{}", upstream.port()), "");
        assert!(
            answer.contains("DestinationIpProhibited"),
            "{name}: {answer}"
        );
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn request_cannot_carry_fields_of_the_connection_or_a_second_request() {
    let upstream = Upstream::start();
    let target = Target::start(serve("attack_outbound").flag("--allow-outbound", upstream.url()));
    let to = format!("127.0.0.1:{}", upstream.port());
    for (name, value) in [
        ("connection", "upgrade"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("host", "elsewhere"),
        ("keep-alive", "1"),
        ("proxy-authorization", "x"),
        ("x-a", "b%0d%0ax-c:%20d"),
        ("x-a", "b%0ax-c:%20d"),
        ("x-a%0d%0ax-c", "d"),
        ("x-a:%20b%0d%0ax-c", "d"),
    ] {
        let answer = send(&target, &to, &format!("name={name}&value={value}"));
        assert!(answer.starts_with("error "), "{name}: {answer}");
    }
    for path in [
        "/a%20HTTP/1.1%0d%0aHost:%20b%0d%0a%0d%0aGET%20/",
        "/a%20b",
        "/a%0ab",
        "/a%00b",
    ] {
        let answer = send(&target, &to, &format!("path={path}"));
        assert!(answer.starts_with("error "), "{path}: {answer}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn very_many_requests_at_a_time_are_as_many_as_there_may_be() {
    let upstream = Upstream::start();
    let launch = serve("attack_outbound").flag("--outbound-requests", "20");
    let target = Target::start(launch.flag("--allow-outbound", upstream.url()));
    let path = format!("/many?count=2000&authority=127.0.0.1:{}", upstream.port());
    assert_eq!(target.answers("GET", &path, 200), "answered 20 of 2000\n");
    assert!(upstream.requests() <= 20);
}

#[test]
fn requests_that_nobody_waits_for_are_given_up_with_their_guest() {
    let upstream = Upstream::start();
    let launch = serve("attack_outbound").flag("--timeout", "1s");
    let target = Target::start(launch.flag("--allow-outbound", upstream.url()));
    let path = format!(
        "/leave?path=/silent&authority=127.0.0.1:{}",
        upstream.port()
    );
    target.answers("GET", &path, 504);
}

#[test]
fn server_that_never_answers_or_never_ends_costs_its_guest_the_time_that_it_has() {
    let upstream = Upstream::start();
    let launch = serve("attack_outbound")
        .flag("--timeout", "2s")
        .flag("--cpu", "1s")
        // A quick machine reads the default, 1 GiB, in less time than the guest has.
        .flag("--outbound-response-body", "1TiB");
    let target = Target::start(launch.flag("--allow-outbound", upstream.url()));
    let to = format!("127.0.0.1:{}", upstream.port());
    let answer = send(&target, &to, "path=/silent&first_byte_ms=100");
    assert!(answer.contains("HttpResponseTimeout"), "{answer}");
    for path in ["/silent", "/forever"] {
        let path = format!("/send?path={path}&authority={to}");
        target.answers("GET", &path, 504);
    }
}

#[test]
fn answer_with_fields_without_measure_is_an_error_for_the_guest() {
    let upstream = Upstream::start();
    let target = Target::start(serve("attack_outbound").flag("--allow-outbound", upstream.url()));
    let to = format!("127.0.0.1:{}", upstream.port());
    for path in ["/many-fields", "/long-field"] {
        let answer = send(&target, &to, &format!("path={path}"));
        assert!(answer.starts_with("error "), "{path}: {answer}");
    }
}

#[test]
fn compressed_answer_is_left_as_it_is() {
    let upstream = Upstream::start();
    let target = Target::start(serve("attack_outbound").flag("--allow-outbound", upstream.url()));
    let to = format!("127.0.0.1:{}", upstream.port());
    // "you asked for /encoded", which is no gzip at all.
    let answer = send(&target, &to, "path=/encoded");
    assert!(
        answer.starts_with("answer 200 ") && answer.ends_with(" 22\n"),
        "{answer}"
    );
}
