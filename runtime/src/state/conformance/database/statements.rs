//! Cases of single statements: values, effects, and what is refused.

use super::super::cases;
use super::*;
use crate::state::db::{BATCH_MAX, PARAMS_MAX, SQL_MAX};

pub(super) fn cases<B: HasDatabase>() -> Vec<Case<B>> {
    cases![
        values_come_back_as_they_were_stored,
        null_comes_back_from_a_column_of_every_type,
        effects_are_counted,
        columns_are_named,
        broken_constraints_have_their_sqlstate,
        syntax_error_has_its_sqlstate,
        several_statements_are_invalid,
        wrong_number_of_parameters_is_invalid,
        text_with_nul_is_invalid,
        what_is_over_its_limit_is_too_large,
    ]
}

async fn values_come_back_as_they_were_stored<B: HasDatabase>(on: B) {
    let db = on.database();
    for (number, value) in values().into_iter().enumerate() {
        let declared = B::declare(&value);
        execute(db, &format!("CREATE TABLE t{number} (v {declared})")).await;
        let insert = with(
            &format!("INSERT INTO t{number} VALUES ($1)"),
            [value.clone()],
        );
        run(db, insert).await.unwrap();
        let read = query(db, &format!("SELECT v FROM t{number}")).await;
        assert_eq!(read, [[B::comes_back(value)]]);
    }
}

async fn null_comes_back_from_a_column_of_every_type<B: HasDatabase>(on: B) {
    let db = on.database();
    for (number, value) in values().into_iter().enumerate() {
        let declared = B::declare(&value);
        execute(db, &format!("CREATE TABLE t{number} (v {declared})")).await;
        execute(db, &format!("INSERT INTO t{number} VALUES (NULL)")).await;
        let read = query(db, &format!("SELECT v FROM t{number}")).await;
        assert_eq!(read, [[Value::Null]], "{declared}");
    }
}

async fn effects_are_counted<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let insert = "INSERT INTO stock VALUES ('ink', 1), ('cap', 2)";
    assert_eq!(execute(db, insert).await.affected, 2);
    let update = "UPDATE stock SET left_over = 0 WHERE left_over < 5";
    assert_eq!(execute(db, update).await.affected, 2);
    assert_eq!(execute(db, "DELETE FROM stock").await.affected, 3);
    assert_eq!(execute(db, "DELETE FROM stock").await.affected, 0);
}

async fn columns_are_named<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let select = "SELECT item, left_over AS pieces FROM stock WHERE 1 = 0";
    match run(db, statement(select)).await.unwrap() {
        Step::Rows(rows) => {
            let names: Vec<_> = rows.columns.iter().map(|column| &*column.name).collect();
            assert_eq!(names, ["item", "pieces"]);
            assert_eq!(rows.rows, Vec::<Row>::new());
        }
        Step::Done(done) => panic!("{done:?}"),
    }
}

async fn broken_constraints_have_their_sqlstate<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let sales =
        "CREATE TABLE sale (item VARCHAR(20) NOT NULL, FOREIGN KEY (item) REFERENCES stock (item))";
    execute(db, sales).await;
    for (sql, code) in [
        ("INSERT INTO stock VALUES ('pen', 1)", "23505"),
        ("INSERT INTO stock VALUES ('ink', -1)", "23514"),
        ("INSERT INTO sale VALUES (NULL)", "23502"),
        ("INSERT INTO sale VALUES ('ink')", "23503"),
    ] {
        let result = run(db, statement(sql)).await;
        assert!(
            matches!(
                &result,
                Err(DbError::Engine {
                    retryable: false,
                    ..
                })
            ),
            "{sql}: {result:?}"
        );
        assert_eq!(sqlstate(result), code, "{sql}");
    }
}

async fn syntax_error_has_its_sqlstate<B: HasDatabase>(on: B) {
    let db = on.database();
    assert_eq!(sqlstate(run(db, statement("SELEC 1")).await), "42601");
    assert_eq!(
        sqlstate(run(db, statement("SELECT * FROM n")).await),
        "42P01"
    );
}

async fn several_statements_are_invalid<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let both = format!("{SELL}; {SELL}");
    let result = run(db, statement(&both)).await;
    assert!(matches!(result, Err(DbError::Invalid(_))), "{result:?}");
    assert_eq!(pens(db).await, 10);
}

async fn wrong_number_of_parameters_is_invalid<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let sql = "SELECT item FROM stock WHERE left_over = $1";
    for params in [vec![], vec![Value::Integer(1), Value::Integer(2)]] {
        let result = run(db, with(sql, params)).await;
        assert!(matches!(result, Err(DbError::Invalid(_))), "{result:?}");
    }
}

async fn text_with_nul_is_invalid<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let sql = "SELECT left_over FROM stock WHERE item = $1";
    let result = run(db, with(sql, [Value::Text("pen\0".to_owned())])).await;
    assert!(matches!(result, Err(DbError::Invalid(_))), "{result:?}");
}

async fn what_is_over_its_limit_is_too_large<B: HasDatabase>(on: B) {
    let db = stocked(&on).await;
    let many: Vec<_> = (1..=PARAMS_MAX + 1).map(|n| format!("${n}")).collect();
    let list = format!("SELECT 1 WHERE 1 IN ({})", many.join(","));
    let long = format!("SELECT 1 -- {}", "-".repeat(SQL_MAX));
    for statement in [
        with(&list, vec![Value::Integer(1); PARAMS_MAX + 1]),
        statement(&long),
    ] {
        let result = run(db, statement).await;
        assert!(matches!(result, Err(DbError::TooLarge(_))), "{result:?}");
    }
    let result = batch(db, &[PENS; BATCH_MAX + 1]).await;
    assert!(matches!(result, Err(DbError::TooLarge(_))));
}

/// Returns one or more values of every type.
fn values() -> Vec<Value> {
    vec![
        Value::Boolean(true),
        Value::Boolean(false),
        Value::Integer(i64::MIN),
        Value::Integer(i64::MAX),
        Value::Real(0.1),
        Value::Real(-1.5e300),
        Value::Text(String::new()),
        Value::Text("größe 'x' \u{1f980}".to_owned()),
        Value::Blob(Vec::new()),
        Value::Blob((0..=255).collect()),
        Value::Decimal("-12345678901234567890.50".to_owned()),
        Value::Date("2024-02-29".to_owned()),
        Value::Time("23:59:59".to_owned()),
        Value::TimestampUs(1_700_000_000_123_456),
        Value::TimestampUs(-1),
        Value::Uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
        Value::Json(r#"{"a": [1, null]}"#.to_owned()),
    ]
}
