//! What is MariaDB's and MySQL's own, on a real one: the rest is `conformance`'s.

mod replica;

use super::*;
use crate::state::db::Value;
use std::fmt::Debug;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;
use wrun_tests::mariadb::{MariaDb, is_mysql};

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A query of many rows: both servers have it, as they have not the sequences of MariaDB.
const MANY: &str = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) \
    SELECT REPEAT('x', 1000) FROM s, s AS t";
const FEW: &str = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) SELECT n FROM s";
const LARGE: &str = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 10) \
    SELECT REPEAT('x', 3000000) FROM s";

/// Tests something on an empty database, if MariaDB is installed.
fn test(what: impl AsyncFnOnce(&Mysql, &MariaDb)) {
    let Some(server) = MariaDb::for_test() else {
        return;
    };
    server.create("shop");
    block_on(async {
        let db = open(&server.url("shop"));
        let tested = async {
            db.prepare(None).await.unwrap();
            what(&db, &server).await;
        };
        timeout(DEADLINE, tested).await.expect("the test hangs");
    });
}

fn block_on(what: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, what);
}

fn open(url: &str) -> Mysql {
    Mysql::new("default", Address::parse(url).unwrap())
}

fn statement(sql: &str, params: impl IntoIterator<Item = Value>) -> (Statement, Want) {
    let statement = Statement {
        sql: sql.to_owned(),
        params: params.into_iter().collect(),
    };
    (statement, Want::Either)
}

async fn run(db: &Mysql, sql: &str) -> Result<Vec<Vec<Value>>, DbError> {
    run_with(db, sql, []).await
}

async fn run_with(
    db: &Mysql,
    sql: &str,
    params: impl IntoIterator<Item = Value>,
) -> Result<Vec<Vec<Value>>, DbError> {
    let batch = db.batch(vec![statement(sql, params)], TxOptions::default());
    Ok(match batch.await?.remove(0) {
        Step::Rows(rows) => rows.rows,
        Step::Done(_) => Vec::new(),
    })
}

async fn begin_tx(db: &Mysql) -> Box<dyn Transaction> {
    db.begin(TxOptions::default()).await.unwrap()
}

async fn run_in(tx: &dyn Transaction, sql: &str) -> Result<Step, DbError> {
    let (statement, want) = statement(sql, []);
    tx.run(statement, want).await
}

