//! Databases on the disk: migrations, their largest size, a full disk, and that nothing acknowledged is ever lost.

use crate::serve;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use wrun_tests::state::{error, ok, rows};
use wrun_tests::{Connection, Launch, SOON, Server, folder};

/// Bytes that one row of `blobs` takes.
const BLOB: usize = 100_000;

fn db_server(settings: &str) -> Launch {
    serve("state_db").manifest(format!("[databases.default]\n{settings}"))
}

#[track_caller]
fn execute(server: &Server, sql: &str) -> Value {
    server.step(json!({ "op": "execute", "sql": sql }))
}

#[track_caller]
fn numbers(server: &Server, sql: &str) -> Vec<i64> {
    let result = server.step(json!({ "op": "query", "sql": sql }));
    let rows = rows(&result).as_array().expect("rows");
    rows.iter().filter_map(|row| row[0].as_i64()).collect()
}

/// A folder of migrations, and the settings of a database that has them.
struct Migrations {
    folder: PathBuf,
}

impl Migrations {
    fn new(parent: &Path, files: &[(&str, &str)]) -> Self {
        let folder = parent.join("migrations");
        fs::create_dir(&folder).expect("a folder");
        let migrations = Self { folder };
        for (name, sql) in files {
            migrations.put(name, sql);
        }
        migrations
    }

    fn put(&self, name: &str, sql: &str) {
        fs::write(self.folder.join(name), sql).expect("a file");
    }

    /// A server that keeps its data beside the folder.
    fn server(&self) -> Launch {
        db_server(&format!("migrations = {:?}\n", self.folder))
            .state(self.folder.with_extension("state"))
    }
}

#[test]
fn migrations_are_applied_once_in_the_order_of_their_names() {
    let folder = folder();
    let migrations = Migrations::new(
        folder.path(),
        &[
            ("010-more.sql", "INSERT INTO t SELECT max(id) + 1 FROM t;\n"),
            (
                "002-rows.sql",
                "INSERT INTO t VALUES (1); -- and\nINSERT INTO t VALUES (2);\n",
            ),
            (
                "001-table.sql",
                "CREATE TABLE t (id INTEGER PRIMARY KEY);\n",
            ),
            ("notes.txt", "this is not SQL"),
        ],
    );
    for _ in 0..2 {
        let mut server = migrations.server().start();
        server.kill_state_process();
        assert_eq!(numbers(&server, "SELECT id FROM t"), [1, 2, 3]);
        assert!(server.stop().success());
    }
    migrations.put("011-last.sql", "INSERT INTO t VALUES (11)");
    let server = migrations.server().start();
    assert_eq!(numbers(&server, "SELECT id FROM t"), [1, 2, 3, 11]);
    migrations.put("012-reloaded.sql", "INSERT INTO t VALUES (12)");
    server.reload();
    assert_eq!(numbers(&server, "SELECT id FROM t"), [1, 2, 3, 11, 12]);
}

#[test]
fn migration_that_was_changed_or_is_gone_refuses_the_start() {
    let folder = folder();
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY)";
    let migrations = Migrations::new(folder.path(), &[("001-table.sql", table)]);
    migrations.server().start().stop();
    migrations.put(
        "001-table.sql",
        "CREATE TABLE other (id INTEGER PRIMARY KEY)",
    );
    let says = ["001-table.sql", "was changed", "undo"];
    migrations
        .server()
        .fail()
        .fails_after_its_log_with(78, &says);
    fs::remove_file(migrations.folder.join("001-table.sql")).expect("it is there");
    let says = ["001-table.sql", "is missing"];
    migrations
        .server()
        .fail()
        .fails_after_its_log_with(78, &says);
    migrations.put("001-table.sql", table);
    migrations.server().start();
}

#[test]
fn migration_that_fails_refuses_the_start_and_leaves_nothing() {
    let folder = folder();
    let migrations = Migrations::new(
        folder.path(),
        &[("001-table.sql", "CREATE TABLE t (id INTEGER)")],
    );
    for bad in [
        "CREATE TABLE u (id INTEGER); INSERT INTO nowhere VALUES (1)",
        "CREATE TABLE u (id INTEGER); SELEKT",
        "CREATE TABLE u (id INTEGER); ATTACH 'other.db' AS other",
        "CREATE TABLE u (id INTEGER); COMMIT",
        "CREATE TABLE _wrun_other (id INTEGER)",
    ] {
        migrations.put("002-bad.sql", bad);
        migrations
            .server()
            .fail()
            .fails_after_its_log_with(78, &["002-bad.sql"]);
    }
    migrations.put("002-bad.sql", "CREATE TABLE u (id INTEGER)");
    let server = migrations.server().start();
    assert_eq!(numbers(&server, "SELECT count(*) FROM u"), [0]);
}

#[test]
fn reload_with_a_migration_that_fails_leaves_the_old_one_serving() {
    let folder = folder();
    let migrations = Migrations::new(
        folder.path(),
        &[("001-table.sql", "CREATE TABLE t (id INTEGER)")],
    );
    let server = migrations.server().start();
    migrations.put("002-bad.sql", "SELEKT");
    server.control(["reload"]).fails_with(78, &["002-bad.sql"]);
    ok(&execute(&server, "INSERT INTO t VALUES (1)"));
    assert_eq!((server.generation(), server.worker().restarts), (1, 0));
}

