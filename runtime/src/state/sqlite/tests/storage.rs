//! The files: what is left after a crash, a full disk, migrations and backups.

use super::*;
use rusqlite::Connection as Plain;

#[tokio::test]
async fn what_was_acknowledged_is_there_without_a_clean_end() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    execute(&opened.db, "INSERT INTO t VALUES (1)").await;
    // What a killed process leaves behind.
    let copy = tempfile::tempdir().unwrap();
    for name in ["default.db", "default.db-wal"] {
        fs::copy(opened.folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let again = open_in(copy, |_| {});
    assert_eq!(query(&again.db, "SELECT a FROM t").await, [[int(1)]]);
}

#[tokio::test]
async fn closed_database_is_one_file_and_answers_no_more() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    let tx = opened.db.begin(read_only()).await.unwrap();
    drop(tx);
    opened.db.close().await;
    let files: Vec<_> = fs::read_dir(opened.folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let db = &opened.db;
    assert!(matches!(
        run(db, statement("SELECT 1")).await,
        Err(DbError::Unavailable(_))
    ));
    assert!(matches!(
        run(db, statement("DELETE FROM t")).await,
        Err(DbError::Unavailable(_))
    ));
    let tx = db.begin(TxOptions::default()).await.unwrap();
    assert!(matches!(
        run_in(&*tx, "SELECT 1").await,
        Err(DbError::Unavailable(_))
    ));
    assert!(matches!(db.load().await, Err(QueueError::Unavailable(_))));
    assert!(db.migrate(opened.folder.path().into()).await.is_err());
    db.close().await;
}

#[tokio::test]
async fn full_database_refuses_more_and_serves_on() {
    let opened = open_with(|options| options.max_size = 256 << 10);
    let db = &opened.db;
    execute(db, "CREATE TABLE t (a)").await;
    let insert = || run(db, statement("INSERT INTO t VALUES (randomblob(20000))"));
    let mut inserted = 0;
    let refused = loop {
        match insert().await {
            Ok(_) => inserted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, DbError::Engine { code, retryable: false, .. } if code == "53100"));
    assert!(inserted > 0);
    let body = Message {
        body: vec![0; 1 << 19],
        ..Message::default()
    };
    let sent = db.send("mail".into(), vec![body]).await;
    assert!(matches!(sent, Err(QueueError::Refused(code, _)) if code == "53100"));
    let tx = db.begin(TxOptions::default()).await.unwrap();
    assert_eq!(
        code_of(run_in(&*tx, "INSERT INTO t VALUES (randomblob(200000))").await),
        "53100"
    );
    drop(tx);

    assert_eq!(query(db, "SELECT count(*) FROM t").await, [[int(inserted)]]);
    execute(db, "DELETE FROM t WHERE rowid = 1").await;
    insert().await.unwrap();
    assert_eq!(*opened.fatal.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn file_that_is_no_database_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("default.db");
    fs::write(&path, "no database".repeat(1000)).unwrap();
    let (sent, _) = tokio::sync::mpsc::unbounded_channel();
    let options = Options {
        path,
        ..open().db.inner.options.clone()
    };
    let failure = Sqlite::open(options, sent).map(drop).unwrap_err();
    assert!(failure.message.contains("default"), "{failure}");
}

#[tokio::test]
async fn database_of_a_newer_wrun_is_not_opened() {
    let opened = open();
    opened.db.close().await;
    let path = opened.folder.path().join("default.db");
    let plain = Plain::open(&path).unwrap();
    plain
        .execute("UPDATE _wrun_meta SET value = 99 WHERE key = 'format'", [])
        .unwrap();
    drop(plain);
    let (sent, _) = tokio::sync::mpsc::unbounded_channel();
    let failure = Sqlite::open(opened.db.inner.options.clone(), sent)
        .map(drop)
        .unwrap_err();
    assert!(failure.message.contains("newer"), "{failure}");
}

#[tokio::test]
async fn backup_is_one_moment_of_a_database_in_use() {
    let opened = open();
    let db = &opened.db;
    execute(db, "CREATE TABLE t (a INTEGER PRIMARY KEY, b)").await;
    execute(db, "INSERT INTO t VALUES (1, randomblob(8000000))").await;
    let to = opened.folder.path().join("copy.db");
    let backup = db.backup(to.clone());
    let writing = async {
        for _ in 0..50 {
            let both = [
                "INSERT INTO t (b) VALUES (1)",
                "INSERT INTO t (b) VALUES (2)",
            ];
            let both = both.map(|sql| (statement(sql), Want::Done));
            db.batch(both.into(), TxOptions::default()).await.unwrap();
        }
    };
    let (copied, ()) = tokio::join!(backup, writing);
    copied.unwrap();
    let copy = Plain::open(&to).unwrap();
    let check: String = copy
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let pairs: i64 = copy
        .query_row(
            "SELECT sum(b = 1) - sum(b = 2) FROM t WHERE a > 1",
            [],
            |row| row.get::<_, Option<i64>>(0).map(|count| count.unwrap_or(0)),
        )
        .unwrap();
    assert_eq!(pairs, 0);
    assert!(db.backup(to).await.is_err());
}

#[tokio::test]
async fn backup_that_fails_leaves_nothing() {
    let opened = open();
    let to = opened.folder.path().join("missing").join("copy.db");
    let failure = opened.db.backup(to.clone()).await.unwrap_err();
    assert_eq!(failure.code, ExitCode::CannotCreate);
    assert!(!to.exists());
}

#[tokio::test]
async fn migrations_are_applied_once_in_the_order_of_their_names() {
    let opened = open();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, sql: &str| fs::write(folder.path().join(name), sql).unwrap();
    write(
        "002_fill.sql",
        "INSERT INTO t VALUES (1); -- ;\nINSERT INTO t VALUES (';');",
    );
    write(
        "001_make.sql",
        "CREATE TABLE t (a);
         CREATE TABLE n (x);
         CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO n VALUES (1); INSERT INTO n VALUES (2); END;",
    );
    write("notes.txt", "not a migration");
    let migrate = || opened.db.migrate(folder.path().to_owned());
    assert_eq!(migrate().await.unwrap(), ["001_make.sql", "002_fill.sql"]);
    assert_eq!(migrate().await.unwrap(), Vec::<String>::new());
    assert_eq!(
        query(&opened.db, "SELECT count(*) FROM n").await,
        [[int(4)]]
    );
    write("003_more.sql", "ALTER TABLE t ADD COLUMN b");
    assert_eq!(migrate().await.unwrap(), ["003_more.sql"]);

    write("002_fill.sql", "INSERT INTO t VALUES (2);");
    let failure = migrate().await.unwrap_err();
    assert!(failure.message.contains("002_fill.sql"), "{failure}");
    assert!(failure.hint.is_some());
    fs::remove_file(folder.path().join("002_fill.sql")).unwrap();
    let failure = migrate().await.unwrap_err();
    assert!(failure.message.contains("002_fill.sql"), "{failure}");
}

#[tokio::test]
async fn migration_that_fails_leaves_nothing_of_its_file() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
    for sql in [
        "CREATE TABLE half (a); SELEC 1;",
        "CREATE TABLE half (a); INSERT INTO missing VALUES (1);",
        "CREATE TABLE half (a); COMMIT;",
        "CREATE TABLE half (a); ATTACH 'x' AS y;",
        "CREATE TABLE half (a); DROP TABLE _wrun_message;",
        "CREATE TABLE half (a REFERENCES p (id)); INSERT INTO half VALUES (7);",
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("001.sql"), sql).unwrap();
        let failure = opened.db.migrate(folder.path().into()).await.unwrap_err();
        assert!(failure.message.contains("001.sql"), "{sql}: {failure}");
        let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
        assert_eq!(query(&opened.db, half).await, [[int(0)]], "{sql}");
    }
    let missing = opened.db.migrate("no such folder".into()).await;
    assert_eq!(missing.unwrap_err().code, ExitCode::NoInput);
}