fn sqlstate<T: Debug>(result: Result<T, DbError>) -> (String, bool) {
    match result {
        Err(DbError::Engine {
            code, retryable, ..
        }) => (code, retryable),
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Waits until a statement of somebody else's returns this one value.
async fn until_it_returns(server: &MariaDb, sql: &str, value: &str) {
    while server.query("shop", sql) != value {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn values_of_other_types_come_as_what_is_nearest() {
    test(async |db, _| {
        let create = "CREATE TABLE t (a BIGINT UNSIGNED, b BIT(9), c YEAR, d ENUM('x', 'y'), e SET('x', 'y'),
            f TIME, h TINYINT(1), i CHAR(36), j BINARY(2), k TIMESTAMP(6) NULL, l LONGTEXT, m TINYINT)";
        run(db, create).await.unwrap();
        let insert = "INSERT INTO t VALUES (18446744073709551615, b'100000001', 2024, 'y', 'x,y', '-25:00:00', 7,
            '01234567-89ab-cdef-fedc-ba9876543210', X'00ff', '2024-02-29 00:00:00.5', '{}', 1)";
        run(db, insert).await.unwrap();
        let other = |name: &str, text: &str| Value::Other(name.to_owned(), text.to_owned());
        let expected = [
            Value::Decimal("18446744073709551615".to_owned()),
            Value::Integer(257),
            Value::Integer(2024),
            text("y"),
            text("x,y"),
            other("time", "-25:00:00"),
            Value::Integer(7),
            // A column that is no UUID's.
            text("01234567-89ab-cdef-fedc-ba9876543210"),
            Value::Blob(vec![0, 0xff]),
            Value::TimestampUs(1_709_164_800_500_000),
            text("{}"),
            Value::Integer(1),
        ];
        assert_eq!(run(db, "SELECT * FROM t").await.unwrap(), [expected]);
    });
}

/// MySQL has neither of the two.
#[test]
fn inet6_and_returning_are_mariadbs_own() {
    test(async |db, _| {
        let created = run(db, "CREATE TABLE t (a INET6)").await;
        let returned = run(db, "INSERT INTO t VALUES ('::1') RETURNING a").await;
        if is_mysql() {
            assert_eq!(sqlstate(created), ("42601".to_owned(), false));
            assert_eq!(sqlstate(returned), ("42601".to_owned(), false));
            return;
        }
        let expected = Value::Other("inet6".to_owned(), "::1".to_owned());
        assert_eq!(returned.unwrap().len(), 1);
        let read = run(db, "SELECT a FROM t").await.unwrap();
        assert_eq!(read, [[expected]]);
    });
}

#[test]
fn parameters_take_the_type_of_their_place_and_decimals_are_exact() {
    test(async |db, _| {
        let create = "CREATE TABLE t (a DATE, b DECIMAL(20, 2), c BOOLEAN, d INT, e VARCHAR(3), f BLOB, g DATETIME(6))";
        run(db, create).await.unwrap();
        let given = [
            text("2024-02-29"),
            Value::Decimal("123456789012345678.25".to_owned()),
            Value::Boolean(true),
            Value::Real(3.0),
            Value::Integer(7),
            text("x"),
            Value::TimestampUs(1),
        ];
        let insert = "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)";
        run_with(db, insert, given).await.unwrap();
        let read = run(db, "SELECT a, b, c, d, e, f, g FROM t").await.unwrap();
        let expected = [
            Value::Date("2024-02-29".to_owned()),
            Value::Decimal("123456789012345678.25".to_owned()),
            Value::Boolean(true),
            Value::Integer(3),
            text("7"),
            Value::Blob(b"x".to_vec()),
            Value::TimestampUs(1),
        ];
        assert_eq!(read, [expected]);
        // As floating-point numbers the two are the same.
        let count = "SELECT count(*) FROM t WHERE b = $1";
        let near = Value::Decimal("123456789012345678.26".to_owned());
        assert_eq!(
            run_with(db, count, [near]).await.unwrap(),
            [[Value::Integer(0)]]
        );
        // Nothing is cut off, whatever the server's mode.
        let long = run(db, "UPDATE t SET e = 'four'").await;
        assert_eq!(sqlstate(long), ("22001".to_owned(), false));
    });
}

#[test]
fn connection_is_clean_for_the_next_transaction() {
    test(async |db, server| {
        let tx = begin_tx(db).await;
        for sql in [
            "SELECT @left_behind := 7",
            "SELECT GET_LOCK('left_behind', 1)",
            "CREATE TEMPORARY TABLE left_behind (a int)",
        ] {
            run_in(&*tx, sql).await.unwrap();
        }
        tx.commit().await.unwrap();
        until_it_returns(server, "SELECT IS_FREE_LOCK('left_behind')", "1").await;
        for _ in 0..20 {
            let left = run(db, "SELECT @left_behind").await.unwrap();
            assert_eq!(left, [[Value::Null]]);
            let gone = run(db, "SELECT * FROM left_behind").await;
            assert_eq!(sqlstate(gone).0, "42P01");
        }
    });
}

#[test]
fn dropped_transaction_stops_what_it_does_there() {
    test(async |db, server| {
        let tx = begin_tx(db).await;
        let sleeping = tx.run(statement("SELECT SLEEP(50)", []).0, Want::Rows);
        let active =
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%'";
        until_it_returns(server, active, "1").await;
        drop((tx, sleeping));
        until_it_returns(server, active, "0").await;
    });
}

#[test]
fn result_past_its_limit_is_cut_off_and_its_transaction_goes_on() {
    test(async |db, _| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        let result = run_in(&*tx, MANY).await;
        assert!(matches!(result, Err(DbError::TooLarge(_))), "{result:?}");
        run_in(&*tx, "INSERT INTO t VALUES (2)").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(2)]]
        );
    });
}

