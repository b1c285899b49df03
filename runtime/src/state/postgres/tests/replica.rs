//! A database with a replica: a real standby that is killed, stands still, or is none.

use super::*;
use crate::state::replica::Following;
use wrun_tests::postgres::Postgres as Server;

/// Tells who answers: a standby is in recovery.
const IS_STANDBY: &str = "SELECT pg_is_in_recovery()";

/// Tests something on a database with a table `t` whose replica is a standby.
fn test(what: impl AsyncFnOnce(&Postgres, &Server, &mut Server)) {
    let Some(server) = Server::for_test() else {
        return;
    };
    let mut standby = server.standby();
    block_on(async {
        let db = open(&server.url("postgres"));
        let db = db.with_replica("default", address(&standby));
        tokio::task::spawn_local(db.clone().watch());
        db.prepare(None).await.unwrap();
        server.query("postgres", "CREATE TABLE t (a int8)");
        server.wait_for(&standby);
        let tested = what(&db, &server, &mut standby);
        timeout(DEADLINE, tested).await.expect("the test hangs");
        db.close();
    });
}

fn address(server: &Server) -> Address {
    Address::parse(&server.url("postgres")).unwrap()
}

fn read_only() -> TxOptions {
    TxOptions {
        read_only: true,
        ..TxOptions::default()
    }
}

/// Runs one statement in a batch that only reads.
async fn read(db: &Postgres, sql: &str) -> Result<Value, DbError> {
    let steps = db.batch(vec![statement(sql, [])], read_only()).await?;
    Ok(value(steps.into_iter().next().unwrap()))
}

/// Returns the only value of a result.
fn value(step: Step) -> Value {
    match step {
        Step::Rows(mut rows) => rows.rows.remove(0).remove(0),
        Step::Done(_) => panic!("no rows"),
    }
}

