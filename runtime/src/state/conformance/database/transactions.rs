//! Cases of transactions: what they isolate, what ends them, and what they leave.

use super::super::cases;
use super::*;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

pub(super) fn cases<B: HasDatabase>() -> Vec<Case<B>> {
    cases![
        batch_is_all_or_nothing,
        batch_returns_one_step_per_statement,
        committed_transaction_is_seen_by_others,
        open_transaction_is_not_seen_by_others,
        dropped_transaction_leaves_nothing,
        rolled_back_transaction_leaves_nothing,
        transaction_sees_what_it_has_done,
        calls_run_in_their_order_without_being_waited_for,
        ended_transaction_answers_closed,
        begin_that_is_given_up_keeps_nobody_waiting,
        what_is_read_and_checked_holds_when_it_is_written,
        row_can_be_selected_for_update,
        failed_statement_does_not_end_its_transaction,
        cursor_returns_ten_thousand_rows_each_once_and_in_order,
        work_is_noted_once,
        note_of_a_transaction_that_was_rolled_back_is_gone,
        read_only_transaction_refuses_to_write,
        read_only_batch_refuses_to_write,
        read_only_transaction_sees_one_snapshot,
        transaction_ends_at_its_time_limit,
        transactions_cannot_be_controlled_by_statements,
        what_was_committed_survives_a_restart,
    ]
}

async fn batch_is_all_or_nothing<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let taken = "INSERT INTO stock VALUES ('pen', 1)";
    assert_eq!(sqlstate(batch(db, &[SELL, taken, SELL]).await), "23505");
    assert_eq!(pens(db).await, 10);
    batch(db, &[SELL, SELL]).await.unwrap();
    assert_eq!(pens(db).await, 8);
}

async fn batch_returns_one_step_per_statement<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let steps = batch(db, &[SELL, PENS, SELL, PENS]).await.unwrap();
    let left_over = |step: &Step| match step {
        Step::Rows(rows) => Some(rows.rows[0][0].clone()),
        Step::Done(_) => None,
    };
    let left_over: Vec<_> = steps.iter().map(left_over).collect();
    let (nine, eight) = (Value::Integer(9), Value::Integer(8));
    assert_eq!(left_over, [None, Some(nine), None, Some(eight)]);
}

async fn committed_transaction_is_seen_by_others<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    assert_eq!(tx.commit().await, Ok(()));
    assert_eq!(pens(db).await, 9);
}

async fn open_transaction_is_not_seen_by_others<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    assert_eq!(pens(db).await, 10);
    tx.commit().await.unwrap();
}

async fn dropped_transaction_leaves_nothing<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    drop(tx);
    // It comes after.
    execute(db, SELL).await;
    assert_eq!(pens(db).await, 9);
}

async fn rolled_back_transaction_leaves_nothing<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    tx.rollback().await;
    assert_eq!(pens(db).await, 10);
}

async fn transaction_sees_what_it_has_done<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    assert_eq!(rows(run_in(&*tx, PENS).await), [[Value::Integer(9)]]);
}

async fn calls_run_in_their_order_without_being_waited_for<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    drop(run_in(&*tx, "UPDATE stock SET left_over = 5"));
    drop(run_in(&*tx, "UPDATE stock SET left_over = left_over * 3"));
    drop(run_in(&*tx, SELL));
    let committed = tx.commit();
    drop(tx);
    committed.await.unwrap();
    assert_eq!(pens(db).await, 14);
}

async fn ended_transaction_answers_closed<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    for commit in [true, false] {
        let tx = begin(db).await;
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await;
        }
        assert_eq!(run_in(&*tx, SELL).await, Err(DbError::Closed));
        assert_eq!(tx.next(1, 1).await, Err(DbError::Closed));
        assert_eq!(tx.mark_processed("a".into()).await, Err(DbError::Closed));
        assert_eq!(tx.commit().await, Err(DbError::Closed));
        tx.rollback().await;
    }
    assert_eq!(pens(db).await, 10);
}

async fn begin_that_is_given_up_keeps_nobody_waiting<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let first = begin(db).await;
    run_in(&*first, SELL).await.unwrap();
    drop(db.begin(TxOptions::default()));
    first.commit().await.unwrap();
    execute(db, SELL).await;
    assert_eq!(pens(db).await, 8);
}

/// Twelve customers want one of ten pens, each looks first, and those who meet a conflict start again.
async fn what_is_read_and_checked_holds_when_it_is_written<B: HasDatabase>(on: B) {
    stocked(&on).await;
    let on = Rc::new(on);
    let mut customers = JoinSet::new();
    for _ in 0..12 {
        let on = on.clone();
        customers.spawn_local(async move {
            loop {
                match buy(on.database()).await {
                    Err(DbError::Engine {
                        retryable: true, ..
                    }) => {}
                    bought => return bought.unwrap(),
                }
            }
        });
    }
    let bought = customers.join_all().await;
    assert_eq!(bought.iter().filter(|&&bought| bought).count(), 10);
    assert_eq!(pens(on.database()).await, 0);
}

async fn buy(db: &dyn Database) -> Result<bool, DbError> {
    let tx = db.begin(TxOptions::default()).await?;
    let Step::Rows(found) = run_in(&*tx, PENS).await? else {
        panic!("no rows");
    };
    let Value::Integer(left_over) = found.rows[0][0] else {
        panic!("{found:?}");
    };
    tokio::task::yield_now().await;
    if left_over == 0 {
        return Ok(false);
    }
    let update = with(
        "UPDATE stock SET left_over = $1 WHERE item = 'pen'",
        [Value::Integer(left_over - 1)],
    );
    tx.run(update, Want::Done).await?;
    tx.commit().await?;
    Ok(true)
}