#[test]
fn row_that_is_locked_is_locked_and_who_meets_a_lock_or_a_deadlock_has_lost_all_of_the_transaction()
{
    test(async |db, _| {
        run(db, "CREATE TABLE t (a int PRIMARY KEY, b int)")
            .await
            .unwrap();
        run(db, "INSERT INTO t VALUES (1, 0), (2, 0)")
            .await
            .unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "SELECT a FROM t WHERE a = 1 FOR UPDATE")
            .await
            .unwrap();
        let other = begin_tx(db).await;
        run_in(&*other, "UPDATE t SET b = 7 WHERE a = 2")
            .await
            .unwrap();
        let busy = run_in(&*other, "SELECT a FROM t WHERE a = 1 FOR UPDATE NOWAIT").await;
        assert_eq!(sqlstate(busy), ("55P03".to_owned(), true));
        let over = other.commit().await;
        match is_mysql() {
            // It has a number for this alone, after which the transaction goes on.
            true => assert_eq!(over, Ok(())),
            // It says so of a wait that was too long, too, after which, by its own settings, the server would keep what was
            // done before.
            false => assert_eq!(sqlstate(over), ("55P03".to_owned(), true)),
        }
        run_in(&*tx, "UPDATE t SET b = 1 WHERE a = 2")
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let (one, two) = (begin_tx(db).await, begin_tx(db).await);
        run_in(&*one, "UPDATE t SET b = 2 WHERE a = 1")
            .await
            .unwrap();
        run_in(&*two, "UPDATE t SET b = 3 WHERE a = 2")
            .await
            .unwrap();
        let (first, second) = tokio::join!(
            run_in(&*one, "UPDATE t SET b = 2 WHERE a = 2"),
            run_in(&*two, "UPDATE t SET b = 3 WHERE a = 1"),
        );
        let (dead, alive, b) = match first {
            Err(_) => (first, two, 3),
            Ok(_) => (second, one, 2),
        };
        assert_eq!(sqlstate(dead), ("40001".to_owned(), true));
        alive.commit().await.unwrap();
        let rows = run(db, "SELECT b FROM t").await.unwrap();
        assert_eq!(rows, [[Value::Integer(b)], [Value::Integer(b)]]);
    });
}

#[test]
fn what_commits_by_itself_is_refused_in_a_transaction_and_allowed_by_itself() {
    test(async |db, _| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        for sql in [
            "CREATE TABLE u (a int)",
            "TRUNCATE t",
            "ALTER TABLE t ADD b int",
        ] {
            let refused = run_in(&*tx, sql).await;
            assert!(
                matches!(&refused, Err(DbError::Denied(why)) if why.contains("commits")),
                "{refused:?}"
            );
        }
        let both = ["INSERT INTO t VALUES (2)", "DROP TABLE t"].map(|sql| statement(sql, []));
        let refused = db.batch(both.into(), TxOptions::default()).await;
        assert!(matches!(refused, Err(DbError::Denied(_))), "{refused:?}");
        tx.rollback().await;
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(0)]]
        );
    });
}

#[test]
fn query_whose_function_writes_is_no_plain_query() {
    test(async |db, server| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let function = "CREATE FUNCTION add_one() RETURNS INT DETERMINISTIC MODIFIES SQL DATA
            BEGIN INSERT INTO t VALUES (1); RETURN 1; END";
        server.query("shop", &format!("DELIMITER //\n{function} //"));
        assert_eq!(
            run(db, "SELECT add_one()").await.unwrap(),
            [[Value::Integer(1)]]
        );
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(1)]]
        );
    });
}

#[test]
fn who_only_reads_waits_for_nobody_and_who_writes_waits_for_readers_that_write() {
    test(async |db, _| {
        run(db, "CREATE TABLE t (a int PRIMARY KEY)").await.unwrap();
        run(db, "INSERT INTO t VALUES (1)").await.unwrap();
        let writer = begin_tx(db).await;
        run_in(&*writer, "UPDATE t SET a = 2").await.unwrap();
        assert_eq!(
            run(db, "SELECT a FROM t").await.unwrap(),
            [[Value::Integer(1)]]
        );
        writer.commit().await.unwrap();
        let reader = begin_tx(db).await;
        run_in(&*reader, "SELECT a FROM t").await.unwrap();
        let options = TxOptions {
            timeout: Duration::from_millis(1500),
            ..TxOptions::default()
        };
        let blocked = db
            .batch(vec![statement("UPDATE t SET a = 3", [])], options)
            .await;
        assert!(blocked.is_err(), "{blocked:?}");
        reader.commit().await.unwrap();
        assert_eq!(
            run(db, "SELECT a FROM t").await.unwrap(),
            [[Value::Integer(2)]]
        );
    });
}

