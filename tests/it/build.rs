//! `wrun build`, and `wrun serve` of a folder in Rust: what is built, how, and what is said when it cannot be.

use crate::wrun;
use serde_json::Value;
use std::env;
use std::fs;
use std::path::Path;
use wrun_tests::guests::{example, guest};
use wrun_tests::project::{package, tool};
use wrun_tests::{Outcome, folder};

/// A handler that puts 100 KiB on its stack when it is asked for `/deep`.
const HANDLER: &str = r#"
use wrun_sdk::http::{self, Request, Response, StatusCode};

#[wrun_sdk::http]
fn main(request: Request) -> Response {
    match request.uri().path() {
        "/deep" => deep(),
        _ => http::text(StatusCode::OK, "shallow\n"),
    }
}

// Inlined, its frame would be there for every request.
#[inline(never)]
fn deep() -> Response {
    let frame = std::hint::black_box([7_u8; 100 << 10]);
    http::text(StatusCode::OK, format!("{}\n", frame[99]))
}
"#;

/// Where cargo is, whatever PATH is.
fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn build(folder: &Path) -> Outcome {
    wrun().run(["build".as_ref(), folder.as_os_str()])
}

/// Builds `folder` with the programs in `path` alone.
fn build_with(path: &Path, variables: &[(&str, &str)], folder: &Path) -> Outcome {
    let mut command = wrun().command();
    command
        .env_remove("CARGO")
        .env("PATH", path)
        .envs(variables.iter().copied())
        .arg("build")
        .arg(folder);
    command.output().expect("wrun runs").into()
}

#[test]
fn path_of_the_component_is_all_that_is_printed() {
    let printed = build(&example("hello")).ok();
    let path = printed.strip_suffix('\n').expect("a line");
    assert!(path.ends_with("/hello.wasm"), "{path}");
    assert!(Path::new(path).is_file());
    let json = wrun().run([
        "build".as_ref(),
        example("hello").as_os_str(),
        "--json".as_ref(),
    ]);
    let json: Value = serde_json::from_str(&json.ok()).expect("JSON");
    assert_eq!(json["component"], path);
}

#[test]
fn guest_begins_with_little_memory_and_sets_its_stack() {
    let files = [("src/main.rs", HANDLER)];
    let small = package("build-small", "", &files);
    // A server has to be there in time; what its guest is made of may take longer.
    build(&small).ok();
    let server = wrun().serve(&small).flag("--memory", "512KiB").start();
    assert_eq!(server.get("/").ok(), "shallow\n");
    assert_eq!(server.get("/deep").status, 500);
    server.log().event("the setting to change", |event| {
        let text = event.to_string();
        text.contains("out of bounds") && text.contains("`stack` in [package.metadata.wrun]")
    });

    let stack = "[package.metadata.wrun]\nstack = \"1MiB\"";
    let large = package("build-large", stack, &files);
    let launch = wrun().serve(&large).flag("--memory", "512KiB");
    launch.fail().fails_with(65, &["starts with", "--memory"]);
    let server = wrun().serve(&large).start();
    assert_eq!(server.get("/deep").ok(), "7\n");
}

#[test]
fn unknown_setting_is_78() {
    let setting = "[package.metadata.wrun]\nstacks = \"1MiB\"";
    let folder = package("build-setting", setting, &[("src/main.rs", HANDLER)]);
    build(&folder).fails_with(78, &["stacks", "`stack`"]);
}

#[test]
fn missing_cargo_is_69_and_says_where_to_get_it() {
    let nothing = folder();
    let outcome = build_with(nothing.path(), &[], &example("hello"));
    outcome.fails_with(69, &["cargo is not installed", "https://rustup.rs"]);
}

#[test]
fn missing_target_is_added_or_69() {
    let tools = folder();
    tool(tools.path(), "rustc", "echo /nowhere");
    let cargo = cargo();
    let set = [("CARGO", cargo.as_str())];
    let outcome = build_with(tools.path(), &set, &example("hello"));
    outcome.fails_with(
        69,
        &["wasm32-wasip2", "there is no rustup", "https://rustup.rs"],
    );

    let asked = tools.path().join("asked");
    let script = format!("echo \"$@\" > {}; exit 1", asked.display());
    tool(tools.path(), "rustup", &script);
    let outcome = build_with(tools.path(), &set, &example("hello"));
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("run `rustup target add wasm32-wasip2`"),
        "{outcome:?}"
    );
    let asked = fs::read_to_string(asked).expect("rustup was run");
    assert_eq!(asked, "target add wasm32-wasip2\n");
}

#[test]
fn package_of_several_components_is_64_until_it_says_which() {
    let files = [
        ("src/bin/web.rs", HANDLER),
        ("src/bin/api.rs", "fn main() { does not compile }"),
    ];
    let several = package("build-several", "", &files);
    build(&several).fails_with(64, &["api", "web", "`default-run`"]);
    let one = package("build-one", "default-run = \"web\"", &files);
    let path = build(&one).ok();
    assert!(path.ends_with("/web.wasm\n"), "{path}");
}

#[test]
fn package_without_a_program_is_65() {
    let folder = package("build-library", "", &[("src/lib.rs", "")]);
    build(&folder).fails_with(65, &["builds no component", "cdylib"]);
}

#[test]
fn program_without_a_handler_is_65_and_says_what_to_export() {
    let folder = package("build-silent", "", &[("src/main.rs", "fn main() {}")]);
    build(&folder).ok();
    let outcome = wrun().serve(&folder).fail();
    outcome.fails_with(65, &["no handler", "wasi:cli/run@0.2", "`wrun new`"]);
}

#[test]
fn nothing_to_build_is_66_or_64() {
    let folder = folder();
    let says = [
        "wrun.toml",
        "Cargo.toml",
        "package.json",
        "pyproject.toml",
        "`wrun new`",
    ];
    build(folder.path()).fails_with(66, &says);
    fs::write(folder.path().join("wrun.toml"), "").expect("a file");
    build(folder.path()).fails_with(66, &says);
    build(&folder.path().join("nowhere")).fails_with(66, &["nowhere does not exist"]);
    build(&guest("http_hello")).fails_with(64, &["http_hello.wasm", "nothing to build"]);
}