async fn row_can_be_selected_for_update<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    let select = "SELECT left_over FROM stock WHERE item = 'pen' FOR UPDATE";
    assert_eq!(rows(run_in(&*tx, select).await), [[Value::Integer(10)]]);
    run_in(&*tx, SELL).await.unwrap();
    tx.commit().await.unwrap();
}

async fn failed_statement_does_not_end_its_transaction<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    let taken = run_in(&*tx, "INSERT INTO stock VALUES ('ink', 1), ('pen', 1)").await;
    assert_eq!(sqlstate(taken), "23505");
    run_in(&*tx, SELL).await.unwrap();
    tx.commit().await.unwrap();
    let all = query(db, "SELECT item, left_over FROM stock").await;
    assert_eq!(all, [[Value::Text("pen".to_owned()), Value::Integer(8)]]);
}

async fn cursor_returns_ten_thousand_rows_each_once_and_in_order<B: HasDatabase>(on: B) {
    let db = on.database();
    execute(db, "CREATE TABLE t (i INTEGER PRIMARY KEY)").await;
    let numbers: Vec<_> = (0..10_000).map(|number| format!("({number})")).collect();
    for some in numbers.chunks(2000) {
        execute(db, &format!("INSERT INTO t VALUES {}", some.join(","))).await;
    }
    let tx = begin(db).await;
    let all = statement("SELECT i FROM t ORDER BY i");
    let columns = tx.open_cursor(7, all).await.unwrap();
    assert_eq!(columns[0].name, "i");
    let mut expected = 0;
    loop {
        let page = tx.next(7, 300).await.unwrap();
        assert!(page.len() <= 300);
        if page.is_empty() {
            break;
        }
        for row in page {
            assert_eq!(row, [Value::Integer(expected)]);
            expected += 1;
        }
    }
    assert_eq!(expected, 10_000);
    tx.close_cursor(7);
    assert_eq!(tx.next(7, 1).await, Err(DbError::Closed));
    tx.commit().await.unwrap();
}

async fn work_is_noted_once<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    for is_new in [true, false] {
        let tx = begin(db).await;
        assert_eq!(tx.mark_processed("sale-1".into()).await, Ok(is_new));
        if is_new {
            run_in(&*tx, SELL).await.unwrap();
            assert_eq!(tx.mark_processed("sale-1".into()).await, Ok(false));
        }
        tx.commit().await.unwrap();
    }
    let tx = begin(db).await;
    assert_eq!(tx.mark_processed("sale-2".into()).await, Ok(true));
    assert_eq!(pens(db).await, 9);
}

async fn note_of_a_transaction_that_was_rolled_back_is_gone<B: HasDatabase>(on: B) {
    let db = on.database();
    for _ in 0..2 {
        let tx = begin(db).await;
        assert_eq!(tx.mark_processed("sale-1".into()).await, Ok(true));
        tx.rollback().await;
    }
}

async fn read_only_transaction_refuses_to_write<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = db.begin(read_only()).await.unwrap();
    assert_eq!(sqlstate(run_in(&*tx, SELL).await), "25006");
    assert_eq!(rows(run_in(&*tx, PENS).await), [[Value::Integer(10)]]);
    tx.commit().await.unwrap();
    assert_eq!(pens(db).await, 10);
}

async fn read_only_batch_refuses_to_write<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let statements = [PENS, SELL].map(|sql| (statement(sql), Want::Either));
    let result = db.batch(statements.into(), read_only()).await;
    assert_eq!(sqlstate(result), "25006");
    assert_eq!(pens(db).await, 10);
}

async fn read_only_transaction_sees_one_snapshot<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = db.begin(read_only()).await.unwrap();
    assert_eq!(rows(run_in(&*tx, PENS).await), [[Value::Integer(10)]]);
    execute(db, SELL).await;
    assert_eq!(rows(run_in(&*tx, PENS).await), [[Value::Integer(10)]]);
    assert_eq!(pens(db).await, 9);
}

async fn transaction_ends_at_its_time_limit<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let options = TxOptions {
        timeout: Duration::from_millis(300),
        ..TxOptions::default()
    };
    let tx = db.begin(options).await.unwrap();
    run_in(&*tx, SELL).await.unwrap();
    let error = loop {
        if let Err(error) = run_in(&*tx, PENS).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, DbError::Timeout(_)), "{error:?}");
    let error = tx.commit().await;
    assert!(matches!(error, Err(DbError::Timeout(_))), "{error:?}");
    assert_eq!(pens(db).await, 10);
}

async fn transactions_cannot_be_controlled_by_statements<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    for sql in ["BEGIN", "COMMIT", "ROLLBACK"] {
        for result in [
            run_in(&*tx, sql).await,
            db.batch(vec![(statement(sql), Want::Either)], read_only())
                .await
                .map(|mut steps| steps.remove(0)),
        ] {
            assert!(
                matches!(result, Err(DbError::Denied(_))),
                "{sql}: {result:?}"
            );
        }
    }
    tx.rollback().await;
    assert_eq!(pens(db).await, 10);
}

async fn what_was_committed_survives_a_restart<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let tx = begin(db).await;
    run_in(&*tx, SELL).await.unwrap();
    assert_eq!(tx.mark_processed("sale-1".into()).await, Ok(true));
    tx.commit().await.unwrap();
    execute(db, SELL).await;
    let on = on.restart().await;
    let db = on.database();
    assert_eq!(pens(db).await, 8);
    let tx = begin(db).await;
    assert_eq!(tx.mark_processed("sale-1".into()).await, Ok(false));
}