#[test]
fn cursor_lets_others_work_on_its_connection_if_little_of_it_is_left() {
    test(async |db, _| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let tx = begin_tx(db).await;
        let few = statement(FEW, []).0;
        tx.open_cursor(1, few.clone()).await.unwrap();
        assert_eq!(tx.next(1, 3).await.unwrap().len(), 3);
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        tx.open_cursor(2, few).await.unwrap();
        assert_eq!(tx.next(1, 1000).await.unwrap()[0], [Value::Integer(4)]);
        assert_eq!(tx.next(2, 1).await.unwrap(), [[Value::Integer(1)]]);
        assert_eq!(tx.next(1, 1).await.unwrap(), Vec::<Vec<Value>>::new());
        let many = statement(MANY, []).0;
        tx.open_cursor(3, many).await.unwrap();
        assert_eq!(tx.next(3, 10).await.unwrap().len(), 10);
        run_in(&*tx, "INSERT INTO t VALUES (2)").await.unwrap();
        let cut = loop {
            match tx.next(3, 1000).await {
                Ok(page) => assert!(!page.is_empty()),
                Err(error) => break error,
            }
        };
        assert!(matches!(cut, DbError::TooLarge(_)), "{cut:?}");
        tx.commit().await.unwrap();
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(2)]]
        );
    });
}

#[test]
fn large_rows_come_by_cursor_in_pages_that_fit() {
    test(async |db, _| {
        let tx = begin_tx(db).await;
        tx.open_cursor(1, statement(LARGE, []).0).await.unwrap();
        let mut pages = Vec::new();
        loop {
            let page = tx.next(1, 1000).await.unwrap();
            if page.is_empty() {
                break;
            }
            pages.push(page.len());
        }
        assert_eq!(pages.iter().sum::<usize>(), 10);
        assert!(pages.iter().all(|rows| *rows <= 2), "{pages:?}");
    });
}

#[test]
fn connection_that_breaks_before_the_commit_is_no_unknown_outcome() {
    test(async |db, server| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        // MariaDB has `KILL USER` for it.
        let kills = "SELECT GROUP_CONCAT(CONCAT('KILL ', ID) SEPARATOR '; ') FROM information_schema.PROCESSLIST \
            WHERE USER = 'wrun'";
        server.query("shop", &server.query("shop", kills));
        let told = run_in(&*tx, "SELECT 1").await;
        assert!(matches!(told, Err(DbError::Unavailable(_))), "{told:?}");
        assert!(matches!(tx.commit().await, Err(DbError::Unavailable(_))));
        while run(db, "SELECT 1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(0)]]
        );
    });
}

#[test]
fn server_that_is_away_is_away_at_once_and_found_when_it_is_back() {
    let Some(mut server) = MariaDb::for_test() else {
        return;
    };
    server.create("shop");
    block_on(async {
        let db = open(&server.url("shop"));
        assert_eq!(run(&db, "SELECT 1").await.unwrap(), [[Value::Integer(1)]]);
        server.kill();
        for _ in 0..20 {
            let away = run(&db, "SELECT 1").await;
            assert!(matches!(away, Err(DbError::Unavailable(_))), "{away:?}");
        }
        server.start_again();
        while run(&db, "SELECT 1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn migrations_are_applied_once_however_many_start_at_a_time() {
    test(async |db, server| {
        let folder = wrun_tests::folder();
        let write = |name: &str, sql: &str| std::fs::write(folder.path().join(name), sql).unwrap();
        write("1.sql", "CREATE TABLE t (a int); INSERT INTO t VALUES (1);");
        let others: Vec<_> = (0..4).map(|_| open(&server.url("shop"))).collect();
        let starts = others
            .iter()
            .map(|other| other.prepare(Some(folder.path())));
        let applied: Vec<_> = futures_util::future::join_all(starts).await;
        let applied: usize = applied.into_iter().map(|names| names.unwrap().len()).sum();
        assert_eq!(applied, 1);
        write("2.sql", "INSERT INTO t VALUES (2); SELECT nothing;");
        let failure = db.prepare(Some(folder.path())).await.unwrap_err();
        assert!(failure.message.contains("2.sql"), "{failure}");
        // Nothing in it commits by itself, so nothing of it is there.
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(1)]]
        );
        write("1.sql", "-- changed");
        let failure = db.prepare(Some(folder.path())).await.unwrap_err();
        assert!(failure.message.contains("was changed"), "{failure}");
    });
}

