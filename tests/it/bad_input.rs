//! What wrun cannot serve: one clear line and a hint, be it a start or a reload, and nothing else happens.

use crate::wrun;
use std::fs;
use std::time::{Duration, Instant};
use wrun_tests::components::{self, put, read};
use wrun_tests::guests::guest;
use wrun_tests::{SOON, Server, folder};

/// A file that is no component wrun could serve, and what the error must name.
struct Bad {
    what: &'static str,
    bytes: Vec<u8>,
    says: &'static [&'static str],
}

fn all_bad() -> Vec<Bad> {
    let bad = |what, bytes, says| Bad { what, bytes, says };
    let whole = read(&guest("http_hello"));
    let half = whole[..whole.len() / 2].to_vec();
    let mut flipped = whole;
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    vec![
        bad("a core module", components::core_module(), &["core module"]),
        bad(
            "no handler",
            components::without_handler(),
            &["acme:batch/jobs@1.0.0", "wasi:http/"],
        ),
        bad(
            "a command",
            read(&guest("command_only")),
            &["wasi:cli/run@0.2"],
        ),
        bad(
            "two handlers",
            components::two_handlers(),
            &["two handlers"],
        ),
        bad(
            "unknown imports",
            components::unknown_imports(),
            &["acme:cache/store@1.0.0", "acme:mail/outbox@0.1.0"],
        ),
        bad("a middleware", components::middleware(), &["middleware"]),
        bad("half a file", half, &["component.wasm"]),
        bad("a file with a damaged middle", flipped, &["component.wasm"]),
        bad("an empty file", Vec::new(), &["empty"]),
        bad(
            "a text",
            b"#!/bin/sh\necho hello\n".to_vec(),
            &["component.wasm"],
        ),
        bad(
            "the first bytes of a component",
            b"\0asm\x0d\0\x01\0".to_vec(),
            &["handler"],
        ),
        bad(
            "a version that does not exist",
            b"\0asm\x63\0\x01\0".to_vec(),
            &["component.wasm"],
        ),
    ]
}

#[test]
fn start_with_a_bad_component_fails_with_one_line_and_a_hint() {
    let folder = folder();
    for Bad { what, bytes, says } in all_bad() {
        let path = put(folder.path(), &bytes);
        let outcome = wrun().serve(&path).fail();
        println!("{what}: {}", outcome.stderr);
        outcome.fails_with(65, says);
    }
}

#[test]
fn reload_to_a_bad_component_fails_with_the_same_and_the_old_one_serves_on() {
    let folder = folder();
    let path = put(folder.path(), &read(&guest("http_hello")));
    let server = wrun().serve(&path).start();
    let pid = server.worker().pid;
    for Bad { what, bytes, says } in all_bad() {
        put(folder.path(), &bytes);
        let outcome = server.control(["reload"]);
        println!("{what}: {}", outcome.stderr);
        outcome.fails_with(65, says);
        assert_eq!(server.get("/").ok(), "hello\n");
        assert_eq!((server.generation(), server.worker().pid), (1, pid));
    }
    put(folder.path(), &read(&guest("http_hello")));
    assert_eq!(server.reload(), 2);
}

#[test]
fn compile_of_a_bad_component_fails_with_the_same_and_leaves_no_file() {
    let folder = folder();
    let output = folder.path().join("out.cwasm");
    for Bad { what, bytes, says } in all_bad() {
        let says: Vec<&str> = says
            .iter()
            .copied()
            .filter(|text| *text != "component.wasm")
            .collect();
        let path = put(folder.path(), &bytes);
        let outcome = wrun().run([
            "compile".as_ref(),
            path.as_os_str(),
            "-o".as_ref(),
            output.as_os_str(),
        ]);
        outcome.fails_with(65, &says);
        assert!(!output.exists(), "{what}");
    }
}

#[test]
fn compile_bomb_is_ended_by_its_limits() {
    let folder = folder();
    let path = put(folder.path(), &components::compile_bomb());
    let launch = wrun().serve(&path);
    launch
        .clone()
        .flag("--compile-cpu", "3s")
        .fail()
        .fails_with(65, &["limits"]);
    launch
        .flag("--compile-memory", "2GiB")
        .fail()
        .fails_with(65, &["limits"]);
}

#[test]
fn compile_bomb_in_a_reload_leaves_the_server_serving() {
    let folder = folder();
    let path = put(folder.path(), &read(&guest("http_hello")));
    let server: Server = wrun().serve(&path).flag("--compile-cpu", "4s").start();
    put(folder.path(), &components::compile_bomb());
    std::thread::scope(|scope| {
        let start = Instant::now();
        let reload = scope.spawn(|| server.control(["reload"]));
        while !reload.is_finished() {
            assert_eq!(server.get("/").ok(), "hello\n");
            assert!(
                start.elapsed() < Duration::from_secs(120),
                "the reload has no end"
            );
        }
        reload.join().unwrap().fails_with(65, &["limits"]);
    });
    assert_eq!((server.generation(), server.worker().restarts), (1, 0));
}