async fn until_it_is_read_at_the_standby(db: &Postgres, is_standby: bool) {
    while read(db, IS_STANDBY).await != Ok(Value::Boolean(is_standby)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_asked_only_to_read_is_served_by_the_standby_and_all_else_by_the_primary() {
    test(async |db, _, _| {
        let standby = [Value::Boolean(true)];
        assert_eq!(read(db, IS_STANDBY).await, Ok(standby[0].clone()));
        for isolation in [
            Isolation::Serializable,
            Isolation::RepeatableRead,
            Isolation::ReadCommitted,
        ] {
            let options = TxOptions {
                isolation,
                ..read_only()
            };
            let tx = db.begin(options).await.unwrap();
            for _ in 0..2 {
                let step = run_in(&*tx, IS_STANDBY).await.unwrap();
                assert_eq!(value(step), standby[0], "{isolation:?}");
            }
            tx.commit().await.unwrap();
        }
        // Nobody said that these may be old.
        assert_eq!(
            run(db, IS_STANDBY).await.unwrap(),
            [[Value::Boolean(false)]]
        );
        let tx = begin_tx(db).await;
        let step = run_in(&*tx, IS_STANDBY).await.unwrap();
        assert_eq!(value(step), Value::Boolean(false));
        tx.commit().await.unwrap();
    });
}

#[test]
fn standby_that_knows_no_serializable_shows_one_snapshot_and_the_primary_is_serializable() {
    test(async |db, server, standby| {
        let asked = "SHOW transaction_isolation";
        let isolation = |step: Step| match value(step) {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        let tx = db.begin(read_only()).await.unwrap();
        assert_eq!(
            isolation(run_in(&*tx, asked).await.unwrap()),
            "repeatable read"
        );
        let count = "SELECT count(*) FROM t";
        assert_eq!(value(run_in(&*tx, count).await.unwrap()), Value::Integer(0));
        server.query("postgres", "INSERT INTO t VALUES (1)");
        server.wait_for(standby);
        assert_eq!(value(run_in(&*tx, count).await.unwrap()), Value::Integer(0));
        tx.commit().await.unwrap();
        assert_eq!(read(db, count).await, Ok(Value::Integer(1)));

        let alone = open(&server.url("postgres"));
        let tx = alone.begin(read_only()).await.unwrap();
        assert_eq!(
            isolation(run_in(&*tx, asked).await.unwrap()),
            "serializable"
        );
    });
}

#[test]
fn who_asked_only_to_read_writes_nothing_and_who_writes_writes_to_the_primary() {
    test(async |db, server, _| {
        let insert = "INSERT INTO t VALUES (7)";
        assert_eq!(
            sqlstate(read(db, insert).await),
            ("25006".to_owned(), false)
        );
        let tx = db.begin(read_only()).await.unwrap();
        assert_eq!(
            sqlstate(run_in(&*tx, insert).await),
            ("25006".to_owned(), false)
        );
        // It goes on, where it was.
        let step = run_in(&*tx, IS_STANDBY).await.unwrap();
        assert_eq!(value(step), Value::Boolean(true));
        tx.rollback().await;
        assert!(tx_marks(db).await.is_err());
        assert_eq!(server.query("postgres", "SELECT count(*) FROM t"), "0");
        run(db, insert).await.unwrap();
        assert_eq!(server.query("postgres", "SELECT count(*) FROM t"), "1");
    });
}

async fn tx_marks(db: &Postgres) -> Result<bool, DbError> {
    let tx = db.begin(read_only()).await?;
    tx.mark_processed("x".to_owned()).await
}

#[test]
fn reads_go_on_at_the_primary_while_the_standby_is_dead_and_come_back_to_it() {
    test(async |db, _, standby| {
        until_it_is_read_at_the_standby(db, true).await;
        let open = db.begin(read_only()).await.unwrap();
        run_in(&*open, IS_STANDBY).await.unwrap();
        standby.kill();
        // None fails, whenever it was begun, but one that has read at the standby already.
        let error = run_in(&*open, IS_STANDBY).await.unwrap_err();
        assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
        for _ in 0..20 {
            assert_eq!(read(db, IS_STANDBY).await, Ok(Value::Boolean(false)));
            let tx = db.begin(read_only()).await.unwrap();
            let step = run_in(&*tx, IS_STANDBY).await.unwrap();
            assert_eq!(value(step), Value::Boolean(false));
            tx.commit().await.unwrap();
        }
        while !matches!(db.replica(), Some(Reach::Away(_))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(db.why_away(), None);
        standby.start_again();
        until_it_is_read_at_the_standby(db, true).await;
        assert_eq!(db.replica(), Some(Reach::Here));
    });
}

#[test]
fn standby_that_does_not_replay_shows_what_is_old_and_only_to_who_asked_only_to_read() {
    test(async |db, server, standby| {
        standby.query("postgres", "SELECT pg_wal_replay_pause()");
        // It pauses when it comes to that.
        let state = "SELECT pg_get_wal_replay_pause_state()";
        while standby.query("postgres", state) != "paused" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        run(db, "INSERT INTO t VALUES (1)").await.unwrap();
        let count = "SELECT count(*) FROM t";
        assert_eq!(run(db, count).await.unwrap(), [[Value::Integer(1)]]);
        assert_eq!(read(db, count).await, Ok(Value::Integer(0)));
        // The control: without a replica, who reads sees its own writes.
        let alone = open(&server.url("postgres"));
        assert_eq!(read(&alone, count).await, Ok(Value::Integer(1)));
        let found = inspect_replica(&address(standby), &address(server)).await;
        let found = found.unwrap();
        assert!(
            matches!(&found.following, Following::No(why) if why.contains("paused")),
            "{found:?}"
        );
        standby.query("postgres", "SELECT pg_wal_replay_resume()");
        while read(db, count).await != Ok(Value::Integer(1)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn what_is_a_standby_of_whom_is_told() {
    test(async |_, server, standby| {
        let (primary, replica) = (address(server), address(standby));
        let found = inspect_replica(&replica, &primary).await.unwrap();
        assert!(!found.takes_writes && found.server.starts_with("PostgreSQL 1"));
        assert_eq!(
            (found.is_of_primary, found.following),
            (Some(true), Following::Yes)
        );
        assert!(found.lag.unwrap().contains("bytes of log"));
        let found = inspect_replica(&primary, &primary).await.unwrap();
        assert!(found.takes_writes, "{found:?}");
        let other = Server::for_test().unwrap();
        let found = inspect_replica(&replica, &address(&other)).await.unwrap();
        assert_eq!(found.is_of_primary, Some(false));
        assert!(!inspect(&replica).await.unwrap().takes_writes);
    });
}
