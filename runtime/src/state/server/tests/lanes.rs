//! A worker's lanes: what the engine serves by itself, and what comes of those who do not keep to it.

use super::*;

/// A statement that goes on until it is stopped.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                       INSERT INTO t SELECT i FROM n WHERE i < 0";

impl Fixture {
    /// Connects as a lane of a worker.
    fn lane(&self) -> Peer {
        let mut peer = self.peer();
        let role = Role::Lane {
            generation: GENERATION,
        };
        assert!(matches!(peer.call(Call::Hello { role }), Reply::Done));
        peer
    }
}

fn run(tx: u64, text: &str, want: Want) -> Call {
    Call::Run {
        tx,
        statement: sql(text),
        want,
    }
}

fn create(server: &Fixture) {
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    let created = lane.call(run(1, "CREATE TABLE t (x)", Want::Done));
    assert!(matches!(created, Reply::Steps(_)), "{created:?}");
    assert!(matches!(lane.call(Call::Commit { tx: 1 }), Reply::Done));
}

#[track_caller]
fn inserts(lane: &mut Peer, tx: u64) {
    let inserted = lane.call(run(tx, "INSERT INTO t VALUES (1)", Want::Done));
    assert!(matches!(inserted, Reply::Steps(_)), "{inserted:?}");
}

/// Returns how many rows the table has; waits for who writes.
fn count(server: &Fixture) -> i64 {
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    match lane.call(run(1, "SELECT count(*) FROM t", Want::Rows)) {
        Reply::Steps(steps) => match &steps[..] {
            [Step::Rows(Rows { rows, .. })] => match rows[0][..] {
                [Value::Integer(count)] => count,
                _ => panic!("{rows:?}"),
            },
            _ => panic!("{steps:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn transactions_that_were_sent_together_are_served_one_after_the_other() {
    let server = Fixture::start();
    create(&server);
    let mut lane = server.lane();
    let mut out = Outgoing::default();
    for tx in 1..=3 {
        let insert = run(tx, "INSERT INTO t VALUES (1)", Want::Done);
        let last = match tx {
            2 => Call::Rollback { tx },
            _ => Call::Commit { tx },
        };
        for (id, call) in [(0, begin(tx, "default")), (tx * 10, insert), (tx, last)] {
            out.push(&Request { id, call }).unwrap();
        }
    }
    out.write(|bytes| lane.stream.write(bytes)).unwrap();
    for tx in 1..=3 {
        assert!(matches!(lane.reply(), (id, Reply::Steps(_)) if id == tx * 10));
        assert!(matches!(lane.reply(), (id, Reply::Done) if id == tx));
    }
    assert_eq!(count(&server), 2);
}

#[test]
fn calls_of_a_transaction_that_has_ended_by_itself_are_told_so() {
    let server = Fixture::start();
    create(&server);
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    inserts(&mut lane, 1);
    // The other one gets its turn when nobody has said anything for too long.
    assert_eq!(count(&server), 0);
    let late = [
        run(1, "SELECT 1", Want::Rows),
        run(1, "SELECT 1", Want::Rows),
        Call::Commit { tx: 1 },
    ];
    for call in late {
        let told = lane.call(call);
        assert!(matches!(told, Reply::Db(DbError::Timeout(_))), "{told:?}");
    }
    let told = lane.call(Call::Commit { tx: 1 });
    assert!(matches!(told, Reply::Db(DbError::Closed)), "{told:?}");
    // The lane can still be used.
    lane.send(0, begin(2, "default"));
    inserts(&mut lane, 2);
    assert!(matches!(lane.call(Call::Commit { tx: 2 }), Reply::Done));
    assert_eq!(count(&server), 1);
}

#[test]
fn garbage_and_what_is_no_call_of_a_transaction_cost_the_lane_and_undo_its_transaction() {
    let server = Fixture::start();
    create(&server);
    let too_long = (FRAME_MAX as u32 + 1).to_le_bytes();
    let bad: [fn(&mut Peer, &[u8]); 3] = [
        |lane, _| lane.stream.write_all(&[2, 0, 0, 0, 0xff, 0xff]).unwrap(),
        |lane, too_long| lane.stream.write_all(too_long).unwrap(),
        |lane, _| lane.send(1, Call::Heartbeat),
    ];
    for say in bad {
        let mut lane = server.lane();
        lane.send(0, begin(1, "default"));
        inserts(&mut lane, 1);
        say(&mut lane, &too_long);
        lane.ended();
        assert_eq!(count(&server), 0);
    }
}

#[test]
fn statement_ends_with_the_lane_of_who_waits_for_it() {
    let server = Fixture::start();
    create(&server);
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    inserts(&mut lane, 1);
    lane.send(1, run(1, ENDLESS, Want::Done));
    drop(lane);
    // Well before the statement's own time is up, which is longer than a peer waits here.
    assert_eq!(count(&server), 0);
}

#[test]
fn large_result_is_taken_piece_by_piece() {
    let server = Fixture::start();
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    let large = lane.call(run(1, "SELECT zeroblob(4000000)", Want::Rows));
    assert!(matches!(large, Reply::Steps(_)), "{large:?}");
    assert!(matches!(lane.call(Call::Commit { tx: 1 }), Reply::Done));
}

#[test]
fn lane_is_for_transactions_alone() {
    let server = Fixture::start();
    for call in [acquire(1, "a"), credit(1)] {
        let mut lane = server.lane();
        assert!(matches!(lane.call(call), Reply::Refused(_)));
        lane.ended();
    }
}

#[test]
fn end_of_the_state_process_ends_what_is_lent() {
    let mut server = Fixture::start();
    create(&server);
    let mut lane = server.lane();
    lane.send(0, begin(1, "default"));
    inserts(&mut lane, 1);
    assert_eq!(server.stop(), ExitCode::Ok);
    lane.ended();
}