#[test]
fn database_at_its_largest_size_takes_more_once_something_is_deleted() {
    let server = db_server("max-size = \"1MiB\"\n").start();
    ok(&execute(&server, "CREATE TABLE blobs (content BLOB)"));
    let insert = json!({ "op": "execute", "sql": "INSERT INTO blobs VALUES ($1)", "params": [{ "zeros": BLOB }] });
    let refused = (0..20)
        .map(|_| server.step(insert.clone()))
        .find(|result| result.get("ok").is_none());
    assert_eq!(error(&refused.expect("it has a limit")), "53100");
    let kept = numbers(&server, "SELECT count(*) FROM blobs")[0];
    assert!((5..11).contains(&kept), "{kept}");
    ok(&execute(&server, "DELETE FROM blobs"));
    ok(&server.step(insert));
}

/// Has a guest insert numbers, and returns those whose insertion was acknowledged before `stop` or the end of the server.
fn insert_until(server: &Server, from: i64, stop: &AtomicBool) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    let Ok(mut connection) = Connection::try_open(server.addr(), SOON) else {
        return acknowledged;
    };
    for number in from.. {
        let step =
            json!([{ "op": "execute", "sql": "INSERT INTO t VALUES ($1)", "params": [number] }])
                .to_string();
        let length = step.len().to_string();
        let head =
            format!("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: {length}\r\n\r\n");
        let sent = connection.try_send(head + &step);
        match sent.and_then(|()| connection.try_response()) {
            Ok(response) if response.text().contains("\"ok\"") => acknowledged.push(number),
            Ok(response) if response.closes() => match Connection::try_open(server.addr(), SOON) {
                Ok(fresh) => connection = fresh,
                Err(_) => break,
            },
            Ok(_) => {}
            Err(_) => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[test]
fn what_was_acknowledged_survives_the_sudden_end_of_all_processes() {
    let folder = folder();
    let state = folder.path().join("state");
    let mut server = db_server("").state(&state).workers(2).start();
    ok(&execute(&server, "CREATE TABLE t (id INTEGER PRIMARY KEY)"));
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let never = AtomicBool::new(false);
        let inserted: Vec<Vec<i64>> = thread::scope(|scope| {
            let (server, never) = (&server, &never);
            let inserters: Vec<_> = (0..4)
                .map(|inserter| {
                    scope.spawn(move || {
                        insert_until(server, (round * 4 + inserter) * 1_000_000, never)
                    })
                })
                .collect();
            wrun_tests::eventually("some are there", SOON, || {
                (numbers(server, "SELECT count(*) FROM t")[0] >= (round + 1) * 50).then_some(())
            });
            server.signal(Signal::SIGKILL);
            inserters
                .into_iter()
                .map(|inserter| inserter.join().expect("it ends"))
                .collect()
        });
        acknowledged.extend(inserted.into_iter().flatten());
        server.end(SOON);
        server = db_server("").state(&state).workers(2).start();
        let kept = numbers(&server, "SELECT id FROM t");
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|number| !kept.contains(number))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }
}

#[test]
fn full_disk_is_an_error_that_loses_nothing_and_ends_with_it() {
    const SIZE: &str = "24m";
    let may_mount = Command::new("unshare")
        .args([
            "--map-root-user",
            "--mount",
            "mount",
            "-t",
            "tmpfs",
            "wrun",
            "/mnt",
        ])
        .output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: this user may not mount a small disk");
        return;
    }
    let folder = folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mount = format!(
        "mount -t tmpfs -o size={SIZE},mode=700 wrun {} && exec \"$0\" \"$@\"",
        disk.display()
    );
    let server = db_server("")
        .state(disk.join("state"))
        .through(["unshare", "--map-root-user", "--mount", "sh", "-c", &mount])
        .start();
    // The disk is there for the server alone; this is how others get to it.
    let ballast = PathBuf::from(format!(
        "/proc/{}/root{}/ballast",
        server.pid(),
        disk.display()
    ));
    ok(&execute(
        &server,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB)",
    ));
    let insert = |number: i64| {
        server.step(
            json!({ "op": "execute", "sql": "INSERT INTO t VALUES ($1, $2)",
            "params": [number, { "zeros": BLOB }] }),
        )
    };
    ok(&insert(0));
    fill(&ballast);
    let refused = (1..300)
        .map(|number| (number, insert(number)))
        .find(|(_, result)| result.get("ok").is_none());
    let (first_refused, result) = refused.expect("the disk is full");
    assert!(["53100", "58030"].contains(&error(&result)), "{result}");
    let acknowledged: Vec<_> = (0..first_refused).collect();
    assert_eq!(numbers(&server, "SELECT id FROM t"), acknowledged);
    fs::remove_file(&ballast).expect("it is there");
    wrun_tests::eventually("it takes more", Duration::from_secs(60), || {
        insert(1000).get("ok").map(drop)
    });
    let mut kept = acknowledged;
    kept.push(1000);
    assert_eq!(numbers(&server, "SELECT id FROM t"), kept);
}

/// Writes a file until its disk is full.
fn fill(file: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(file).expect("a file");
    for piece in [1 << 20, 1 << 12] {
        let error = loop {
            if let Err(error) = file.write_all(&vec![0; piece]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}
