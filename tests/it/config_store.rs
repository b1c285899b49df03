//! `wasi:config`: variables of the manifest and of flags, and nothing else.

use crate::serve;
use wrun_tests::folder;

#[test]
fn variables_of_flags_win_over_those_of_the_manifest() {
    let server = serve("config_store")
        .manifest("[config]\ngreeting = \"hello\"\nname = \"manifest\"\nempty = \"\"\n[env]\nsecret = \"env\"\n")
        .flag("--config-var", "name=flag=x")
        .flag("--config-var", "more=1")
        .start();
    assert_eq!(
        server.get("/").ok(),
        "empty=\ngreeting=hello\nmore=1\nname=flag=x\n"
    );
    assert_eq!(server.get("/?key=greeting").ok(), "Some(\"hello\")");
    assert_eq!(server.get("/?key=empty").ok(), "Some(\"\")");
    assert_eq!(server.get("/?key=secret").ok(), "None");
}

#[test]
fn without_variables_there_are_none() {
    let server = serve("config_store").start();
    assert_eq!(server.get("/").ok(), "");
    assert_eq!(server.get("/?key=PATH").ok(), "None");
}

#[test]
fn reload_brings_new_variables() {
    let folder = folder();
    let manifest = folder.path().join("wrun.toml");
    let write = |text: &str| std::fs::write(&manifest, text).expect("a file");
    write("[config]\na = \"1\"\n");
    let server = serve("config_store").flag("--config", &manifest).start();
    assert_eq!(server.get("/").ok(), "a=1\n");
    write("[config]\na = \"2\"\n");
    server.reload();
    assert_eq!(server.get("/").ok(), "a=2\n");
}

#[test]
fn variable_that_is_no_text_refuses_the_start() {
    let launch = serve("config_store").manifest("[config]\na = 1\n");
    launch.fail().fails_with(78, &["line 2"]);
}