#[test]
fn missing_file_is_66() {
    let folder = folder();
    let outcome = wrun().serve(folder.path().join("nothing.wasm")).fail();
    outcome.fails_with(66, &["nothing.wasm does not exist"]);
    let outcome = wrun().serve(folder.path()).fail();
    outcome.fails_with(66, &["wrun.toml", "Cargo.toml"]);
}

#[test]
fn package_that_does_not_build_is_65() {
    let folder = folder();
    fs::create_dir(folder.path().join("src")).unwrap();
    let manifest = "[package]\nname = \"broken\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(
        folder.path().join("src/main.rs"),
        "fn main() { this is not Rust }\n",
    )
    .unwrap();
    wrun()
        .serve(folder.path())
        .fail()
        .fails_with(65, &["cargo"]);
}

#[test]
fn bad_flag_is_64_and_named() {
    let component = guest("http_hello");
    for (flag, value) in [
        ("--workers", "many"),
        ("--workers", "0"),
        ("--addr", "nowhere"),
        ("--memory", "lots"),
        ("--timeout", "soon"),
        ("--env", "NOVALUE"),
        ("--allow-outbound", "example.com"),
        ("--in-flight", "many"),
    ] {
        let args = [
            "serve".as_ref(),
            component.as_os_str(),
            flag.as_ref(),
            value.as_ref(),
        ];
        let outcome = wrun().run(args);
        assert_eq!(outcome.code, Some(64), "{flag} {value}: {outcome:?}");
        assert!(
            outcome.stderr.contains(flag) && outcome.stderr.contains(value),
            "{outcome:?}"
        );
    }
}

#[test]
fn unknown_flag_is_64_and_the_nearest_is_suggested() {
    let component = guest("http_hello");
    let outcome = wrun().run([
        "serve".as_ref(),
        component.as_os_str(),
        "--worker".as_ref(),
        "2".as_ref(),
    ]);
    assert_eq!(outcome.code, Some(64), "{outcome:?}");
    assert!(outcome.stderr.contains("--workers"), "{outcome:?}");
    assert_eq!(wrun().run(["sreve"]).code, Some(64));
}

#[test]
fn limit_that_nothing_could_run_with_is_78() {
    let component = guest("http_hello");
    for (flag, value) in [
        ("--memory", "5GiB"),
        ("--in-flight", "0"),
        ("--headers", "0"),
        ("--connections", "0"),
    ] {
        wrun()
            .serve(&component)
            .flag(flag, value)
            .fail()
            .fails_with(78, &[flag]);
    }
}

#[test]
fn unknown_manifest_key_is_78_and_the_nearest_is_suggested() {
    let folder = folder();
    let path = folder.path().join("wrun.toml");
    let component = guest("http_hello");
    for (text, says) in [
        (
            "[serve]\nworker = 2\n",
            ["worker", "did you mean `workers`?"],
        ),
        (
            "[limits]\nmemroy = \"1MiB\"\n",
            ["memroy", "did you mean `memory`?"],
        ),
        (
            "compnent = \"a\"\n",
            ["compnent", "did you mean `component`?"],
        ),
        (
            "[limit]\nmemory = \"1MiB\"\n",
            ["limit", "did you mean `limits`?"],
        ),
    ] {
        fs::write(&path, text).unwrap();
        let outcome = wrun().serve(&component).flag("--config", &path).fail();
        outcome.fails_with(78, &says);
    }
}

#[test]
fn manifest_that_is_no_toml_is_78_with_its_line() {
    let folder = folder();
    let path = folder.path().join("wrun.toml");
    for (text, line) in [
        ("[serve]\nworkers = = 2\n", "line 2"),
        ("[serve]\n\nworkers = []\n", "line 3"),
    ] {
        fs::write(&path, text).unwrap();
        wrun()
            .serve(&path)
            .fail()
            .fails_with(78, &[line, "wrun.toml"]);
    }
}

#[test]
fn reload_with_a_bad_manifest_fails_and_the_old_settings_hold() {
    let folder = folder();
    let path = folder.path().join("wrun.toml");
    let component = guest("http_hello");
    let good = format!("component = \"{}\"\n", component.display());
    fs::write(&path, &good).unwrap();
    let server = wrun().serve(&path).start();
    fs::write(&path, format!("{good}[serve]\nworker = 2\n")).unwrap();
    server
        .control(["reload"])
        .fails_with(78, &["did you mean `workers`?"]);
    assert_eq!(server.get("/").ok(), "hello\n");
    server.when("nothing else happened", SOON, |workers| {
        workers.len() == 1 && workers[0].restarts == 0
    });
}
