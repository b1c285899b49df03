//! What is PostgreSQL's own, on a real one: the rest is `conformance`'s.

mod replica;

use super::*;
use crate::state::db::{Value, Want};
use std::fmt::Debug;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Nothing in these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Tests something on an empty database, if PostgreSQL is installed.
fn test(what: impl AsyncFnOnce(&Postgres, &wrun_tests::postgres::Postgres)) {
    let Some(server) = wrun_tests::postgres::Postgres::for_test() else {
        return;
    };
    block_on(async {
        let db = open(&server.url("postgres"));
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

fn open(url: &str) -> Postgres {
    Postgres::new("default", Address::parse(url).unwrap())
}

fn statement(sql: &str, params: impl IntoIterator<Item = Value>) -> (Statement, Want) {
    let statement = Statement {
        sql: sql.to_owned(),
        params: params.into_iter().collect(),
    };
    (statement, Want::Either)
}

async fn run(db: &Postgres, sql: &str) -> Result<Vec<Vec<Value>>, DbError> {
    run_with(db, sql, []).await
}

async fn run_with(
    db: &Postgres,
    sql: &str,
    params: impl IntoIterator<Item = Value>,
) -> Result<Vec<Vec<Value>>, DbError> {
    let batch = db.batch(vec![statement(sql, params)], TxOptions::default());
    Ok(match batch.await?.remove(0) {
        Step::Rows(rows) => rows.rows,
        Step::Done(_) => Vec::new(),
    })
}

async fn begin_tx(db: &Postgres) -> Box<dyn Transaction> {
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

/// Waits until a statement returns this one value.
async fn until_it_returns(db: &Postgres, sql: &str, value: i64) {
    while run(db, sql).await.unwrap() != [[Value::Integer(value)]] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn values_of_other_types_come_as_text() {
    test(async |db, _| {
        let sql = "SELECT interval '1 day', ARRAY[1, 2], inet '10.0.0.1', timestamptz 'infinity', numeric 'NaN', NULL::inet
            FROM generate_series(1, 300)";
        let rows = run(db, sql).await.unwrap();
        let other = |name: &str, text: &str| Value::Other(name.to_owned(), text.to_owned());
        let expected = [
            other("interval", "1 day"),
            other("_int4", "{1,2}"),
            other("inet", "10.0.0.1/32"),
            other("timestamptz", "infinity"),
            other("numeric", "NaN"),
            Value::Null,
        ];
        assert_eq!(rows.len(), 300);
        assert!(rows.iter().all(|row| *row == expected), "{:?}", rows[0]);
    });
}

#[test]
fn parameters_take_the_type_of_their_place() {
    test(async |db, _| {
        run(db, "CREATE TABLE t (a date, b numeric, c int2, d int4, e varchar(3), f bytea, g timestamptz, h bool)")
            .await
            .unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let given = [
            text("2024-02-29"),
            Value::Integer(5),
            Value::Boolean(true),
            Value::Real(3.0),
            Value::Integer(7),
            text("x"),
            text("2024-02-29T00:00:00Z"),
            Value::Integer(1),
        ];
        let insert = "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING *";
        let read = run_with(db, insert, given).await.unwrap();
        let expected = [
            Value::Date("2024-02-29".to_owned()),
            Value::Decimal("5".to_owned()),
            Value::Integer(1),
            Value::Integer(3),
            text("7"),
            Value::Blob(b"x".to_vec()),
            Value::TimestampUs(1_709_164_800_000_000),
            Value::Boolean(true),
        ];
        assert_eq!(read, [expected]);
    });
}

#[test]
fn connection_is_clean_for_the_next_transaction() {
    test(async |db, _| {
        let tx = begin_tx(db).await;
        for sql in [
            "SELECT set_config('search_path', 'nowhere', false)",
            "SELECT pg_advisory_lock(7)",
            "CREATE TEMP TABLE left_behind (a int)",
        ] {
            run_in(&*tx, sql).await.unwrap();
        }
        tx.commit().await.unwrap();
        let advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        until_it_returns(db, advisory, 0).await;
        let path = run(db, "SELECT current_setting('search_path')")
            .await
            .unwrap();
        assert_eq!(path, [[Value::Text("\"$user\", public".to_owned())]]);
        let gone = run(db, "SELECT * FROM left_behind").await;
        assert_eq!(sqlstate(gone).0, "42P01");
    });
}

#[test]
fn dropped_transaction_stops_what_it_does_there() {
    test(async |db, _| {
        let tx = begin_tx(db).await;
        let sleeping = tx.run(statement("SELECT pg_sleep(50)", []).0, Want::Rows);
        let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        until_it_returns(db, active, 1).await;
        drop((tx, sleeping));
        until_it_returns(db, active, 0).await;
    });
}

#[test]
fn result_past_its_limit_is_cut_off_and_its_transaction_goes_on() {
    test(async |db, _| {
        let tx = begin_tx(db).await;
        let many = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
        let result = run_in(&*tx, many).await;
        assert!(matches!(result, Err(DbError::TooLarge(_))), "{result:?}");
        run_in(&*tx, "CREATE TABLE t (a int)").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(0)]]
        );
    });
}

#[test]
fn row_that_is_locked_is_locked() {
    test(async |db, _| {
        run(db, "CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "SELECT a FROM t FOR UPDATE").await.unwrap();
        let other = begin_tx(db).await;
        let busy = run_in(&*other, "SELECT a FROM t FOR UPDATE NOWAIT").await;
        assert_eq!(sqlstate(busy), ("55P03".to_owned(), true));
        tx.rollback().await;
        run_in(&*other, "SELECT a FROM t FOR UPDATE NOWAIT")
            .await
            .unwrap();
    });
}

#[test]
fn connection_that_breaks_before_the_commit_is_no_unknown_outcome_and_one_in_it_is() {
    test(async |db, server| {
        run(db, "CREATE TABLE t (a int)").await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        server.query("postgres", kill);
        // Whether or not it has noticed already.
        let committed = match run_in(&*tx, "SELECT 1").await {
            Err(error) => Err(error),
            Ok(_) => tx.commit().await,
        };
        assert!(
            matches!(committed, Err(DbError::Unavailable(_))),
            "{committed:?}"
        );
        assert_eq!(
            run(db, "SELECT count(*) FROM t").await.unwrap(),
            [[Value::Integer(0)]]
        );
        let dies = "CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$";
        run(db, dies).await.unwrap();
        let at_commit =
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION dies()";
        run(db, at_commit).await.unwrap();
        let tx = begin_tx(db).await;
        run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(tx.commit().await, Err(DbError::OutcomeUnknown));
        assert_eq!(
            run(db, "INSERT INTO t VALUES (1)").await,
            Err(DbError::OutcomeUnknown)
        );
    });
}

#[test]
fn statement_is_prepared_anew_when_its_table_was_changed() {
    test(async |db, _| {
        run(db, "CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
        assert_eq!(run(db, "SELECT * FROM t").await.unwrap()[0].len(), 1);
        run(db, "ALTER TABLE t ADD b int").await.unwrap();
        assert_eq!(run(db, "SELECT * FROM t").await.unwrap()[0].len(), 2);
        run(db, "ALTER TABLE t ADD c int").await.unwrap();
        let tx = begin_tx(db).await;
        match run_in(&*tx, "SELECT * FROM t").await {
            Ok(Step::Rows(rows)) => assert_eq!(rows.columns.len(), 3),
            other => panic!("{other:?}"),
        }
        tx.commit().await.unwrap();
    });
}

#[test]
fn large_rows_come_by_cursor_in_pages_that_fit() {
    test(async |db, _| {
        let tx = begin_tx(db).await;
        let sql = "SELECT repeat('x', 3000000) FROM generate_series(1, 10)";
        tx.open_cursor(1, statement(sql, []).0).await.unwrap();
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
fn server_that_is_away_is_away_at_once_and_found_when_it_is_back() {
    let Some(mut server) = wrun_tests::postgres::Postgres::for_test() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let db = open(&server.url("postgres"));
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
        let others: Vec<_> = (0..4).map(|_| open(&server.url("postgres"))).collect();
        let starts = others
            .iter()
            .map(|other| other.prepare(Some(folder.path())));
        let applied: Vec<_> = futures_util::future::join_all(starts).await;
        let applied: usize = applied.into_iter().map(|names| names.unwrap().len()).sum();
        assert_eq!(applied, 1);
        write("2.sql", "INSERT INTO t VALUES (2); SELECT nothing;");
        let failure = db.prepare(Some(folder.path())).await.unwrap_err();
        assert!(failure.message.contains("2.sql"), "{failure}");
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
    let Some(mut server) = wrun_tests::postgres::Postgres::for_test() else {
        return;
    };
    let certificate = server.encrypt();
    let address = server.url("postgres");
    let name = address.replace("127.0.0.1", "localhost");
    let roots = format!("sslmode=verify-full&sslrootcert={}", certificate.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        for (url, parameters, encrypted) in [
            (&address, "sslmode=disable", Some(false)),
            (&address, "sslmode=prefer", Some(true)),
            (&address, "sslmode=require", Some(true)),
            (&name, &roots, Some(true)),
            // Nobody signed it; and it is not the address's.
            (&name, "sslmode=verify-full", None),
            (&address, &roots, None),
        ] {
            let read = run(&open(&format!("{url}?{parameters}")), is_encrypted).await;
            match encrypted {
                Some(encrypted) => assert_eq!(read.unwrap(), [[Value::Boolean(encrypted)]]),
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

async fn batch_within(db: &Postgres, token: u64) -> Result<Vec<Step>, DbError> {
    let batch = vec![statement(
        "INSERT INTO sold VALUES ($1)",
        [Value::Integer(token as i64)],
    )];
    let (options, given_up) = (TxOptions::default(), GivenUp::default());
    db.batch_unless(batch, options, fence(token), given_up)
        .await
}

async fn begin_within(db: &Postgres, token: u64) -> Box<dyn Transaction> {
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
        let sold = "SELECT string_agg(token::text, ',' ORDER BY token) FROM sold";
        assert_eq!(server.query("postgres", sold), "7,7,8");
        let seen = "SELECT key || token FROM wrun.fences";
        assert_eq!(server.query("postgres", seen), "stock/18");
    });
}

#[test]
fn transaction_of_an_earlier_holder_that_ends_late_costs_the_next_one_its_lock() {
    test(async |db, server| {
        run(db, "CREATE TABLE sold (token bigint)").await.unwrap();
        let first = begin_within(db, 1).await;
        sell(&*first, 1).await.unwrap();
        let mut second = Box::pin(batch_within(db, 2));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let blocked = async {
            while server.query("postgres", waits) != "1" {
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
        assert_eq!(server.query("postgres", "SELECT count(*) FROM sold"), "1");
        batch_within(db, 3).await.unwrap();
    });
}
