//! `wrun serve`: what it says first, what it serves, where its settings come from.

use crate::{serve, wrun};
use std::fs;
use std::thread;
use wrun_tests::guests::{example, guest};
use wrun_tests::{Connection, folder, process};

#[test]
fn version_is_the_name_and_a_number() {
    let printed = wrun().run(["--version"]).ok();
    let number = printed
        .trim_end()
        .strip_prefix("wrun ")
        .expect("the name comes first");
    assert_eq!(
        number
            .split('.')
            .filter(|part| part.parse::<u32>().is_ok())
            .count(),
        3,
        "{printed}"
    );
}

#[test]
fn first_line_on_stderr_is_the_url_with_the_number_of_workers() {
    let server = serve("http_hello").workers(2).start();
    let line = server.log().lines().remove(0);
    assert_eq!(
        line,
        format!("wrun: listening on http://{}/ (2 workers)", server.addr())
    );
    assert_eq!(server.get("/").ok(), "hello\n");
}

#[test]
fn every_worker_is_ready_when_the_url_is_printed() {
    let server = serve("http_hello").workers(3).start();
    let workers = server.workers();
    assert_eq!(workers.len(), 3);
    assert!(
        workers.iter().all(wrun_tests::Worker::is_ready),
        "{workers:?}"
    );
}

#[test]
fn auto_runs_one_worker_per_core_each_pinned_to_its_own() {
    let server = serve("http_hello").workers("auto").start();
    let available = thread::available_parallelism()
        .expect("the number of cores is known")
        .get();
    let workers = server.workers();
    assert_eq!(workers.len(), available);
    let mut cores: Vec<usize> = workers
        .iter()
        .flat_map(|worker| process::cores(worker.pid))
        .collect();
    cores.sort_unstable();
    cores.dedup();
    assert_eq!(cores.len(), available, "one core for each worker");
    assert!(
        workers
            .iter()
            .all(|worker| process::cores(worker.pid).len() == 1)
    );
}

#[test]
fn counted_workers_are_not_pinned() {
    let server = serve("http_hello").workers(1).start();
    assert_eq!(
        process::cores(server.worker().pid),
        process::cores(server.pid())
    );
}

#[test]
fn cargo_package_is_built_and_served() {
    let server = wrun().serve(example("hello")).start();
    assert_eq!(server.get("/").ok(), "Hello from wrun!\n");
    assert_eq!(server.get("/elsewhere").status, 404);
}

#[test]
fn manifest_in_the_folder_sets_what_flags_do_not() {
    let folder = folder();
    fs::copy(guest("http_env"), folder.path().join("app.wasm")).unwrap();
    let manifest = "component = \"app.wasm\"\n\
        [serve]\nworkers = 3\naddr = [\"127.0.0.1:0\"]\nstate = \"data\"\n\
        [env]\nFROM = \"manifest\"\nBOTH = \"manifest\"\n";
    fs::write(folder.path().join("wrun.toml"), manifest).unwrap();
    let launch = wrun()
        .serve(folder.path())
        .without_addr()
        .workers(2)
        .state(folder.path().join("data"));
    let server = launch.flag("--env", "BOTH=flag").start();
    assert_eq!(server.workers().len(), 2, "a flag wins over the manifest");
    let facts = server.get("/").ok();
    assert!(facts.contains("env FROM=manifest\n"), "{facts}");
    assert!(facts.contains("env BOTH=flag\n"), "{facts}");
}

#[test]
fn limits_of_the_manifest_hold() {
    let folder = folder();
    let manifest = format!(
        "component = \"{}\"\n[limits]\nrequest-body = \"10B\"\n",
        guest("http_sink").display()
    );
    let path = folder.path().join("wrun.toml");
    fs::write(&path, manifest).unwrap();
    let server = wrun().serve(&path).start();
    assert_eq!(server.post("/", b"0123456789").status, 200);
    assert_eq!(server.post("/", b"0123456789x").status, 413);
}

#[test]
fn manifest_elsewhere_is_read_with_config() {
    let folder = folder();
    let path = folder.path().join("settings.toml");
    fs::write(&path, "[env]\nFROM = \"settings\"\n").unwrap();
    let server = serve("http_env").flag("--config", &path).start();
    assert!(server.get("/").ok().contains("env FROM=settings\n"));
}

#[test]
fn every_address_answers() {
    let server = serve("http_hello").flag("--addr", "127.0.0.1:0").start();
    let urls = server.ps()["supervisor"]["urls"].clone();
    let urls = urls
        .as_array()
        .expect("a list")
        .iter()
        .map(|url| url.as_str().expect("a text"));
    let addrs: Vec<_> = urls
        .map(|url| {
            url.trim_start_matches("http://")
                .trim_end_matches('/')
                .parse()
                .expect("an address")
        })
        .collect();
    assert_eq!(addrs.len(), 2);
    for addr in addrs {
        assert_eq!(Connection::open(addr).get("/").ok(), "hello\n");
    }
}
