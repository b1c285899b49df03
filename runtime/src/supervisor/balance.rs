//! Evening out connections: which worker is to part with some.
//!
//! All workers take connections from one queue, and whoever is awake takes most of those that come at once; keep-alive clients
//! then stay where they came to. Closing is all that is done here: a client comes back on a new connection, which an idle worker
//! takes before a busy one.

use super::Supervisor;
use super::policy::{Worker, WorkerId};
use crate::ipc::{ToWorker, Vitals};

/// From how busy on a worker parts with connections, in percent: below that, nobody waits for another.
const BUSY_MIN: u8 = 75;

/// By how much another worker must be less busy, in percent, to be of help.
const BUSY_LESS: u8 = 5;

impl Supervisor<'_> {
    /// Tells a worker that has just given a sign of life what it is to part with.
    pub(super) fn even_out(&self, id: WorkerId) {
        let serves = |id: &WorkerId| self.policy.worker(*id).is_some_and(Worker::is_ready);
        let Some(worker) = self.workers.get(&id).filter(|_| serves(&id)) else {
            return;
        };
        let others = self.workers.iter().filter(|(other, _)| **other != id);
        let others = others.filter(|(other, _)| serves(other));
        let connections = surplus(worker.vitals, others.map(|(_, other)| other.vitals));
        if connections > 0 {
            worker.tell(&ToWorker::Release { connections });
        }
    }
}

/// Returns how many connections a busy worker has beyond its share, if that is many, and another one would serve them better.
fn surplus(mine: Vitals, others: impl Iterator<Item = Vitals>) -> u64 {
    let (mut workers, mut connections, mut helps) = (1, mine.connections, false);
    for other in others {
        workers += 1;
        // A worker may claim what it likes.
        connections = connections.saturating_add(other.connections);
        helps |= serves_better(other, mine);
    }
    let share = connections.div_ceil(workers);
    let far_more = mine.connections > share + share / 4 + 1;
    if far_more && helps && mine.busy >= BUSY_MIN {
        mine.connections - share
    } else {
        0
    }
}

/// Tells whether a worker has less to do than `mine`, or, if both have no rest, answers a quarter more requests for each of its
/// connections: one with few connections may well be the one that has heavy work.
fn serves_better(other: Vitals, mine: Vitals) -> bool {
    let per_connection = |worker: Vitals| worker.recent as f64 / worker.connections.max(1) as f64;
    other.busy.saturating_add(BUSY_LESS) <= mine.busy
        || per_connection(other) > 1.25 * per_connection(mine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(connections: u64, busy: u8) -> Vitals {
        Vitals {
            connections,
            busy,
            recent: 100,
            ..Vitals::default()
        }
    }

    fn surplus_of(mine: Vitals, others: &[Vitals]) -> u64 {
        surplus(mine, others.iter().copied())
    }

    #[test]
    fn busy_worker_parts_with_what_is_beyond_its_share() {
        assert_eq!(surplus_of(worker(32, 100), &[worker(0, 0)]), 16);
        assert_eq!(surplus_of(worker(30, 90), &[worker(2, 60)]), 14);
        // Both have no rest, but clients of the other one wait less.
        assert_eq!(surplus_of(worker(24, 100), &[worker(8, 100)]), 8);
        let others = [worker(5, 90), worker(0, 0), worker(7, 80)];
        assert_eq!(surplus_of(worker(40, 100), &others), 27);
    }

    #[test]
    fn nobody_parts_with_connections_where_it_would_not_help() {
        let kept = |mine, other| assert_eq!(surplus_of(mine, &[other]), 0);
        assert_eq!(surplus_of(worker(1000, 100), &[]), 0);
        // Nobody waits.
        kept(worker(32, 74), worker(0, 0));
        // The other one has as much to do with fewer.
        let heavy = Vitals {
            recent: 5,
            ..worker(2, 96)
        };
        kept(worker(32, 100), heavy);
        // The difference is small, or the other way round.
        kept(worker(21, 100), worker(11, 50));
        kept(worker(1, 100), worker(0, 0));
        kept(worker(2, 100), worker(0, 0));
        kept(worker(2, 100), worker(30, 10));
    }

    #[test]
    fn claims_without_measure_harm_nobody() {
        let boast = worker(u64::MAX, u8::MAX);
        assert_eq!(surplus_of(worker(10, 100), &[boast, boast]), 0);
        assert!(surplus_of(boast, &[worker(0, 0)]) > 0);
    }
}
