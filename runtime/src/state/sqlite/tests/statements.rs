//! What one statement may be, and what it returns.

use super::*;
use crate::state::db::{Column, GivenUp, PARAMS_MAX};
use tokio::time::timeout;

#[tokio::test]
async fn placeholders_are_bound_by_number() {
    let opened = open();
    for sql in ["SELECT $2, $1, $2", "SELECT ?2, ?1, ?2"] {
        let rows = run(&opened.db, with(sql, [int(1), int(2)])).await.unwrap();
        let Step::Rows(rows) = rows else { panic!() };
        assert_eq!(rows.rows, [[int(2), int(1), int(2)]]);
    }
    let rows = run(&opened.db, with("SELECT ?, ?", [int(1), int(2)])).await;
    assert!(matches!(rows, Ok(Step::Rows(rows)) if rows.rows == [[int(1), int(2)]]));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_invalid() {
    let opened = open();
    for bad in [
        statement(""),
        statement("SELECT 1; SELECT 2"),
        statement("SELECT 1; DROP TABLE t"),
        statement("SELECT $1"),
        statement("SELECT '\0'"),
        with("SELECT 1", [int(1)]),
        with("SELECT $1", [int(1), int(2)]),
        with("SELECT $1", [text("a\0b")]),
        with("SELECT $name", [int(1)]),
    ] {
        let answer = run(&opened.db, bad.clone()).await;
        assert!(
            matches!(answer, Err(DbError::Invalid(_))),
            "{bad:?}: {answer:?}"
        );
    }
    assert!(
        run(&opened.db, statement("SELECT 1 ; -- done"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_is_over_its_limit_is_too_large() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    for bad in [
        with("SELECT 1", vec![int(1); PARAMS_MAX + 1]),
        with("SELECT length($1)", [Value::Blob(vec![0; (8 << 20) + 1])]),
        statement("SELECT length(randomblob(1000000000))"),
        statement("INSERT INTO t VALUES (zeroblob(1000000000))"),
        statement("SELECT randomblob(3000000) FROM (VALUES (1), (2), (3))"),
        statement("SELECT randomblob(5000000), randomblob(5000000)"),
        statement(&format!("SELECT '{}'", "x".repeat(70_000))),
    ] {
        let answer = run(&opened.db, bad.clone()).await;
        assert!(
            matches!(answer, Err(DbError::TooLarge(_))),
            "{}: {answer:?}",
            bad.sql.get(..60).unwrap_or(&bad.sql)
        );
    }
    let many = vec![(statement("SELECT 1"), Want::Rows); 1001];
    assert!(matches!(
        opened.db.batch(many, TxOptions::default()).await,
        Err(DbError::TooLarge(_))
    ));
}

#[tokio::test]
async fn many_rows_go_into_one_statement() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a, b)").await;
    let rows: Vec<_> = (0..500)
        .map(|row| format!("(${}, ${})", 2 * row + 1, 2 * row + 2))
        .collect();
    let sql = format!("INSERT INTO t VALUES {}", rows.join(", "));
    let inserted = run(&opened.db, with(&sql, vec![int(1); 1000])).await;
    assert!(matches!(inserted, Ok(Step::Done(done)) if done.affected == 500));
}

#[tokio::test]
async fn denied_statements_say_why_wherever_they_are_run() {
    let opened = open();
    for sql in [
        "PRAGMA journal_mode = DELETE",
        "ATTACH 'x.db' AS x",
        "VACUUM INTO 'x.db'",
        "SELECT * FROM _wrun_message",
        "INSERT INTO _wrun_meta (key, value) VALUES ('tokens', 0)",
        "CREATE TABLE t (a REFERENCES _wrun_message (queue))",
        "DELETE FROM sqlite_sequence",
        "DELETE FROM sqlite_schema",
        "BEGIN",
        "COMMIT",
    ] {
        let answer = run(&opened.db, statement(sql)).await;
        assert!(
            matches!(answer, Err(DbError::Denied(_))),
            "{sql}: {answer:?}"
        );
        let tx = opened.db.begin(TxOptions::default()).await.unwrap();
        let answer = run_in(&*tx, sql).await;
        assert!(
            matches!(answer, Err(DbError::Denied(_))),
            "{sql}: {answer:?}"
        );
        tx.commit().await.unwrap();
    }
    let columns = query(&opened.db, "PRAGMA table_info(none)").await;
    assert_eq!(columns, Vec::<Row>::new());
}

#[tokio::test]
async fn effects_are_counted() {
    let opened = open();
    let db = &opened.db;
    let done = |affected, last_id| Done { affected, last_id };
    assert_eq!(
        execute(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)").await,
        done(0, None)
    );
    assert_eq!(
        execute(db, "INSERT INTO t (id, a) VALUES (7, 1), (9, 2)").await,
        done(2, Some(9))
    );
    assert_eq!(execute(db, "UPDATE t SET a = a + 10").await, done(2, None));
    assert_eq!(
        execute(db, "UPDATE t SET a = 0 WHERE id = 5").await,
        done(0, None)
    );
    assert_eq!(
        execute(db, "INSERT OR IGNORE INTO t (a) VALUES (11)").await,
        done(0, None)
    );
    assert_eq!(
        execute(
            db,
            "INSERT INTO t (a) VALUES (11) ON CONFLICT (a) DO UPDATE SET a = 20"
        )
        .await,
        done(1, None)
    );
    assert_eq!(execute(db, "CREATE TABLE u (a)").await, done(0, None));
    assert_eq!(execute(db, "DELETE FROM t").await, done(2, None));
}

#[tokio::test]
async fn caller_says_whether_it_wants_rows() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
    let insert = statement("INSERT INTO t DEFAULT VALUES RETURNING id");
    let plain = statement("INSERT INTO t DEFAULT VALUES");
    let steps = opened
        .db
        .batch(
            vec![
                (insert.clone(), Want::Rows),
                (insert.clone(), Want::Done),
                (insert, Want::Either),
                (plain.clone(), Want::Either),
                (plain, Want::Rows),
            ],
            TxOptions::default(),
        )
        .await
        .unwrap();
    let done = |id| {
        Step::Done(Done {
            affected: 1,
            last_id: Some(id),
        })
    };
    assert!(matches!(&steps[0], Step::Rows(rows) if rows.rows == [[int(1)]]));
    assert_eq!(steps[1], done(2));
    assert!(matches!(&steps[2], Step::Rows(rows) if rows.rows == [[int(3)]]));
    assert_eq!(steps[3], done(4));
    assert_eq!(steps[4], Step::Rows(Rows::default()));
}

#[tokio::test]
async fn columns_have_their_names_and_declared_types() {
    let opened = open();
    execute(
        &opened.db,
        "CREATE TABLE t (ok BOOLEAN, price DECIMAL TEXT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, n INT)",
    )
    .await;
    run(
        &opened.db,
        with(
            "INSERT INTO t VALUES ($1, $2, $3, 1)",
            [
                Value::Boolean(true),
                Value::Decimal("12.50".into()),
                Value::TimestampUs(1),
            ],
        ),
    )
    .await
    .unwrap();
    execute(
        &opened.db,
        "CREATE VIEW v AS SELECT ok AS fine, price FROM t",
    )
    .await;
    let answer = run(
        &opened.db,
        statement("SELECT t.*, n + 1 AS next, v.fine FROM t, v"),
    )
    .await;
    let Ok(Step::Rows(rows)) = answer else {
        panic!("{answer:?}")
    };
    let column = |name: &str, type_name: &str| Column {
        name: name.into(),
        type_name: type_name.into(),
    };
    assert_eq!(
        rows.columns,
        [
            column("ok", "BOOLEAN"),
            column("price", "DECIMAL TEXT"),
            column("at", "TIMESTAMP"),
            column("n", "INT"),
            column("next", ""),
            column("fine", "BOOLEAN"),
        ]
    );
    assert_eq!(
        rows.rows,
        [[
            Value::Boolean(true),
            Value::Decimal("12.50".into()),
            Value::TimestampUs(1),
            int(1),
            int(2),
            Value::Boolean(true),
        ]]
    );
}

#[tokio::test]
async fn prepared_statement_follows_the_schema() {
    let opened = open();
    let db = &opened.db;
    execute(db, "CREATE TABLE t (a INT)").await;
    execute(db, "INSERT INTO t VALUES (1)").await;
    let all = || run(db, statement("SELECT * FROM t"));
    assert!(matches!(all().await, Ok(Step::Rows(rows)) if rows.rows == [[int(1)]]));
    execute(db, "ALTER TABLE t ADD COLUMN b BOOLEAN DEFAULT 1").await;
    let Ok(Step::Rows(rows)) = all().await else {
        panic!()
    };
    assert_eq!(rows.rows, [[int(1), Value::Boolean(true)]]);
    assert_eq!(rows.columns[1].type_name, "BOOLEAN");
    execute(db, "DROP TABLE t").await;
    assert_eq!(code_of(all().await), "42P01");
}

#[tokio::test]
async fn endless_statement_is_stopped_at_its_deadline_and_others_go_on() {
    let opened = open();
    let options = short(Duration::from_millis(50));
    let sql = statement(ENDLESS);
    let read = opened
        .db
        .batch(vec![(sql.clone(), Want::Rows)], options)
        .await;
    assert!(matches!(read, Err(DbError::Timeout(_))), "{read:?}");

    execute(&opened.db, "CREATE TABLE t (a)").await;
    let insert = statement(&format!("INSERT INTO t {ENDLESS}"));
    let write = opened.db.batch(vec![(insert, Want::Done)], options).await;
    assert!(matches!(write, Err(DbError::Timeout(_))), "{write:?}");

    let tx = opened.db.begin(options).await.unwrap();
    let in_tx = tx.run(sql, Want::Rows).await;
    assert!(matches!(in_tx, Err(DbError::Timeout(_))), "{in_tx:?}");
    assert!(matches!(tx.commit().await, Err(DbError::Timeout(_))));
    assert_eq!(
        query(&opened.db, "SELECT count(*) FROM t").await,
        [[int(0)]]
    );
}

#[tokio::test]
async fn batch_that_is_given_up_stops_and_others_go_on() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    let insert = format!("INSERT INTO t {ENDLESS}");
    let cases = [(ENDLESS, 0), (ENDLESS, 50), (&insert, 0), (&insert, 50)];
    for (sql, head_start) in cases {
        let given_up = GivenUp::default();
        let statements = vec![(statement(sql), Want::Either)];
        let db = &opened.db;
        let mut batch = db.batch_unless(
            statements,
            TxOptions::default(),
            Vec::new(),
            given_up.clone(),
        );
        let early = timeout(Duration::from_millis(head_start), &mut batch).await;
        assert!(early.is_err(), "it is endless");
        given_up.give_up();
        let stopped = batch.await;
        assert!(
            matches!(stopped, Err(DbError::Timeout(_) | DbError::Unavailable(_))),
            "{stopped:?}"
        );
        assert_eq!(query(db, "SELECT count(*) FROM t").await, [[int(0)]]);
        execute(db, "DELETE FROM t").await;
    }
}

#[tokio::test]
async fn query_that_writes_after_all_is_run_by_the_writer() {
    let opened = open();
    execute(&opened.db, "CREATE TABLE t (a)").await;
    let answer = run(
        &opened.db,
        statement("WITH x (a) AS (VALUES (1)) INSERT INTO t SELECT a FROM x RETURNING a"),
    )
    .await;
    assert!(matches!(answer, Ok(Step::Rows(rows)) if rows.rows == [[int(1)]]));
    let refused = opened
        .db
        .batch(
            vec![(statement("INSERT INTO t VALUES (2)"), Want::Done)],
            read_only(),
        )
        .await;
    assert_eq!(code_of(refused), "25006");
    assert_eq!(query(&opened.db, "SELECT a FROM t").await, [[int(1)]]);
}
