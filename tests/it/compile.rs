//! Compiled code: made ahead of time, kept, and never run unless it is our own and whole.

use crate::{serve, wrun};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use wrun_tests::guests::guest;
use wrun_tests::{Outcome, folder};

fn compile(from: &Path, to: &Path, key: &Path) -> Outcome {
    let args = [
        "compile".as_ref(),
        from.as_os_str(),
        "-o".as_ref(),
        to.as_os_str(),
    ];
    wrun().run(
        args.into_iter()
            .chain(["--key-file".as_ref(), key.as_os_str()]),
    )
}

/// Returns the compiled code that a server keeps in its state folder.
fn kept_code(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state)
        .expect("the folder can be listed")
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                kept_code(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect()
}

#[test]
fn component_compiled_ahead_is_served() {
    let folder = folder();
    let (code, key) = (folder.path().join("app.cwasm"), folder.path().join("key"));
    for (name, answer) in [("http_hello", "hello\n"), ("service_static", "calls 1\n")] {
        compile(&guest(name), &code, &key).ok();
        let server = wrun().serve(&code).flag("--key-file", &key).start();
        assert_eq!(server.get("/").ok(), answer);
    }
}

#[test]
fn key_file_can_come_from_the_environment() {
    let folder = folder();
    let (code, key) = (folder.path().join("app.cwasm"), folder.path().join("key"));
    compile(&guest("http_hello"), &code, &key).ok();
    assert_eq!(
        wrun()
            .serve(&code)
            .env("WRUN_KEY_FILE", &key)
            .start()
            .get("/")
            .ok(),
        "hello\n"
    );
}

#[test]
fn key_is_made_only_for_its_owner() {
    let folder = folder();
    let (code, key) = (folder.path().join("app.cwasm"), folder.path().join("key"));
    compile(&guest("http_hello"), &code, &key).ok();
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn damaged_compiled_code_is_refused() {
    let folder = folder();
    let (code, key) = (folder.path().join("app.cwasm"), folder.path().join("key"));
    compile(&guest("http_hello"), &code, &key).ok();
    let whole = fs::read(&code).unwrap();
    let launch = || wrun().serve(&code).flag("--key-file", &key);
    let last = whole.len() - 1;
    for at in [
        4,
        64,
        last / 4,
        last / 2,
        last - 200,
        last - 50,
        last - 20,
        last,
    ] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&code, damaged).unwrap();
        launch().fail().fails_with(65, &["app.cwasm"]);
    }
    for len in [last, last / 2, 100] {
        fs::write(&code, &whole[..len]).unwrap();
        launch().fail().fails_with(65, &["app.cwasm"]);
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(b"more");
    fs::write(&code, longer).unwrap();
    launch().fail().fails_with(65, &["app.cwasm"]);
    fs::write(&code, whole).unwrap();
    launch().start().get("/").ok();
}

#[test]
fn compiled_code_with_another_key_is_refused() {
    let folder = folder();
    let (code, ours, theirs) = (
        folder.path().join("a.cwasm"),
        folder.path().join("ours"),
        folder.path().join("theirs"),
    );
    compile(&guest("http_hello"), &code, &theirs).ok();
    wrun()
        .serve(&code)
        .flag("--key-file", &ours)
        .fail()
        .fails_with(65, &["a.cwasm", "--key-file"]);
}

#[test]
fn reload_to_foreign_compiled_code_is_refused_and_the_old_one_serves_on() {
    let folder = folder();
    let (code, ours, theirs) = (
        folder.path().join("a.cwasm"),
        folder.path().join("ours"),
        folder.path().join("theirs"),
    );
    compile(&guest("http_hello"), &code, &ours).ok();
    let server = wrun().serve(&code).flag("--key-file", &ours).start();
    compile(&guest("http_static"), &code, &theirs).ok();
    server.control(["reload"]).fails_with(65, &["a.cwasm"]);
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn key_that_is_no_key_is_refused() {
    let folder = folder();
    let (code, key) = (folder.path().join("app.cwasm"), folder.path().join("key"));
    fs::write(&key, "too short").unwrap();
    compile(&guest("http_hello"), &code, &key).fails_with(78, &["--key-file"]);
}

#[test]
fn compiled_code_is_kept_for_the_next_start() {
    let folder = folder();
    let state = folder.path().join("state");
    let start = || serve("http_hello").state(&state).start();
    start().get("/").ok();
    let [code] = kept_code(&state)
        .try_into()
        .expect("one file of compiled code");
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|data| (data.ino(), data.mtime_nsec(), data.len()))
            .unwrap()
    };
    let before = identity(&code);
    let server = start();
    assert_eq!(server.get("/").ok(), "hello\n");
    assert_eq!(kept_code(&state), [code.as_path()]);
    assert_eq!(identity(&code), before);
    server.reload();
    assert_eq!(
        identity(&code),
        before,
        "a reload of the same component compiles nothing either"
    );
}

#[test]
fn damaged_code_in_the_state_folder_is_made_again() {
    let folder = folder();
    let state = folder.path().join("state");
    serve("http_hello").state(&state).start().get("/").ok();
    let [code] = kept_code(&state)
        .try_into()
        .expect("one file of compiled code");
    let whole = fs::read(&code).unwrap();
    let middle = whole.len() / 2;
    for damage in [
        &mut |bytes: &mut Vec<u8>| bytes[middle] ^= 1,
        &mut |bytes: &mut Vec<u8>| bytes.truncate(middle),
    ] as [&mut dyn FnMut(&mut Vec<u8>); 2]
    {
        let mut damaged = whole.clone();
        damage(&mut damaged);
        fs::remove_file(&code).unwrap();
        fs::write(&code, &damaged).unwrap();
        assert_eq!(
            serve("http_hello").state(&state).start().get("/").ok(),
            "hello\n"
        );
        assert!(
            fs::read(&code).unwrap() != damaged,
            "the damaged file is still there"
        );
    }
}

#[test]
fn output_that_cannot_be_written_is_73() {
    let folder = folder();
    let output = folder.path().join("no-such-folder/out.cwasm");
    compile(&guest("http_hello"), &output, &folder.path().join("key"))
        .fails_with(73, &["out.cwasm", "-o"]);
}

#[test]
fn compile_of_a_missing_file_is_66() {
    let folder = folder();
    let (input, output) = (
        folder.path().join("in.wasm"),
        folder.path().join("out.cwasm"),
    );
    compile(&input, &output, &folder.path().join("key")).fails_with(66, &["in.wasm"]);
}
