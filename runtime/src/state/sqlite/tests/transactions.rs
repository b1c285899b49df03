//! Transactions: what they isolate, what ends them, and in which order they come.

use super::*;
use std::sync::mpsc as std_mpsc;

async fn stock(db: &Sqlite) {
    execute(
        db,
        "CREATE TABLE stock (item TEXT PRIMARY KEY, left_over INT CHECK (left_over >= 0))",
    )
    .await;
    execute(db, "INSERT INTO stock VALUES ('pen', 10)").await;
}

async fn left_over(db: &Sqlite) -> Value {
    query(db, "SELECT left_over FROM stock").await[0][0].clone()
}

const SELL: &str = "UPDATE stock SET left_over = left_over - 1";

#[tokio::test]
async fn committed_transaction_is_seen_and_a_dropped_one_is_not() {
    let opened = open();
    let db = &opened.db;
    stock(db).await;
    let tx = db.begin(TxOptions::default()).await.unwrap();
    let rows = run_in(
        &*tx,
        "SELECT left_over FROM stock WHERE item = 'pen' FOR UPDATE",
    )
    .await;
    assert!(matches!(rows, Ok(Step::Rows(rows)) if rows.rows == [[int(10)]]));
    run_in(&*tx, SELL).await.unwrap();
    assert_eq!(left_over(db).await, int(10));
    tx.commit().await.unwrap();
    assert_eq!(left_over(db).await, int(9));

    let tx = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    drop(tx);
    let tx = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    tx.rollback().await;
    assert_eq!(execute(db, SELL).await.affected, 1);
    assert_eq!(left_over(db).await, int(8));
}

#[tokio::test]
async fn ended_transaction_answers_closed() {
    let opened = open();
    for commit in [true, false] {
        let tx = opened.db.begin(TxOptions::default()).await.unwrap();
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await;
        }
        assert_eq!(run_in(&*tx, "SELECT 1").await, Err(DbError::Closed));
        assert_eq!(tx.commit().await, Err(DbError::Closed));
        assert_eq!(tx.next(1, 1).await, Err(DbError::Closed));
        assert_eq!(tx.mark_processed("a".into()).await, Err(DbError::Closed));
        let sent = tx.send("mail".into(), vec![Message::default()]).await;
        assert_eq!(sent, Err(QueueError::Closed));
        tx.rollback().await;
    }
}

#[tokio::test]
async fn calls_run_in_their_order_whether_or_not_they_are_waited_for() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    for _ in 0..3 {
        drop(tx.run(statement(SELL), Want::Done));
    }
    let committed = tx.commit();
    drop(tx);
    committed.await.unwrap();
    assert_eq!(left_over(&opened.db).await, int(7));
}

#[tokio::test]
async fn failed_statement_does_not_end_its_transaction() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    let taken = run_in(&*tx, "INSERT INTO stock VALUES ('pen', 1)").await;
    assert_eq!(code_of(taken), "23505");
    assert_eq!(code_of(run_in(&*tx, "SELEC").await), "42601");
    tx.commit().await.unwrap();
    assert_eq!(left_over(&opened.db).await, int(9));
}

#[tokio::test]
async fn transaction_that_sqlite_rolls_back_is_over() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    let taken = run_in(&*tx, "INSERT OR ROLLBACK INTO stock VALUES ('pen', 1)").await;
    assert_eq!(code_of(taken), "23505");
    assert_eq!(run_in(&*tx, SELL).await, Err(DbError::Closed));
    assert_eq!(tx.commit().await, Err(DbError::Closed));
    assert_eq!(left_over(&opened.db).await, int(10));
}

#[tokio::test]
async fn commit_that_fails_has_rolled_back() {
    let opened = open();
    let db = &opened.db;
    execute(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
    execute(
        db,
        "CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let tx = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, "INSERT INTO c VALUES (7)").await.unwrap();
    assert_eq!(code_of(tx.commit().await), "23503");
    assert_eq!(query(db, "SELECT * FROM c").await, Vec::<Row>::new());
    execute(db, "INSERT INTO p VALUES (1)").await;
}

#[tokio::test]
async fn idle_transaction_is_rolled_back_and_the_next_writer_goes_on() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    execute(&opened.db, SELL).await;
    assert!(matches!(run_in(&*tx, SELL).await, Err(DbError::Timeout(_))));
    assert!(matches!(tx.commit().await, Err(DbError::Timeout(_))));
    assert_eq!(left_over(&opened.db).await, int(9));
}

#[tokio::test]
async fn busy_transaction_ends_at_its_own_time_limit() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened
        .db
        .begin(short(Duration::from_millis(30)))
        .await
        .unwrap();
    let error = loop {
        if let Err(error) = run_in(&*tx, SELL.replace("- 1", "- 0").as_str()).await {
            break error;
        }
    };
    assert!(matches!(error, DbError::Timeout(_)), "{error:?}");
    assert_eq!(left_over(&opened.db).await, int(10));
}

