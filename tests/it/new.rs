//! `wrun new`: what it refuses, and that each template in Rust builds, runs, answers and passes its own tests.

use crate::wrun;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use wrun_tests::project::{cargo_in, vacant};
use wrun_tests::{Outcome, SOON, Server, eventually, folder, repository};

fn new(folder: &Path, lang: &str, template: &str) -> Outcome {
    let shown = folder.to_str().expect("its path is a text");
    wrun().run(["new", shown, "--lang", lang, "--template", template])
}

/// Makes an application in Rust, checks what every one has to be, and starts a server of it.
fn made(template: &str, workers: usize) -> Server {
    let folder = vacant(&format!("new-{template}"));
    let printed = new(&folder, "rust", template).ok();
    assert!(
        printed.contains(&format!("cd {}\n", folder.display())),
        "{printed}"
    );
    assert!(printed.contains("curl "), "{printed}");
    cargo_in(&folder, &["fmt", "--check"]);
    let built = wrun().run(["build".as_ref(), folder.as_os_str()]);
    assert!(!built.stderr.contains("warning"), "{}", built.stderr);
    let path = built.ok();
    assert!(path.ends_with(&format!("/new-{template}.wasm\n")), "{path}");
    let tested = cargo_in(&folder, &["test"]);
    assert!(tested.contains("test result: ok. 2 passed"), "{tested}");
    assert!(!tested.contains("warning"), "{tested}");
    wrun().serve(&folder).workers(workers).start()
}

fn posted(server: &Server, target: &str, body: &str) -> (u16, Value) {
    let response = server.post(target, body.as_bytes());
    let value = serde_json::from_slice(&response.body).expect("JSON");
    (response.status, value)
}

/// Returns every file below `folder` with its content, except what is called like one of `skip`.
fn tree(folder: &Path, skip: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if skip.contains(&name.as_ref()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(folder).expect("it lies there").to_owned();
                files.insert(relative, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

#[test]
fn http_application_greets() {
    let server = made("http", 1);
    assert_eq!(server.get("/").ok(), "Hello from new-http!\n");
    assert_eq!(server.get("/hello/Ada").ok(), "Hello, Ada!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
}

#[test]
fn inventory_application_does_not_oversell() {
    const BUYERS: usize = 16;
    let server = made("inventory", 2);
    assert_eq!(server.get_json("/stock"), json!({ "ticket": 100 }));
    assert_eq!(
        posted(&server, "/buy/ticket", ""),
        (200, json!({ "order": 1, "left": 99 }))
    );
    assert_eq!(posted(&server, "/buy/nothing", "").0, 404);
    let sold: usize = thread::scope(|scope| {
        let buyers: Vec<_> = (0..BUYERS)
            .map(|_| {
                scope.spawn(|| {
                    let answers = (0..10).map(|_| server.post("/buy/ticket", b"").status);
                    answers.filter(|status| *status == 200).count()
                })
            })
            .collect();
        buyers
            .into_iter()
            .map(|buyer| buyer.join().expect("a buyer"))
            .sum()
    });
    assert_eq!(sold, 99, "as many as there were, for 160 who asked");
    assert_eq!(
        posted(&server, "/buy/ticket", ""),
        (409, json!({ "error": "sold out" }))
    );
    assert_eq!(server.get_json("/stock"), json!({ "ticket": 0 }));
    assert_eq!(
        posted(&server, "/restock/ticket?n=5", ""),
        (200, json!({ "left": 5 }))
    );
    assert_eq!(
        posted(&server, "/buy/ticket", ""),
        (200, json!({ "order": 101, "left": 4 }))
    );
}

#[test]
fn consumer_application_handles_what_it_took() {
    let server = made("consumer", 2);
    let (status, order) = posted(&server, "/orders", r#"{"item": "ticket"}"#);
    assert_eq!((status, &order), (202, &json!({ "id": 1 })));
    eventually("the order is done", SOON, || {
        let order = server.get_json("/orders/1");
        (order == json!({ "id": 1, "state": "done" })).then_some(())
    });
    assert_eq!(server.get("/orders/2").status, 404);
    assert_eq!(posted(&server, "/orders", "not JSON").0, 400);
}

#[test]
fn application_gets_its_name_and_the_sdk_as_it_is_here() {
    let folder = folder();
    let shop = folder.path().join("my_shop-2");
    new(&shop, "rust", "http").ok();
    let mut files = tree(&shop, &[]);
    let sdk = tree(&repository().join("guest-sdk"), &["target"]);
    for part in ["Cargo.toml", "macros", "src", "wit"] {
        for (path, text) in sdk.iter().filter(|(path, _)| path.starts_with(part)) {
            let copy = files.remove(&Path::new("vendor/wrun-sdk").join(path));
            assert!(copy.as_ref() == Some(text), "{}", path.display());
        }
    }
    let names: Vec<_> = files
        .keys()
        .map(|path| path.display().to_string())
        .collect();
    let expected = [
        ".gitignore",
        "Cargo.toml",
        "README.md",
        "src/main.rs",
        "wrun.toml",
    ];
    assert_eq!(names, expected);
    for (path, text) in files {
        let text = String::from_utf8(text).expect("a text");
        assert!(!text.contains("{{"), "{}", path.display());
    }
    let manifest = fs::read_to_string(shop.join("Cargo.toml")).expect("a file");
    assert!(manifest.contains("name = \"my_shop-2\""), "{manifest}");
}

#[test]
fn name_that_no_package_can_have_is_64() {
    let folder = folder();
    for name in [
        "2fast", "a b", "shop!", "-shop", "shop-", "größe", "a.b", "..",
    ] {
        let outcome = new(&folder.path().join(name), "rust", "http");
        outcome.fails_with(64, &[name, "letters"]);
    }
    new(&folder.path().join("deps"), "rust", "http").fails_with(64, &["deps", "another NAME"]);
    assert!(tree(folder.path(), &[]).is_empty());
}

#[test]
fn folder_that_is_not_empty_is_73_and_stays_as_it_is() {
    let folder = folder();
    let shop = folder.path().join("shop");
    fs::create_dir(&shop).expect("a folder");
    fs::write(shop.join("mine"), "mine").expect("a file");
    new(&shop, "rust", "http").fails_with(73, &["shop exists and is not empty"]);
    assert_eq!(tree(&shop, &[]).len(), 1);
    new(&shop.join("mine"), "rust", "http").fails_with(73, &["mine exists and is not a folder"]);
    fs::remove_file(shop.join("mine")).expect("a file");
    new(&shop, "rust", "http").ok();
}

#[test]
fn unknown_language_or_template_is_64_and_the_known_are_named() {
    let folder = folder();
    let shop = folder.path().join("shop");
    for (lang, template, known) in [
        ("go", "http", "rust, js, ts, python"),
        ("rust", "blog", "http, inventory, consumer"),
    ] {
        let outcome = new(&shop, lang, template);
        assert_eq!(outcome.code, Some(64), "{outcome:?}");
        assert!(outcome.stderr.contains(known), "{outcome:?}");
    }
    let outcome = wrun().run(["new".as_ref(), shop.as_os_str()]);
    assert!(outcome.stderr.contains("--lang"), "{outcome:?}");
}