#[tokio::test]
async fn migration_may_rebuild_a_table_that_others_refer_to() {
    let opened = open();
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id));
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);
         CREATE TABLE p2 (id INTEGER PRIMARY KEY, more); INSERT INTO p2 (id) SELECT id FROM p;
         DROP TABLE p; ALTER TABLE p2 RENAME TO p;";
    fs::write(folder.path().join("001.sql"), sql).unwrap();
    opened.db.migrate(folder.path().into()).await.unwrap();
    let dangling = run(&opened.db, statement("INSERT INTO c VALUES (2)")).await;
    assert_eq!(code_of(dangling), "23503");
}

#[tokio::test]
async fn log_is_begun_anew_when_it_is_long() {
    let opened = open_with(|options| options.sync = Some(Arc::new(|_| Ok(()))));
    let db = &opened.db;
    execute(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a)").await;
    execute(db, "INSERT INTO t VALUES (1, 0)").await;
    for _ in 0..30 {
        execute(db, "UPDATE t SET a = randomblob(4000000)").await;
    }
    let status = db.status();
    assert!(status.wal_bytes < 32 << 20, "{status:?}");
    assert!(status.bytes < 20 << 20, "{status:?}");
}

#[tokio::test]
async fn status_tells_how_it_stands() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    let status = opened.db.status();
    assert_eq!((&*status.db, &*status.dialect), ("default", "sqlite"));
    assert!(status.bytes > 0);
    assert!(status.wal_bytes > 0);
    assert!(status.commits > 0);
    assert!(status.syncs > 0);
}