#[tokio::test]
async fn dropping_a_transaction_stops_its_statement() {
    let opened = open();
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, "SELECT 1").await.unwrap();
    let endless = tx.run(statement(ENDLESS), Want::Rows);
    drop(tx);
    assert!(matches!(endless.await, Err(DbError::Timeout(_))));
    execute(&opened.db, "CREATE TABLE t (a)").await;
}

#[tokio::test]
async fn work_that_waits_too_long_for_the_writer_is_not_done() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    let options = short(Duration::from_millis(20));
    let batch = opened
        .db
        .batch(vec![(statement(SELL), Want::Done)], options);
    assert!(matches!(batch.await, Err(DbError::Timeout(_))));
    let late = opened.db.begin(options).await.unwrap();
    assert!(matches!(
        run_in(&*late, SELL).await,
        Err(DbError::Timeout(_))
    ));
    assert!(matches!(late.commit().await, Err(DbError::Timeout(_))));
    tx.commit().await.unwrap();
    assert_eq!(left_over(&opened.db).await, int(10));
}

#[tokio::test]
async fn rollback_does_not_wait_for_a_turn() {
    let opened = open();
    stock(&opened.db).await;
    let first = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*first, SELL).await.unwrap();
    let second = opened.db.begin(TxOptions::default()).await.unwrap();
    let waiting = run_in(&*second, SELL);
    second.rollback().await;
    first.commit().await.unwrap();
    assert!(waiting.await.is_err());
    assert_eq!(left_over(&opened.db).await, int(9));
}

#[tokio::test]
async fn transaction_that_nobody_waits_for_is_not_begun() {
    let opened = open();
    stock(&opened.db).await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    drop(opened.db.begin(TxOptions::default()));
    let third = opened.db.begin(TxOptions::default());
    tx.commit().await.unwrap();
    run_in(&*third.await.unwrap(), SELL).await.unwrap();
}

#[tokio::test]
async fn read_only_transaction_sees_one_snapshot_and_waits_for_no_writer() {
    let opened = open();
    let db = &opened.db;
    stock(db).await;
    let writing = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*writing, SELL).await.unwrap();
    let reading = db.begin(read_only()).await.unwrap();
    run_in(&*reading, "SELECT 1").await.unwrap();
    writing.commit().await.unwrap();
    let rows = run_in(&*reading, "SELECT left_over FROM stock").await;
    assert!(matches!(rows, Ok(Step::Rows(rows)) if rows.rows == [[int(10)]]));

    assert_eq!(code_of(run_in(&*reading, SELL).await), "25006");
    assert_eq!(code_of(reading.mark_processed("a".into()).await), "25006");
    let locking = run_in(&*reading, "SELECT 1 FOR UPDATE").await;
    assert!(matches!(locking, Err(DbError::Invalid(_))));
    let sent = reading.send("mail".into(), vec![Message::default()]).await;
    assert!(matches!(sent, Err(QueueError::Refused(code, _)) if code == "25006"));
    reading.commit().await.unwrap();
    assert_eq!(left_over(db).await, int(9));
}

#[tokio::test]
async fn batch_is_all_or_nothing() {
    let opened = open();
    let db = &opened.db;
    stock(db).await;
    let batch = |last: &str| {
        let statements = [SELL, SELL, last].map(|sql| (statement(sql), Want::Done));
        db.batch(statements.into(), TxOptions::default())
    };
    assert_eq!(
        code_of(batch("INSERT INTO stock VALUES ('pen', 1)").await),
        "23505"
    );
    assert_eq!(left_over(db).await, int(10));
    batch(SELL).await.unwrap();
    assert_eq!(left_over(db).await, int(7));
    let locking = db.batch(
        vec![
            (
                statement("SELECT left_over FROM stock FOR UPDATE"),
                Want::Rows,
            ),
            (statement(SELL), Want::Done),
        ],
        TxOptions::default(),
    );
    assert!(matches!(&locking.await.unwrap()[0], Step::Rows(rows) if rows.rows == [[int(7)]]));
    let none = db.batch(Vec::new(), TxOptions::default()).await;
    assert_eq!(none, Ok(Vec::new()));
}

