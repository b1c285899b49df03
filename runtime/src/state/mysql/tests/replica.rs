//! A database with a replica: a real server that follows another one, is killed, or stands still.

use super::*;
use crate::state::replica::Following;

/// Tells who answers: the primary is 1, the replica 2.
const SERVER: &str = "SELECT @@server_id";

/// Tests something on a database with a table `t` that has a replica.
fn test(what: impl AsyncFnOnce(&Mysql, &MariaDb, &mut MariaDb)) {
    let Some(server) = MariaDb::followed() else {
        return;
    };
    server.create("shop");
    let mut replica = server.replica();
    block_on(async {
        let db = open(&server.url("shop"));
        let db = db.with_replica("default", address(&replica));
        tokio::task::spawn_local(db.clone().watch());
        db.prepare(None).await.unwrap();
        server.query("shop", "CREATE TABLE t (a BIGINT)");
        server.wait_for(&replica);
        let tested = what(&db, &server, &mut replica);
        timeout(DEADLINE, tested).await.expect("the test hangs");
        db.close();
    });
}

fn address(server: &MariaDb) -> Address {
    Address::parse(&server.url("shop")).unwrap()
}

fn read_only() -> TxOptions {
    TxOptions {
        read_only: true,
        ..TxOptions::default()
    }
}

/// Runs one statement in a batch that only reads.
async fn read(db: &Mysql, sql: &str) -> Result<Value, DbError> {
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

async fn until_it_is_read_at(db: &Mysql, server: i64) {
    while read(db, SERVER).await != Ok(Value::Integer(server)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_asked_only_to_read_is_served_by_the_replica_and_all_else_by_the_primary() {
    test(async |db, _, _| {
        assert_eq!(read(db, SERVER).await, Ok(Value::Integer(2)));
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
                let step = run_in(&*tx, SERVER).await.unwrap();
                assert_eq!(value(step), Value::Integer(2), "{isolation:?}");
            }
            tx.commit().await.unwrap();
        }
        // Nobody said that these may be old.
        assert_eq!(run(db, SERVER).await.unwrap(), [[Value::Integer(1)]]);
        let tx = begin_tx(db).await;
        let step = run_in(&*tx, SERVER).await.unwrap();
        assert_eq!(value(step), Value::Integer(1));
        tx.commit().await.unwrap();
    });
}

#[test]
fn who_asked_only_to_read_writes_nothing_and_who_writes_writes_to_the_primary() {
    test(async |db, server, replica| {
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
        let step = run_in(&*tx, SERVER).await.unwrap();
        assert_eq!(value(step), Value::Integer(2));
        tx.rollback().await;
        run(db, insert).await.unwrap();
        assert_eq!(server.query("shop", "SELECT count(*) FROM t"), "1");
        server.wait_for(replica);
        let count = read(db, "SELECT count(*) FROM t").await;
        assert_eq!(count, Ok(Value::Integer(1)));
    });
}

#[test]
fn reads_go_on_at_the_primary_while_the_replica_is_dead_and_come_back_to_it() {
    test(async |db, _, replica| {
        until_it_is_read_at(db, 2).await;
        let open = db.begin(read_only()).await.unwrap();
        run_in(&*open, SERVER).await.unwrap();
        replica.kill();
        // None fails, whenever it was begun, but one that has read at the replica already.
        let error = run_in(&*open, SERVER).await.unwrap_err();
        assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
        for _ in 0..20 {
            assert_eq!(read(db, SERVER).await, Ok(Value::Integer(1)));
            let tx = db.begin(read_only()).await.unwrap();
            let step = run_in(&*tx, SERVER).await.unwrap();
            assert_eq!(value(step), Value::Integer(1));
            tx.commit().await.unwrap();
        }
        while !matches!(db.replica(), Some(Reach::Away(_))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(db.why_away(), None);
        replica.start_again();
        until_it_is_read_at(db, 2).await;
        assert_eq!(db.replica(), Some(Reach::Here));
    });
}

#[test]
fn replica_that_stands_still_shows_what_is_old_and_only_to_who_asked_only_to_read() {
    test(async |db, server, replica| {
        replica.query("mysql", "STOP REPLICA SQL_THREAD");
        run(db, "INSERT INTO t VALUES (1)").await.unwrap();
        let count = "SELECT count(*) FROM t";
        assert_eq!(run(db, count).await.unwrap(), [[Value::Integer(1)]]);
        assert_eq!(read(db, count).await, Ok(Value::Integer(0)));
        // The control: without a replica, who reads sees its own writes.
        let alone = open(&server.url("shop"));
        assert_eq!(read(&alone, count).await, Ok(Value::Integer(1)));
        let found = inspect_replica(&address(replica), &address(server)).await;
        let found = found.unwrap();
        assert!(
            matches!(&found.following, Following::No(why) if why.contains("apply")),
            "{found:?}"
        );
        replica.query("mysql", "START REPLICA SQL_THREAD");
        while read(db, count).await != Ok(Value::Integer(1)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn what_follows_whom_is_told() {
    test(async |_, server, replica| {
        let (primary, follower) = (address(server), address(replica));
        let found = inspect_replica(&follower, &primary).await.unwrap();
        assert!(!found.takes_writes, "{found:?}");
        assert_eq!(
            (found.is_of_primary, found.following),
            (Some(true), Following::Yes)
        );
        assert!(found.lag.unwrap().ends_with(" s"));
        let found = inspect_replica(&primary, &primary).await.unwrap();
        assert!(found.takes_writes, "{found:?}");
        assert!(matches!(found.following, Following::No(_)));
        assert_eq!(inspect(&follower).await.unwrap().setting("read_only"), "ON");
    });
}
