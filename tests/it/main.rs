//! Tests of the real binary, through processes and sockets. One file per part of what wrun promises.

mod answers;
mod attacks;
mod bad_input;
mod balance;
mod bench;
mod budget;
mod build;
mod compile;
mod compromised;
mod compromised_messages;
mod config_store;
mod consumer;
mod control;
mod db;
mod dev;
mod dev_processes;
mod disconnect;
mod docs;
mod doctor;
mod faults;
mod framing;
mod gate;
mod guests_unmodified;
mod histories;
mod http2;
mod http_table;
mod inventory;
mod javascript;
mod kafka_queue;
mod keyvalue;
mod keyvalue_atomics;
mod labels;
mod limits;
mod lock;
mod log;
mod mariadb;
mod nats_queue;
mod new;
mod operator;
mod outbound;
mod outbox;
mod overload;
mod payments;
mod postgres;
mod postgres_locks;
mod postgres_network;
mod postgres_queue;
mod processes;
mod python;
mod queue;
mod quotas;
mod rabbitmq_queue;
mod recycle;
mod redis;
mod redis_queue;
mod redlock;
mod reload;
mod replica;
mod requests;
mod sandbox;
mod serve;
mod service_manager;
mod shared_queue;
mod signals;
mod soak;
mod sockets;
mod state_process;
mod statements;
mod storage;
mod streaming;
mod tansu;
mod tidy;
mod timeouts;
mod wstd;

use std::fs;
use std::path::Path;
use wrun_tests::guests::{guest, known_guests};
use wrun_tests::{Launch, Wrun, repository};

/// The binary that cargo built for this test run.
fn wrun() -> Wrun {
    Wrun::new(env!("CARGO_BIN_EXE_wrun"))
}

/// A server of one of the test guests.
fn serve(name: &str) -> Launch {
    wrun().serve(guest(name))
}

/// Returns name and text of every file beside this one; one in a folder is `folder/name`.
fn test_files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&repository().join("tests/it"), "", &mut files);
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).expect("the tests have a folder");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let stem = path
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy();
        let name = format!("{prefix}{stem}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.push((name, fs::read_to_string(&path).expect("a test is text")));
        }
    }
}

#[test]
fn every_file_here_is_part_of_the_tests() {
    let files = test_files();
    for (name, _) in &files {
        let (parent, module) = name.rsplit_once('/').unwrap_or(("main", name));
        let says = format!("\nmod {module};\n");
        let declared = |(file, text): &(String, String)| file == parent && text.contains(&says);
        assert!(
            name == "main" || files.iter().any(declared),
            "{name}.rs is not a module of {parent}.rs"
        );
    }
}

#[test]
fn every_guest_is_used_by_a_test() {
    let files = test_files();
    for name in known_guests() {
        let quoted = format!("\"{name}\"");
        assert!(
            files.iter().any(|(_, text)| text.contains(&quoted)),
            "no test uses the guest {name}"
        );
    }
}