/// Queues batches behind a transaction, so that they share one, and returns their answers in order.
async fn together(db: &Sqlite, batches: &[&[&str]]) -> Vec<Result<Vec<Step>, DbError>> {
    let tx = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, "SELECT 1").await.unwrap();
    let waiting: Vec<_> = batches
        .iter()
        .map(|batch| {
            let statements = batch.iter().map(|sql| (statement(sql), Want::Done));
            db.batch(statements.collect(), TxOptions::default())
        })
        .collect();
    tx.rollback().await;
    let mut answers = Vec::new();
    for batch in waiting {
        answers.push(batch.await);
    }
    answers
}

#[tokio::test]
async fn batch_that_fails_does_not_touch_those_it_shares_a_transaction_with() {
    let opened = open();
    let db = &opened.db;
    execute(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)").await;
    execute(
        db,
        "CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let failures: [(&[&str], &str); 6] = [
        (&["INSERT INTO p VALUES (1)"], "23505"),
        (
            &["INSERT INTO p VALUES (100)", "INSERT INTO p VALUES (1)"],
            "23505",
        ),
        (&["INSERT OR FAIL INTO p VALUES (100), (1)"], "23505"),
        (&["INSERT OR ROLLBACK INTO p VALUES (100), (1)"], "23505"),
        (
            &[
                "INSERT INTO p VALUES (100)",
                "INSERT OR ROLLBACK INTO p VALUES (1)",
            ],
            "23505",
        ),
        (&["INSERT INTO c VALUES (100)"], "23503"),
    ];
    execute(db, "INSERT INTO p VALUES (1)").await;
    for (at, (failing, code)) in (2..).zip(failures) {
        let good = format!("INSERT INTO p VALUES ({at})");
        let twice = format!("INSERT INTO p VALUES ({})", at + 50);
        let answers = together(
            db,
            &[&[&good], failing, &[&twice, "DELETE FROM p WHERE id = 0"]],
        )
        .await;
        assert!(answers[0].is_ok(), "{failing:?}: {answers:?}");
        assert!(answers[2].is_ok(), "{failing:?}: {answers:?}");
        assert_eq!(code_of(answers[1].clone()), code, "{failing:?}");
        let count = query(db, "SELECT count(*) FROM p").await;
        assert_eq!(count, [[int(1 + 2 * (at - 1))]], "{failing:?}");
    }
}