#[test]
fn connection_is_encrypted_as_the_url_says_and_only_for_a_certificate_that_holds() {
    let Some(mut server) = MariaDb::for_test() else {
        return;
    };
    let certificate = server.encrypt();
    server.create("shop");
    let address = server.url("shop");
    let name = address.replace("127.0.0.1", "localhost");
    let roots = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    block_on(async {
        for (url, parameters, encrypted) in [
            (&address, "sslmode=disable", Some(false)),
            (&address, "sslmode=require", Some(true)),
            (&name, &*roots, Some(true)),
            // Nobody signed it; and it is not the address's.
            (&name, "sslmode=verify-full", None),
            (&address, &*roots, None),
        ] {
            let read = run(
                &open(&format!("{url}?{parameters}")),
                "SHOW STATUS LIKE 'Ssl_version'",
            )
            .await;
            match encrypted {
                Some(encrypted) => {
                    let version = &read.unwrap()[0][1];
                    assert_eq!(*version != text(""), encrypted, "{url} {version:?}");
                }
                None => assert!(matches!(read, Err(DbError::Unavailable(_))), "{read:?}"),
            }
        }
    });
}

fn fence(token: u64) -> Vec<Fence> {
    vec![Fence {
        key: "stock/1".to_owned(),
        token,
    }]
}

async fn batch_within(db: &Mysql, token: u64) -> Result<Vec<Step>, DbError> {
    let batch = vec![statement(
        "INSERT INTO sold VALUES ($1)",
        [Value::Integer(token as i64)],
    )];
    let (options, given_up) = (TxOptions::default(), GivenUp::default());
    db.batch_unless(batch, options, fence(token), given_up)
        .await
}

async fn begin_within(db: &Mysql, token: u64) -> Box<dyn Transaction> {
    let begun = db.begin_fenced(TxOptions::default(), fence(token));
    begun.await.unwrap()
}

async fn sell(tx: &dyn Transaction, token: u64) -> Result<Step, DbError> {
    let (sell, want) = statement(
        "INSERT INTO sold VALUES ($1)",
        [Value::Integer(token as i64)],
    );
    tx.run(sell, want).await
}

#[test]
fn token_that_is_lower_than_one_that_was_seen_is_refused_and_leaves_nothing() {
    test(async |db, server| {
        run(db, "CREATE TABLE sold (token bigint)").await.unwrap();
        batch_within(db, 7).await.unwrap();
        batch_within(db, 7).await.unwrap();
        let late = begin_within(db, 6).await;
        assert_eq!(sell(&*late, 6).await.err(), Some(DbError::LostFence));
        assert_eq!(late.commit().await, Err(DbError::LostFence));
        assert_eq!(batch_within(db, 5).await.err(), Some(DbError::LostFence));
        let next = begin_within(db, 8).await;
        sell(&*next, 8).await.unwrap();
        next.commit().await.unwrap();
        // What reads takes nothing from anybody.
        let options = TxOptions {
            read_only: true,
            ..TxOptions::default()
        };
        let looks = db.begin_fenced(options, fence(1)).await.unwrap();
        let (count, want) = statement("SELECT count(*) FROM sold", []);
        looks.run(count, want).await.unwrap();
        looks.commit().await.unwrap();
        let sold = "SELECT GROUP_CONCAT(token ORDER BY token) FROM sold";
        assert_eq!(server.query("shop", sold), "7,7,8");
        let seen = "SELECT CONCAT(name, token) FROM _wrun_fences";
        assert_eq!(server.query("shop", seen), "stock/18");
    });
}

#[test]
fn transaction_of_an_earlier_holder_that_ends_late_costs_the_next_one_its_lock() {
    test(async |db, server| {
        run(db, "CREATE TABLE sold (token bigint)").await.unwrap();
        let first = begin_within(db, 1).await;
        sell(&*first, 1).await.unwrap();
        let mut second = Box::pin(batch_within(db, 2));
        let waits = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT name, token%FOR UPDATE'";
        let blocked = async {
            while server.query("shop", waits) != "1" {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = blocked => {}
            done = &mut second => panic!("it did not wait: {done:?}"),
        }
        first.commit().await.unwrap();
        // It may have read what was there before.
        assert_eq!(second.await.err(), Some(DbError::LostFence));
        assert_eq!(server.query("shop", "SELECT count(*) FROM sold"), "1");
        batch_within(db, 3).await.unwrap();
    });
}