#[tokio::test]
async fn batches_that_wait_together_share_a_sync() {
    let opened = open();
    stock(&opened.db).await;
    let before = opened.db.status();
    let batch: &[&str] = &[SELL];
    assert!(
        together(&opened.db, &[batch; 9])
            .await
            .iter()
            .all(Result::is_ok)
    );
    let after = opened.db.status();
    assert_eq!(after.commits - before.commits, 1);
    assert_eq!(after.syncs - before.syncs, 1);
    assert_eq!(left_over(&opened.db).await, int(1));
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let (allow, allowed) = std_mpsc::channel::<()>();
    let (began, beginning) = std_mpsc::channel::<()>();
    let allowed = Mutex::new(allowed);
    let mut opened = open_with(|options| {
        options.sync = Some(Arc::new(move |_| {
            began.send(()).map_err(io::Error::other)?;
            allowed.lock().unwrap().recv().map_err(io::Error::other)
        }));
    });
    let db = opened.db.clone();
    let local = tokio::task::LocalSet::new();
    let created = db.batch(
        vec![(statement("CREATE TABLE t (a)"), Want::Done)],
        TxOptions::default(),
    );
    let other = db.clone();
    local
        .run_until(async {
            beginning.recv().unwrap();
            // It is committed, which readers see, and not acknowledged.
            assert_eq!(query(&other, "SELECT count(*) FROM t").await, [[int(0)]]);
            let tx = other.begin(TxOptions::default()).await.unwrap();
            tx.send("mail".into(), vec![Message::default()])
                .await
                .unwrap();
            let committed = tx.commit();
            let mut settled = tokio::task::spawn_local(committed);
            // The writer has gone on, past the commit.
            let next = other.begin(TxOptions::default()).await.unwrap();
            run_in(&*next, "SELECT 1").await.unwrap();
            next.rollback().await;
            assert!(opened.sent.try_recv().is_err());
            allow.send(()).unwrap();
            created.await.unwrap();
            beginning.recv().unwrap();
            assert!(opened.sent.try_recv().is_err());
            assert!(!settled.is_finished());
            allow.send(()).unwrap();
            (&mut settled).await.unwrap().unwrap();
            assert_eq!(opened.sent.recv().await.unwrap().len(), 1);
        })
        .await;
    // Closing syncs nothing more: there was no further commit.
    drop(allow);
    db.close().await;
    assert_eq!(*opened.fatal.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn failed_sync_leaves_outcomes_unknown_and_stops_the_engine() {
    let opened = open_with(|options| {
        options.sync = Some(Arc::new(|_| Err(io::Error::other("no disk"))));
    });
    let db = &opened.db;
    let tx = db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, "CREATE TABLE t (a)").await.unwrap();
    assert_eq!(tx.commit().await, Err(DbError::OutcomeUnknown));
    let next = run(db, statement("INSERT INTO t VALUES (1)")).await;
    assert!(matches!(next, Err(DbError::Unavailable(_))), "{next:?}");
    let tx = db.begin(TxOptions::default()).await.unwrap();
    let ran = run_in(&*tx, "SELECT 1").await;
    assert!(matches!(ran, Err(DbError::Unavailable(_))), "{ran:?}");
    assert!(matches!(tx.commit().await, Err(DbError::Unavailable(_))));
    let sent = db.send("mail".into(), vec![Message::default()]).await;
    assert!(matches!(sent, Err(QueueError::Unavailable(_))));
    assert_eq!(opened.fatal.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn relaxed_database_waits_for_no_sync() {
    let opened = open_with(|options| {
        options.durability = Durability::Relaxed;
        options.sync = Some(Arc::new(|_| Err(io::Error::other("no disk"))));
    });
    execute(&opened.db, "CREATE TABLE t (a)").await;
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    run_in(&*tx, "INSERT INTO t VALUES (1)").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(opened.db.status().syncs, 0);
}

#[tokio::test]
async fn cursor_returns_pages_to_its_end() {
    let opened = open();
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    let numbers = "WITH RECURSIVE n (i) AS (VALUES ($1) UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n";
    let columns = tx.open_cursor(1, with(numbers, [int(1)])).await.unwrap();
    assert_eq!(columns[0].name, "i");
    tx.open_cursor(2, with(numbers, [int(4)])).await.unwrap();
    assert_eq!(tx.next(1, 2).await.unwrap(), [[int(1)], [int(2)]]);
    assert_eq!(tx.next(2, 9).await.unwrap(), [[int(4)], [int(5)]]);
    assert_eq!(tx.next(2, 9).await.unwrap(), Vec::<Row>::new());
    assert_eq!(tx.next(2, 9).await.unwrap(), Vec::<Row>::new());
    // Out of order, and again.
    tx.close_cursor(1);
    tx.close_cursor(1);
    assert_eq!(tx.next(1, 1).await, Err(DbError::Closed));
    tx.open_cursor(3, with(numbers, [int(3)])).await.unwrap();
    assert_eq!(tx.next(3, 2).await.unwrap(), [[int(3)], [int(4)]]);
    run_in(&*tx, "CREATE TABLE t (a)").await.unwrap();
    assert_eq!(tx.next(3, 2).await.unwrap(), [[int(5)]]);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn cursor_pages_are_bounded_in_bytes() {
    let opened = open();
    let tx = opened.db.begin(read_only()).await.unwrap();
    let large = "SELECT randomblob(3000000) FROM (VALUES (1), (2), (3), (4), (5))";
    tx.open_cursor(1, statement(large)).await.unwrap();
    let mut pages = Vec::new();
    loop {
        let page = tx.next(1, 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
    let too_large = tx
        .open_cursor(
            2,
            statement("SELECT randomblob(5000000), randomblob(5000000)"),
        )
        .await;
    assert!(matches!(too_large, Err(DbError::TooLarge(_))));
}

#[tokio::test]
async fn only_so_many_cursors_are_open() {
    let opened = open();
    let tx = opened.db.begin(TxOptions::default()).await.unwrap();
    for number in 1..=8 {
        tx.open_cursor(number, statement("VALUES (1), (2)"))
            .await
            .unwrap();
    }
    let ninth = tx.open_cursor(9, statement("SELECT 1")).await;
    assert!(matches!(ninth, Err(DbError::Invalid(_))));
    tx.close_cursor(3);
    tx.open_cursor(9, statement("SELECT 1")).await.unwrap();
    let again = tx.open_cursor(9, statement("SELECT 1")).await;
    assert!(matches!(again, Err(DbError::Invalid(_))));
    tx.close_cursor(9);
    assert_eq!(
        code_of(tx.open_cursor(10, statement("SELEC")).await),
        "42601"
    );
    tx.rollback().await;
}

#[tokio::test]
async fn readers_beyond_their_number_wait_for_their_turn() {
    let opened = open();
    let mut open_snapshots = Vec::new();
    for _ in 0..READERS {
        open_snapshots.push(opened.db.begin(read_only()).await.unwrap());
    }
    let waiting = opened.db.batch(
        vec![(statement("SELECT 1"), Want::Rows)],
        TxOptions::default(),
    );
    open_snapshots.pop();
    assert!(waiting.await.is_ok());
    // The messages of queues do not wait.
    assert_eq!(opened.db.load().await, Ok(Vec::new()));
}
